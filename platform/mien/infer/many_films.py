"""Many films to a folder of tables, on Ray Data, over all nodes of a cluster.

Each actor holds the network once and reads one film, or several in threads that share the network's
batches. A film is the unit of work: what was finished before a run was killed is found by its
record and not done again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy
from torch import Tensor

from mien.infer.inputs import table_name
from mien.infer.network import BatchedNetwork
from mien.infer.one_film import RECORDS, FilmRecord, FolderJob, predict_into_folder
from mien.infer.package import PackageInfo, restore_method
from mien.media.storage import join, list_files, write_bytes_atomically
from mien_models.contract import Method

INPUTS_TABLE = "inputs.csv"
_MOST_BLOCKS = 1000
"""Ray Data plans all of a dataset's blocks before the first one starts."""


class PredictionStoppedError(ValueError):
    """A fault that is not of one input: storage, network, settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """A trained model in a form that can be sent to other nodes."""

    build_method: Callable[[], Method]
    info: PackageInfo
    tensors: Mapping[str, Tensor]
    action_units: tuple[str, ...]
    """That the method tells of."""
    action_unit_calibration: str = ""
    """See `Method.action_unit_calibration`."""

    def network(
        self,
        device: str,
        batch_size: int,
        *,
        with_effects: bool = False,
        with_features: bool = False,
        temperatures: Mapping[str, float] | None = None,
    ) -> BatchedNetwork:
        """The network, ready to be asked."""
        method = restore_method(self.build_method(), self.info, self.tensors)
        return BatchedNetwork(
            method,
            self.info.prediction_stream,
            device=device,
            batch_size=batch_size,
            with_effects=with_effects,
            with_features=with_features,
            temperatures=temperatures,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does the work."""

    workers: int
    """Processes with a network each; 0: this process, one film after the other."""
    films_at_once: int = 1
    """That a worker reads in threads; they share its network."""
    device: str = "cpu"
    batch_size: int = 16


def predict_many(
    inputs: Sequence[str], job: FolderJob, model: ModelParts, crew: Crew
) -> Iterator[FilmRecord]:
    """Predicts all inputs and gives each one's record as it is done; then writes the list of all.

    Args:
        inputs: Locations, each once.
        job: Where tables and records go.
        model: The trained model.
        crew: Workers of a Ray that is running, or this process.

    Raises:
        PredictionStoppedError: the storage of the results or the network is unusable.
    """
    there = set(list_files(join(job.out, RECORDS)))
    tasks = [
        {"input": location, "may_be_done": f"{table_name(location)}.json" in there}
        for location in inputs
    ]
    records = {}
    done = _on_ray(tasks, job, model, crew) if crew.workers else _here(tasks, job, model, crew)
    for record in done:
        records[record.input] = record
        yield record
    write_inputs_table(job.out, [records[location] for location in inputs])


def write_inputs_table(out: str, records: Sequence[FilmRecord]) -> None:
    """Writes what became of each input as CSV, in the order of the inputs."""
    text = io.StringIO()
    names = [item.name for item in fields(FilmRecord) if item.name != "asked"]
    writer = csv.writer(text)
    writer.writerow(names)
    for record in records:
        values = {name: getattr(record, name) for name in names}
        writer.writerow(({**values, "warnings": "; ".join(record.warnings)}).values())
    location = join(out, INPUTS_TABLE)
    write_bytes_atomically(location, text.getvalue().encode("utf-8", "backslashreplace"))


def _network(model: ModelParts, job: FolderJob, crew: Crew) -> BatchedNetwork:
    """The network, telling what the job's tables hold."""
    return model.network(
        crew.device,
        crew.batch_size,
        with_effects=job.columns.with_effects,
        with_features=job.columns.with_features,
        temperatures=job.columns.temperatures,
    )


def _here(
    tasks: Sequence[dict[str, Any]], job: FolderJob, model: ModelParts, crew: Crew
) -> Iterator[FilmRecord]:
    with _network(model, job, crew) as network:
        for task in tasks:
            yield predict_into_folder(job, task["input"], network, may_be_done=task["may_be_done"])


def _on_ray(
    tasks: Sequence[dict[str, Any]], job: FolderJob, model: ModelParts, crew: Crew
) -> Iterator[FilmRecord]:
    dataset = ray.data.from_items(
        list(tasks), override_num_blocks=max(1, min(len(tasks), _MOST_BLOCKS))
    )
    options = dataset.context.execution_options
    options.verbose_progress = False
    films = crew.films_at_once
    sent = _Sent(ray.put(model))
    answers = dataset.map_batches(
        _FilmWorker,
        fn_constructor_args=(sent, job, crew),
        batch_size=1,
        compute=ActorPoolStrategy(
            size=min(crew.workers, len(tasks)),
            max_concurrent_calls_per_actor=films,
            enable_true_multi_threading=films > 1,
        ),
        num_cpus=films,
        num_gpus=1 if crew.device.startswith("cuda") else 0,
    )
    for row in answers.iter_rows():
        if row["stopped"]:
            raise PredictionStoppedError(row["stopped"])
        yield FilmRecord.from_json(row["record"])


@dataclass(frozen=True, slots=True)
class _Sent:
    """A model in the object store; Ray warns of bare references among an actor's arguments."""

    model: ray.ObjectRef[ModelParts]


class _FilmWorker:
    """One process: a network, and films that are read for it."""

    def __init__(self, sent: _Sent, job: FolderJob, crew: Crew) -> None:
        torch.set_num_threads(1 if crew.device == "cpu" else crew.films_at_once)
        self._job = job
        self._network = _network(ray.get(sent.model), job, crew)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        (location,), (may_be_done,) = batch["input"].tolist(), batch["may_be_done"].tolist()
        try:
            record = predict_into_folder(
                self._job, location, self._network, may_be_done=may_be_done
            )
        except ValueError as error:
            # As a value: Ray Data would write its own advice into the message, and try again.
            return {"record": [""], "stopped": [f"{location}: {error}"]}
        return {"record": [record.to_json()], "stopped": [""]}
