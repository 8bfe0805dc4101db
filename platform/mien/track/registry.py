"""The model registry: a trained package becomes a version of a named model, found by its alias.

Two things are stored for each version:

* our package (``weights.safetensors`` and ``model.json``) as the run's artifact ``package/``; it is
  what :func:`resolve` gives back and everything in Mien loads;
* if an :class:`~mien.track.export.ExportSpec` is given, the network as a ``torch.export`` graph in
  MLflow's own format, for users who don't have Mien.

Neither is unpickled when it is loaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException

from mien.infer.package import INFO_FILE, PackageError, PackageInfo, load_package, read_info
from mien.media.storage import is_remote, join, list_files, read_bytes
from mien.track.export import ExportSpec, save_export
from mien.track.mlflow_tracker import open_client

PACKAGE_FOLDER = "package"
PACKAGE_TAG = "mien.package_uri"
WEIGHTS_TAG = "mien.weights_sha256"
_VERSIONS_TAG = "mlflow.modelVersions"


class RegistryError(ValueError):
    """An unknown model, alias or version, or one that is not ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredModel:
    """A version of a model in the registry."""

    name: str
    version: int
    package_uri: str
    weights_sha256: str
    export_uri: str | None
    """``models:/m-...`` for ``mlflow.pytorch.load_model``; None without an export."""


def register(
    uri: str,
    run_id: str,
    package_folder: str | Path,
    *,
    name: str,
    alias: str | None = "champion",
    export: ExportSpec | None = None,
) -> RegisteredModel:
    """Stores a package with its run, makes it a new version of a model and points an alias at it.

    Args:
        uri: MLflow's tracking URI; the registry is the same server.
        run_id: the run that trained it.
        package_folder: what ``save_package`` wrote.
        name: of the registered model; made if needed.
        alias: points at the new version afterwards; None: no alias is touched.
        export: the network to export as well.

    Raises:
        PackageError: ``package_folder`` is not a whole package.
        RegistryError: the name or alias is malformed.
        ExportError: the export computes something else; nothing is registered then.
    """
    _check_name(name, alias)
    info, _tensors = load_package(package_folder)
    client = open_client(uri)
    client.log_artifacts(run_id, str(package_folder), PACKAGE_FOLDER)
    package_uri = f"{client.get_run(run_id).info.artifact_uri}/{PACKAGE_FOLDER}"
    logged = None if export is None else _log_export(client, run_id, name, info, export)
    _ensure_model(client, name)
    version = client.create_model_version(
        name,
        source=package_uri if logged is None else logged.artifact_location,
        run_id=run_id,
        tags={PACKAGE_TAG: package_uri, WEIGHTS_TAG: info.weights_sha256, "method": info.method},
        model_id=None if logged is None else logged.model_id,
    )
    if logged is not None:
        entry = [{"name": name, "version": version.version}]
        client.set_logged_model_tags(logged.model_id, {_VERSIONS_TAG: json.dumps(entry)})
    if alias is not None:
        client.set_registered_model_alias(name, alias, version.version)
    return RegisteredModel(
        name=name,
        version=int(version.version),
        package_uri=package_uri,
        weights_sha256=info.weights_sha256,
        export_uri=None if logged is None else f"models:/{logged.model_id}",
    )


def resolve(uri: str | None, reference: str, *, cache: str | Path | None = None) -> Path:
    """A local folder with the package that a reference means; its weights are checked.

    Args:
        uri: MLflow's tracking URI; not needed for a folder.
        reference: a package folder (path or URI), ``NAME@alias``, ``NAME/version`` or these after
            ``models:/``.
        cache: where packages of a remote registry are kept; ``~/.cache/mien/packages`` if None.

    Raises:
        RegistryError: unknown model, alias or version; the message lists what exists.
        PackageError: the package is broken, or not the one that was registered.
    """
    parts = re.fullmatch(r"(?:models:/)?([^/@]+)(?:@([\w.-]+)|/(\d+))", reference)
    if is_remote(reference) and not reference.startswith("models:"):
        return fetch_remote(reference)
    if Path(reference).is_dir() or parts is None:
        return _local_package(reference)
    if uri is None:
        raise RegistryError(f"{reference!r} is a registered model; give the tracking URI as well")
    name, alias, number = parts.groups()
    client = open_client(uri)
    version = _find_version(client, name, alias, number)
    if WEIGHTS_TAG not in version.tags or version.run_id is None:
        raise RegistryError(
            f"version {version.version} of {name!r} was not registered by Mien: it has no "
            f"{WEIGHTS_TAG} tag; load it with mlflow, or register a package"
        )
    return _fetch(client, version, Path(cache) if cache else _default_cache())


