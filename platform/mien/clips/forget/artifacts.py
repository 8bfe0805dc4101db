"""Packages among the artifacts of tracked runs: what their memories hold of a person.

Read and written through MLflow's client, so that a server that stands before its artifacts (a
proxied artifact store) needs no key to the store.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mien.clips.forget.memory_files import MEMORY_KEYS, memory_left, name_of
from mien.clips.forget.models import SearchError, TrackedRun
from mien.clips.forget.person import Person
from mien.clips.forget.runs import is_package_ours
from mien.monitor.sample import REFERENCE_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMemory:
    """A state or a reference among a run's artifacts."""

    uri: str
    """MLflow's."""
    run_id: str
    path: str
    in_memory: int
    """Entries of the person, or places that can't be cleaned."""

    @property
    def location(self) -> str:
        """For people."""
        return f"{self.uri}, artifact of run {self.run_id}: {self.path}"

    @property
    def name(self) -> str:
        """The file's name."""
        return name_of(self.path)

    def read(self) -> bytes:
        """The content now."""
        from mien.track.mlflow_tracker import open_client

        with tempfile.TemporaryDirectory() as folder:
            file = open_client(self.uri).download_artifacts(self.run_id, self.path, folder)
            return Path(file).read_bytes()

    def write(self, data: bytes) -> None:
        """Replaces the content.

        Raises:
            SearchError: the server does not take it.
        """
        from mlflow.exceptions import MlflowException

        from mien.track.mlflow_tracker import open_client

        parent, _, name = self.path.rpartition("/")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(data)
            try:
                open_client(self.uri).log_artifact(self.run_id, str(file), parent or None)
            except MlflowException as error:
                raise SearchError(f"{self.location} can't be written: {error}") from error


def search_artifacts(
    uri: str, runs: Sequence[TrackedRun], person: Person
) -> tuple[ArtifactMemory, ...]:
    """The memories of runs in which something of the person is.

    Args:
        uri: MLflow's tracking URI.
        runs: those that used the person's clips.
        person: whose clips are looked for.

    Raises:
        SearchError: the server does not answer.
    """
    from mlflow.exceptions import MlflowException

    from mien.track.mlflow_tracker import open_client

    found = []
    try:
        for run in runs:
            paths = list(_files(open_client(uri), run.run_id, None))
            packages = {
                path: ArtifactMemory(uri=uri, run_id=run.run_id, path=path, in_memory=0)
                for path in paths
                if _is_memory(path)
            }
            for path, memory in packages.items():
                if _is_ours(packages.get(_package_of(path)), person):
                    left = memory_left(memory, person)
                    count = left.removed + len(left.unsafe)
                    found += [replace(memory, in_memory=count)] if count else []
    except MlflowException as error:
        raise SearchError(f"artifacts at {uri} can't be read: {error}") from error
    return tuple(found)


def _is_memory(path: str) -> bool:
    return name_of(path) in (*MEMORY_KEYS, REFERENCE_FILE)


def _package_of(path: str) -> str:
    return f"{path.rpartition('/')[0]}/model.json".lstrip("/")


def _is_ours(package: ArtifactMemory | None, person: Person) -> bool:
    """False for a package of another manifest, whose clips only happen to have the same ids."""
    return package is None or is_package_ours(json.loads(package.read()), person)


def _files(client: Any, run_id: str, folder: str | None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _files(client, run_id, entry.path)
        else:
            yield entry.path
