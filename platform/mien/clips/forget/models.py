"""Which tracked runs used a person's clips, and which registered models came out of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.clips.forget.person import Person
from mien.clips.splits import PARTS

PAGE = 200
"""Runs that are asked for at a time."""
_MANIFEST_PARAM = "data_facts.manifest_hash"
_SPLIT = "split.json"


class SearchError(ValueError):
    """A tracking server or data base that can't be searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version in the registry."""

    name: str
    version: str
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        aliases = "".join(f"@{alias}" for alias in self.aliases)
        return f"{self.name} version {self.version}" + (f" ({aliases})" if aliases else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run that used the person's clips."""

    run_id: str
    name: str
    experiment: str
    parts: Mapping[str, int]
    """Clips of the person in each part of its split; empty where the run keeps no split."""
    versions: tuple[ModelVersion, ...]

    @property
    def is_trained_on(self) -> bool:
        """Whether its weights depend on the person: trained on, selected on, or unknown."""
        return not self.parts or bool(self.parts.get("train") or self.parts.get("val"))


def search_tracking(
    uri: str, person: Person, progress: Callable[[int, int], None] | None = None
) -> list[TrackedRun]:
    """Looks through all runs of a tracking server, deleted ones too.

    A run used the person's clips if its ``split.json`` names them; a run without one if it records
    the content of one of the manifests.

    Args:
        uri: MLflow's tracking URI.
        person: with the manifests as they were.
        progress: called with the number of runs that were looked at, and of all runs.

    Raises:
        SearchError: there is no such data base, or the server does not answer.
    """
    from mlflow.exceptions import MlflowException

    from mien.track.mlflow_tracker import open_client
    from mien.track.tracker import embedded_folder

    folder = embedded_folder(uri)
    # MLflow would make an empty data base there.
    if folder is not None and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise SearchError(f"there is no data base {uri}; check the path")
    try:
        client = open_client(uri)
        aliases = _aliases(client)
        found = []
        runs = list(_runs(client))
        for number, (experiment, run) in enumerate(runs, 1):
            tracked = _tracked(client, experiment, run, person, aliases)
            if tracked is not None:
                found.append(tracked)
            if progress is not None:
                progress(number, len(runs))
        return found
    except MlflowException as error:
        raise SearchError(
            f"MLflow at {uri} can't be searched: {error}. Check the address and that it runs; "
            "nothing was removed yet, unless an earlier line says so"
        ) from error


def _runs(client: Any) -> Iterator[tuple[str, Any]]:
    from mlflow.entities import ViewType

    for experiment in client.search_experiments(view_type=ViewType.ALL):
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id],
                run_view_type=ViewType.ALL,
                max_results=PAGE,
                page_token=token,
            )
            for run in page:
                yield experiment.name, run
            token = page.token
            if not token:
                break


def _tracked(
    client: Any,
    experiment: str,
    run: Any,
    person: Person,
    aliases: Mapping[tuple[str, str], tuple[str, ...]],
) -> TrackedRun | None:
    run_id = run.info.run_id
    parts = _parts(client, run_id, person)
    if parts is None:
        recorded = run.data.params.get(_MANIFEST_PARAM)
        if not any(recorded in manifest.content_hashes for manifest in person.manifests):
            return None
    elif not parts:
        return None
    found = client.search_model_versions(f"run_id = '{run_id}'")
    versions = [
        ModelVersion(
            name=version.name,
            version=str(version.version),
            aliases=aliases.get((version.name, str(version.version)), ()),
        )
        for version in sorted(found, key=lambda version: (version.name, int(version.version)))
    ]
    return TrackedRun(
        run_id=run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        parts=parts or {},
        versions=tuple(versions),
    )


def _parts(client: Any, run_id: str, person: Person) -> dict[str, int] | None:
    """Clips of the person in each part of a run's split, empty parts left out; None: no split."""
    if all(entry.path != _SPLIT for entry in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        split = json.loads(Path(client.download_artifacts(run_id, _SPLIT, folder)).read_text())
    counts = {part: len(person.clip_ids.intersection(split.get(part, ()))) for part in PARTS}
    return {part: count for part, count in counts.items() if count}


def _aliases(client: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Aliases by name and version of registered models."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        for model in page:
            for alias, version in (model.aliases or {}).items():
                key = (model.name, str(version))
                found[key] = (*found.get(key, ()), alias)
        token = page.token
        if not token:
            return found
