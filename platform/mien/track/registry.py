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
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException

from mien.infer.package import PackageInfo, load_package
from mien.track.export import ExportSpec, save_export
from mien.track.mlflow_tracker import open_client

PACKAGE_FOLDER = "package"
PACKAGE_TAG = "mien.package_uri"
WEIGHTS_TAG = "mien.weights_sha256"
STARTED_FROM_TAG = "mien.started_from"
"""SHA-256 of the files that the given weights of a training came from (models of ours among them:
then their ``WEIGHTS_TAG``), by commas."""
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
