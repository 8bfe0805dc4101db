"""A run in MLflow, through an explicit client and run id: no active run, no global URI."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mien.track.tracker import (
    RunStatus,
    TrackerError,
    TrackerSpec,
    embedded_folder,
    flatten,
    safe_name,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_KEY_TAG = "mien.run_key"
FLUSH_EVERY_S = 5.0
RETRY_AFTER_S = 60.0
MAX_WAITING = 100_000
"""Metrics that are kept while a server does not answer."""
MAX_PARAM_CHARS = 500
"""The smallest limit among MLflow's stores."""
_BATCH_METRICS = 1000
_BATCH_PARAMS = 100
_TEMPORARY = {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED"}

_log = logging.getLogger("mien.track")


class MlflowTracker:
    """A :class:`~mien.track.tracker.Tracker` that writes to MLflow. Made by ``TrackerSpec.open``.

    A server that does not answer for a while does not stop a training: metrics wait in memory and
    a warning is logged; what still waits when the run finishes is an error.
    """

    def __init__(self, spec: TrackerSpec) -> None:
        if spec.uri is None:
            raise TrackerError("a MlflowTracker needs a tracking URI")
        self.spec = spec
        with _only_one_opens(spec.uri), _named_errors(spec.uri):
            self.client = open_client(spec.uri)
            experiment_id = ensure_experiment(self.client, spec.uri, spec.experiment)
            run = _find_run(self.client, experiment_id, spec.run_key)
            self.is_resumed = run is not None
            if run is None:
                run = _create_run(self.client, experiment_id, spec)
            else:
                self.client.update_run(run.info.run_id, status="RUNNING")
        self._run_id = str(run.info.run_id)
        self._waiting: list[Metric] = []
        self._next_flush = time.monotonic() + FLUSH_EVERY_S
        self._steps_before: dict[str, frozenset[int]] = {}

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        known = self.client.get_run(self._run_id).data.params
        new: list[Param] = []
        for name, value in flatten(params).items():
            short = value
            if len(value) > MAX_PARAM_CHARS:
                short = value[: MAX_PARAM_CHARS - 3] + "..."
                self.log_json(f"params/{name}", value)
            if name not in known:
                new.append(Param(name, short))
            elif known[name] != short:
                self.set_tags({f"mien.changed.{name}": short})
        for start in range(0, len(new), _BATCH_PARAMS):
            self.client.log_batch(self._run_id, params=new[start : start + _BATCH_PARAMS])

    def log_dataset(self, name: str, *, digest: str, source: str, facts: Mapping[str, Any]) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        scheme = source.split("://")[0] if "://" in source else "local"
        dataset = Dataset(
            name=name,
            digest=digest,
            source_type=scheme,
            source=json.dumps({"uri": source}),
            profile=json.dumps(facts),
        )
        self.client.log_inputs(self._run_id, [DatasetInput(dataset)])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        now_ms = int(time.time() * 1000)
        for name, value in metrics.items():
            number = float(value)
            if not math.isfinite(number):
                raise TrackerError(f"metric {name!r} is {number} at step {step}")
            key = safe_name(name)
            if step not in self._known_steps(key):
                self._waiting.append(Metric(key, number, now_ms, step))
        if time.monotonic() >= self._next_flush:
            self.flush()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        all_tags = [RunTag(safe_name(key), str(value)[:5000]) for key, value in tags.items()]
        for start in range(0, len(all_tags), _BATCH_PARAMS):
            self.client.log_batch(self._run_id, tags=all_tags[start : start + _BATCH_PARAMS])

    def log_json(self, name: str, value: Any) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        try:
            text = json.dumps(value, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TrackerError(f"{name} can't be written as JSON: {error}") from error
        self.client.log_text(self._run_id, text, _with_suffix(name, ".json"))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.client.log_text(self._run_id, text.getvalue(), _with_suffix(name, ".csv"))

    def log_figure(self, name: str, figure: Figure) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        options = {"dpi": 150, "bbox_inches": "tight"}
        self.client.log_figure(
            self._run_id, figure, _with_suffix(name, ".png"), save_kwargs=options
        )

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        if Path(path).is_dir():
            self.client.log_artifacts(self._run_id, str(path), folder or Path(path).name)
        elif Path(path).is_file():
            self.client.log_artifact(self._run_id, str(path), folder or None)
        else:
            raise TrackerError(f"{path} can't be logged: no such file or folder")

    def flush(self) -> None:
        """See :class:`~mien.track.tracker.Tracker`."""
        self._next_flush = time.monotonic() + FLUSH_EVERY_S
        try:
            self._write_waiting()
        except MlflowException as error:
            if error.error_code not in _TEMPORARY or len(self._waiting) > MAX_WAITING:
                raise
            self._next_flush = time.monotonic() + RETRY_AFTER_S
            _log.warning(
                "MLflow does not answer: %d metrics wait in memory, next try in %.0f s (%s)",
                len(self._waiting),
                RETRY_AFTER_S,
                str(error).splitlines()[0][:200],
            )

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """See :class:`~mien.track.tracker.Tracker`.

        Raises:
            MlflowException: metrics that still wait can't be written.
        """
        self._write_waiting()
        self.client.set_terminated(self._run_id, status)

    def _write_waiting(self) -> None:
        while self._waiting:
            self.client.log_batch(self._run_id, metrics=self._waiting[:_BATCH_METRICS])
            del self._waiting[:_BATCH_METRICS]

    def _known_steps(self, key: str) -> frozenset[int]:
        """Steps of a metric that the run held when it was opened."""
        if not self.is_resumed:
            return frozenset()
        if key not in self._steps_before:
            history = self.client.get_metric_history(self._run_id, key)
            self._steps_before[key] = frozenset(metric.step for metric in history)
        return self._steps_before[key]


def open_client(uri: str) -> MlflowClient:
    """A client of a tracking server or of a local data base, whose folder is made if needed."""
    folder = embedded_folder(uri)
    # "Waiting up to 300 seconds for model version to finish creation", and it is there.
    logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for chatty in ("alembic", "mlflow.store.db.utils"):  # a dozen lines about new tables
            logging.getLogger(chatty).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MLflow's own tables use an option that SQLAlchemy 2.1 deprecates; nobody here can act.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy")
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of an experiment, made if needed; local ones keep artifacts beside the data base.

    Raises:
        TrackerError: the experiment was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        folder = embedded_folder(uri)
        location = None if folder is None else (folder / "artifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        raise TrackerError(
            f"experiment {name!r} was deleted; choose another name or restore it: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def _with_suffix(name: str, suffix: str) -> str:
    return name if name.endswith(suffix) else name + suffix


def _find_run(client: MlflowClient, experiment_id: str, run_key: str) -> Run | None:
    quote = '"' if "'" in run_key else "'"
    query = f"tags.`{RUN_KEY_TAG}` = {quote}{run_key}{quote}"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment_id], query, max_results=1, order_by=order)
    return runs[0] if runs else None


def _create_run(client: MlflowClient, experiment_id: str, spec: TrackerSpec) -> Run:
    tags = {RUN_KEY_TAG: spec.run_key}
    if spec.parent_run_id:
        tags[MLFLOW_PARENT_RUN_ID] = spec.parent_run_id
    return client.create_run(experiment_id, tags=tags, run_name=spec.run_name or None)


@contextlib.contextmanager
def _only_one_opens(uri: str) -> Iterator[None]:
    """Processes that open the same local data base take turns: MLflow creates its tables and the
    experiment without a lock."""
    folder = embedded_folder(uri)
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise TrackerError(
            f"MLflow at {uri} can't be used: {error}. Check that the server runs and that the "
            "address is right, or leave the URI out to track into a local data base."
        ) from error
