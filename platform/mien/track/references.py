"""What a model is called: a reference becomes a local folder with its package."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mien.infer.package import INFO_FILE, PackageError, load_package, read_info
from mien.media.storage import is_remote, join, list_files, read_bytes
from mien.track.mlflow_tracker import open_client
from mien.track.registry import PACKAGE_FOLDER, WEIGHTS_TAG, RegistryError


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
