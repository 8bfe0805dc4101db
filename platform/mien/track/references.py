"""What a model is called: a reference becomes a local folder with its package."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mien.infer.package import INFO_FILE, PackageError, load_package, read_info
from mien.media.storage import exists, is_remote, join, list_files, local_path, read_bytes
from mien.track.mlflow_tracker import RUN_KEY_TAG, open_client
from mien.track.registry import PACKAGE_FOLDER, WEIGHTS_TAG, RegistryError
from mien.track.tracker import embedded_folder

_VERSION = re.compile(r"(?:models:/)?([^/@]+)(?:@([\w.-]+)|/(\d+))")
_RUN = re.compile(r"runs:/([^/]+)(?:/package/?)?|([0-9a-f]{32})")
_WHAT_TO_GIVE = "a package's or a run's folder, NAME@champion, NAME/3, runs:/RUN_ID or a run's name"
_OTHER_MLFLOW = "--registry, --storage or MLFLOW_TRACKING_URI say in which MLflow to look"


def resolve(uri: str | None, reference: str, *, cache: str | Path | None = None) -> Path:
    """A local folder with the package that a reference means; its weights are checked.

    Args:
        uri: MLflow's tracking URI; not needed for a folder.
        reference: the folder of a package or of a run (path or URI); ``NAME@alias``,
            ``NAME/version`` or these after ``models:/``; ``runs:/RUN_ID``, a run's id or its name.
        cache: where packages of a remote registry are kept; ``~/.cache/mien/packages`` if None.

    Raises:
        RegistryError: unknown model, alias, version or run, a run without a package, or a name
            of several runs; the message lists what exists.
        PackageError: the package is broken, or not the one that was registered or trained.
    """
    if is_remote(reference) or Path(reference).exists():
        return _from_folder(reference)
    version, run = _VERSION.fullmatch(reference), _RUN.fullmatch(reference)
    if version is None and run is None and "/" in reference:
        raise RegistryError(f"there is no model {reference!r}; give {_WHAT_TO_GIVE}")
    client = _open(uri, reference)
    store = Path(cache) if cache else _default_cache()
    if version is not None:
        name, alias, number = version.groups()
        return _package_of_version(client, _find_version(client, name, alias, number), store)
    found = _run_of_name(client, reference) if run is None else _run_of_id(client, run[1] or run[2])
    return _package_of_run(client, found, store)


def _open(uri: str | None, reference: str) -> MlflowClient:
    if uri is None:
        raise RegistryError(f"{reference!r} is no folder; give the tracking URI as well")
    folder = embedded_folder(uri)
    if folder is not None and not (folder / "mlflow.db").is_file():  # MLflow would make one
        raise RegistryError(
            f"there is no folder {reference!r}, and no registry in {folder} that could know the "
            "name; say where the runs are: --storage FOLDER, or set MLFLOW_TRACKING_URI"
        )
    return open_client(uri)


def _from_folder(location: str) -> Path:
    """A package at a location, or in the run's folder there."""
    inner = join(location, PACKAGE_FOLDER)
    if not exists(join(location, INFO_FILE)) and exists(join(inner, INFO_FILE)):
        location = inner
    if is_remote(location):
        return fetch_remote(location)
    load_package(location)
    return Path(local_path(location)).absolute()


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


def _find_version(
    client: MlflowClient, name: str, alias: str | None, number: str | None
) -> ModelVersion:
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


def _run_of_id(client: MlflowClient, run_id: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(f"no run has the id {run_id!r}; {_OTHER_MLFLOW}") from error


def _run_of_name(client: MlflowClient, name: str) -> Run:
    """The one run of this name. A model's name alone would leave open which version is meant."""
    known = sorted(model.name for model in client.search_registered_models())
    if name in known:
        aliases = client.get_registered_model(name).aliases  # a search leaves them out
        wanted = [*(f"{name}@{alias}" for alias in sorted(aliases)), f"{name}/VERSION"]
        raise RegistryError(
            f"{name!r} is a registered model; say which version: {' or '.join(wanted)}"
        )
    experiments = [one.experiment_id for one in client.search_experiments()]
    quote = '"' if "'" in name else "'"
    runs = list(client.search_runs(experiments, f"attributes.run_name = {quote}{name}{quote}"))
    if len(runs) == 1:
        return runs[0]
    if runs:
        listed = ", ".join(f"runs:/{run.info.run_id} ({run.info.status})" for run in runs)
        raise RegistryError(f"{len(runs)} runs are called {name!r}; say which: {listed}")
    raise RegistryError(
        f"{name!r} is no folder, and no run's name; registered models: "
        f"{', '.join(known) or 'none yet'}; give {_WHAT_TO_GIVE}. {_OTHER_MLFLOW}"
    )


def _package_of_version(client: MlflowClient, version: ModelVersion, cache: Path) -> Path:
    what = f"{version.name} version {version.version}"
    if WEIGHTS_TAG not in version.tags or version.run_id is None:
        raise RegistryError(
            f"{what} was not registered by Mien: it has no {WEIGHTS_TAG} tag; load it with "
            "mlflow, or register a package"
        )
    expected = version.tags[WEIGHTS_TAG]
    return _checked(_fetch(client, version.run_id, cache / expected, what), expected, what)


def _package_of_run(client: MlflowClient, run: Run, cache: Path) -> Path:
    """The package that was stored with a run, or the one in the folder where it was trained."""
    run_id, tags = run.info.run_id, run.data.tags
    what = f"run {run.info.run_name} ({run_id})"
    expected = tags.get(WEIGHTS_TAG)
    if any(item.path == PACKAGE_FOLDER for item in client.list_artifacts(run_id)):
        target = Path(tempfile.mkdtemp(prefix="mien-package-")) / PACKAGE_FOLDER
        target = target if expected is None else cache / expected
        return _checked(_fetch(client, run_id, target, what), expected, what)
    folder = tags.get(RUN_KEY_TAG)
    if folder is not None and exists(join(folder, f"{PACKAGE_FOLDER}/{INFO_FILE}")):
        return _checked(_from_folder(folder), expected, what)
    raise RegistryError(
        f"{what}, {run.info.status}, has no package: none is stored with it, and none lies here in "
        f"{folder or 'a folder, as it is no training of Mien'}. A training has one once it has "
        "finished, elsewhere only where the run was registered; searches and benchmarks have "
        "them in the runs below"
    )


def _checked(folder: Path, expected: str | None, what: str) -> Path:
    """The folder, if the package in it is whole and has the expected weights (None: any)."""
    info, _tensors = load_package(folder)
    if expected is not None and info.weights_sha256 != expected:
        raise PackageError(
            f"{folder} is not the package of {what}: its weights have another hash than those "
            "recorded there; register it again"
        )
    return folder


def _fetch(client: MlflowClient, run_id: str, target: Path, what: str) -> Path:
    """The package from the cache, from a local artifact folder as it is, or downloaded."""
    found = target if target.is_dir() else _download(client, run_id, target)
    if not found.is_dir():
        raise RegistryError(
            f"the package of {what} is gone from {found}; was it deleted, or does it lie on "
            f"another machine? run {run_id} wrote it"
        )
    return found


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
