"""What the loop tells the world: the Tracker interface, the one that does nothing, and its spec.

The MLflow one lives in ``mlflow_tracker.py`` and is imported only when a spec with a URI is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class TrackerError(ValueError):
    """Something that can't be tracked, or a tracking server that can't be used."""


class Tracker(Protocol):
    """One run. All names are ``group/name``; characters that MLflow refuses become ``_``."""

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty where nothing is tracked."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings, nested mappings become dotted names (``train.lr``).

        Values over 500 characters are cut, the whole value goes to ``params/<name>.json``. A
        value that differs from the one logged before a restart is kept as the tag
        ``mien.changed.<name>``, because a parameter can't be changed.
        """

    def log_dataset(self, name: str, *, digest: str, source: str, facts: Mapping[str, Any]) -> None:
        """What the run was made from: shown on its page and in the list of runs.

        Args:
            name: what people see.
            digest: of its contents, at most 36 characters.
            source: where it lies.
            facts: numbers about it, as JSON values.
        """

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Scalars of one step; written in batches every few seconds.

        After a restart, values of steps that the run already holds are skipped.

        Raises:
            TrackerError: a value that is not a finite number.
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Searchable facts about the run; may be changed later."""

    def log_json(self, name: str, value: Any) -> None:
        """An artifact ``<name>.json``; a name may bring its suffix along, here and below."""

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """An artifact ``<name>.csv``; the columns are all keys, in order of appearance."""

    def log_figure(self, name: str, figure: Figure) -> None:
        """An artifact ``<name>.png``."""

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """A file, or a folder with all that is in it, as artifact below ``folder``."""

    def flush(self) -> None:
        """Writes buffered metrics now. Call it before a checkpoint is reported: what a restart
        does not repeat must be written."""

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Flushes and ends the run."""


class NoTracker:
    """Tracks nothing."""

    run_id = ""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Does nothing."""

    def log_dataset(self, name: str, *, digest: str, source: str, facts: Mapping[str, Any]) -> None:
        """Does nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Does nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def log_json(self, name: str, value: Any) -> None:
        """Does nothing."""

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Does nothing."""

    def log_figure(self, name: str, figure: Figure) -> None:
        """Does nothing."""

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerSpec:
    """Where and under which names a training is tracked. Can be sent to a worker and opened there.

    Raises:
        TrackerError: a run key that MLflow's search can't hold, or a relative SQLite path.
    """

    uri: str | None
    """``sqlite:////absolute/path/mlflow.db``, the URL of a tracking server, or None: nothing is
    tracked."""
    experiment: str = "mien"
    run_name: str = ""
    """What people see; empty: MLflow invents one."""
    run_key: str = ""
    """What makes a training *this* training. A run that carries the same key is continued."""
    parent_run_id: str | None = None
    """The run of the sweep that this run belongs to."""

    def __post_init__(self) -> None:
        if self.uri is None:
            return
        if not self.run_key.strip() or re.search(r"[\"`\\\n]", self.run_key):
            raise TrackerError(
                f'run_key {self.run_key!r} must hold at least one letter, and none of " ` \\ and '
                "line breaks; a name such as dfew-fold-1 does"
            )
        if embedded_folder(self.uri) is None and "://" not in self.uri:
            raise TrackerError(
                f"tracking URI {self.uri!r} is neither a server's URL (http://host:5000) nor "
                "sqlite:////absolute/path/mlflow.db"
            )

    def open(self) -> Tracker:
        """The run with this key, continued if there is one, else a new one.

        Raises:
            TrackerError: the server can't be reached, or the experiment was deleted.
        """
        if self.uri is None:
            return NoTracker()
        from mien.track.mlflow_tracker import MlflowTracker

        return MlflowTracker(self)


def embedded_uri(folder: str | Path) -> str:
    """The URI of the tracking data base that lives in a local folder."""
    return f"sqlite:///{Path(folder).absolute() / 'mlflow.db'}"


def embedded_folder(uri: str) -> Path | None:
    """The folder of a SQLite data base; None for every other URI.

    Raises:
        TrackerError: a relative path, which would mean another data base in every Ray worker.
    """
    if not uri.startswith("sqlite:"):
        return None
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.is_absolute():
        raise TrackerError(
            f"tracking URI {uri!r} must hold an absolute path, with four slashes: "
            f"sqlite:///{Path.cwd() / path.name}"
        )
    return path.parent


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and strings; lists become JSON, lists of mappings numbers."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = safe_name(f"{prefix}{key}")
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(i): item for i, item in enumerate(value)}, f"{name}.")
        elif isinstance(value, str):
            flat[name] = value
        else:
            flat[name] = json.dumps(value, default=str)
    return flat


def safe_name(name: str) -> str:
    """A name that MLflow takes: other characters than letters, digits and ``_ - . / :`` and blank
    become ``_``."""
    return re.sub(r"[^\w\-./: ]", "_", name).strip("/")
