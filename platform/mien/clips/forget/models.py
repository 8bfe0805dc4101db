"""Which tracked runs used a person's clips, and which registered models came out of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.clips.forget.person import Person
from mien.clips.splits import PARTS

PAGE = 200
"""Runs that are asked for at a time."""
_MANIFEST_PARAM = "data_facts.manifest_hash"
_SPLIT = "split.json"
Aliases = Mapping[tuple[str, str], tuple[str, ...]]
"""Of registered models, by name and version."""


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
    started_from: str = ""
    """Name of a run whose weights it began with, which depend on the person."""

    @property
    def is_trained_on(self) -> bool:
        """Whether its weights depend on the person: trained on, selected on, or unknown."""
        learnt = not self.parts or bool(self.parts.get("train") or self.parts.get("val"))
        return learnt or bool(self.started_from)


def search_tracking(
    uri: str, person: Person, progress: Callable[[int, int], None] | None = None
) -> list[TrackedRun]:
    """Looks through all runs of a tracking server, deleted ones too.

    A run used the person's clips if its ``split.json`` names them; a run without one if it records
    the content of one of the manifests. Runs that began with the weights of one that learnt from
    the person follow, and those that began with theirs.

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
        return _with_descendants(client, runs, found, aliases)
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
    aliases: Aliases,
) -> TrackedRun | None:
    run_id = run.info.run_id
    parts = _parts(client, run_id, person)
    if parts is None:
        recorded = run.data.params.get(_MANIFEST_PARAM)
        if not any(recorded in manifest.content_hashes for manifest in person.manifests):
            return None
    elif not parts:
        return None
    return TrackedRun(
        run_id=run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        parts=parts or {},
        versions=_versions(client, run_id, aliases),
    )


def _with_descendants(
    client: Any, runs: Sequence[tuple[str, Any]], found: Sequence[TrackedRun], aliases: Aliases
) -> list[TrackedRun]:
    """The found runs, and all that began with weights that depend on the person."""
    from mien.track.registry import STARTED_FROM_TAG, WEIGHTS_TAG

    by_id = {run.run_id: run for run in found}
    tags = {run.info.run_id: run.data.tags for _, run in runs}
    begins = {name: set(tags[name].get(STARTED_FROM_TAG, "").split(",")) - {""} for name in tags}
    waiting = [run for run in found if run.is_trained_on]
    while waiting:
        parent = waiting.pop()
        weights = tags[parent.run_id].get(WEIGHTS_TAG)
        for experiment, run in runs:
            known = by_id.get(run.info.run_id)
            if weights not in begins[run.info.run_id] or (known and known.is_trained_on):
                continue
            child = TrackedRun(
                run_id=run.info.run_id,
                name=run.info.run_name or "",
                experiment=experiment,
                parts=known.parts if known else {},
                versions=_versions(client, run.info.run_id, aliases),
                started_from=parent.name,
            )
            by_id[child.run_id] = child
            waiting.append(child)
    return list(by_id.values())


def _versions(client: Any, run_id: str, aliases: Aliases) -> tuple[ModelVersion, ...]:
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return tuple(
        ModelVersion(
            name=version.name,
            version=str(version.version),
            aliases=aliases.get((version.name, str(version.version)), ()),
        )
        for version in sorted(found, key=lambda version: (version.name, int(version.version)))
    )


def _parts(client: Any, run_id: str, person: Person) -> dict[str, int] | None:
    """Clips of the person in each part of a run's split, empty parts left out; None: no split."""
    if all(entry.path != _SPLIT for entry in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        split = json.loads(Path(client.download_artifacts(run_id, _SPLIT, folder)).read_text())
    counts = {part: len(person.clip_ids.intersection(split.get(part, ()))) for part in PARTS}
    return {part: count for part, count in counts.items() if count}


def _aliases(client: Any) -> Aliases:
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