def fetch_remote(location: str) -> Path:
    """A temporary local copy of a package that lies in a bucket.

    Raises:
        PackageError: there is no package.
        StorageError: the storage cannot be reached.
    """
    names = list_files(location)
    if INFO_FILE not in names:
        raise PackageError(f"{location} is not a model package: it holds no {INFO_FILE}")
    target = Path(tempfile.mkdtemp(prefix="mien-package-"))
    for name in names:
        (target / name).write_bytes(read_bytes(join(location, name)))
    return target


def list_models(uri: str) -> dict[str, dict[str, int]]:
    """Versions by alias of every registered model."""
    models = open_client(uri).search_registered_models()
    return {
        model.name: {alias: int(version) for alias, version in (model.aliases or {}).items()}
        for model in models
    }


def _log_export(
    client: MlflowClient, run_id: str, name: str, info: PackageInfo, export: ExportSpec
) -> LoggedModel:
    """Saves the network in MLflow's format, checks it and makes it a logged model of the run."""
    experiment_id = client.get_run(run_id).info.experiment_id
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        logged = client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags={WEIGHTS_TAG: info.weights_sha256}
        )
        try:
            save_export(folder, info, export, run_id=run_id, model_id=logged.model_id)
            client.log_model_artifacts(logged.model_id, str(folder))
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _check_name(name: str, alias: str | None) -> None:
    if not re.fullmatch(r"[\w.-]+", name):
        raise RegistryError(
            f"model name {name!r} may hold letters, digits and _ . - only, for example 'dfew-mma'"
        )
    if alias is not None and not re.fullmatch(r"(?!v\d+$|latest$)[A-Za-z][\w.-]*", alias):
        raise RegistryError(
            f"alias {alias!r} must start with a letter, hold letters, digits and _ . - only, and "
            "be neither 'latest' nor a version such as 'v1'"
        )


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _local_package(reference: str) -> Path:
    try:
        load_package(reference)
    except PackageError as error:
        if Path(reference).exists():
            raise
        raise RegistryError(
            f"{reference!r} is neither a package folder nor a registered model; give a folder, "
            "NAME@champion or NAME/3"
        ) from error
    return Path(reference).absolute()


def _find_version(client: MlflowClient, name: str, alias: str | None, number: str | None) -> Any:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = sorted(model.name for model in client.search_registered_models())
        raise RegistryError(
            f"no registered model {name!r}; there are: {', '.join(known) or 'none yet'}"
        ) from error
    if alias is not None and alias not in model.aliases:
        known = sorted(model.aliases)
        raise RegistryError(
            f"model {name!r} has no alias {alias!r}; it has: {', '.join(known) or 'none'}"
        )
    try:
        return client.get_model_version(name, number or str(model.aliases[alias]))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = client.search_model_versions(f"name = '{name}'")
        versions = sorted(int(version.version) for version in found)
        raise RegistryError(
            f"model {name!r} has no version {number}; it has: {', '.join(map(str, versions))}"
        ) from error


def _fetch(client: MlflowClient, version: Any, cache: Path) -> Path:
    """The package from the cache, from a local artifact folder as it is, or downloaded."""
    expected = version.tags[WEIGHTS_TAG]
    cached: Path = cache / expected
    if not cached.is_dir():
        cached = _download(client, version.run_id, cached)
    if not cached.is_dir():
        raise RegistryError(
            f"the package of {version.name} version {version.version} is gone from {cached}; "
            f"was it deleted, or does it lie on another machine? run {version.run_id} wrote it"
        )
    info, _tensors = load_package(cached)
    if info.weights_sha256 != expected:
        raise PackageError(
            f"{cached} is not the package that was registered as {version.name} version "
            f"{version.version}: its weights have another hash; register it again"
        )
    return cached


def _download(client: MlflowClient, run_id: str, target: Path) -> Path:
    location = client.get_run(run_id).info.artifact_uri
    if location.startswith("file:"):  # MLflow would copy it
        return Path(url2pathname(urlparse(location).path)) / PACKAGE_FOLDER
    try:
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        partial.mkdir(parents=True)
        try:
            found = Path(client.download_artifacts(run_id, PACKAGE_FOLDER, str(partial)))
            read_info(found)
            if not target.exists():  # another process may have been faster
                os.rename(found, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"the package of run {run_id} can't be read from {location}/{PACKAGE_FOLDER}: {error}"
        ) from error
    return target


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mien" / "packages"
