"""Decoding on Ray Data: steps in, rows out, in order, ahead of the reader, in bounded memory.

Work is divided by rows, whatever the size of a batch: a dataset's rows are the numbers of the rows
still to come, each task turns a few of them into arrays, and Ray Data keeps their order, runs them
on whatever nodes have the CPUs, and stops them while the reader is slower. Nothing but numbers is
scheduled, so a stage of any length starts at any step without touching what lies before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import ExecutionResources, TaskPoolStrategy
from ray.exceptions import RaySystemError, RayTaskError

from mien.cluster.groups import NodeGroup
from mien.stream.batches import Row
from mien.stream.loaders import StepLoader
from mien.stream.order import StreamError

ROW = "row"
ROWS_PER_TASK = 32
"""Rows that a task makes: enough to hide scheduling, few enough to start soon."""
TASKS_PER_DATASET = 256
"""Ray Data plans all tasks of a dataset before the first one starts, some milliseconds each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayExecutor:
    """Runs a stream's loader in Ray Data tasks."""

    tasks: int = 2
    """Tasks of this stream that run at once."""
    cpus_per_task: float = 1.0
    object_store_bytes: int = 256 << 20
    """Bound of the memory for decoded rows that wait for the reader."""
    prefetch_blocks: int = 1
    group: NodeGroup = field(default_factory=NodeGroup)
    """The nodes that decode."""

    def __call__(self, loader: StepLoader, steps: range) -> Iterator[list[Row]]:
        """The rows of each step, in order.

        Raises:
            ValueError: what the loader raised in a task, as it raised it (StorageUnusableError,
                StreamError, ...).
        """
        if len(steps) == 0:
            return
        try:
            yield from _in_steps(self._rows(loader, steps), loader.clips_per_step)
        except RayTaskError as error:
            if isinstance(error.cause, _RefusalError):
                raise error.cause.args[0] from error
            raise

    @property
    def blocks_in_store(self) -> int:
        """Tasks' results for which the object store's share has room.

        A row larger than this part of `object_store_bytes` exceeds the bound.
        """
        return 2 * self._blocks_beyond_limit + 4

    @property
    def _blocks_beyond_limit(self) -> int:
        # Ray Data's limit is soft: it does not count what tasks are about to give out, nor what the
        # reader has fetched (measured: 4.5 blocks above the limit with two tasks).
        return self.tasks + 4

    @property
    def _limit_bytes(self) -> int:
        share = 1 - self._blocks_beyond_limit / self.blocks_in_store
        return int(self.object_store_bytes * share)

    def rows_per_task(self, loader: StepLoader) -> int:
        """Rows of one task, so that `blocks_in_store` results fit into the object store's share."""
        fitting = self.object_store_bytes // (self.blocks_in_store * loader.bytes_per_row)
        return max(1, min(ROWS_PER_TASK, fitting))

    def _rows(self, loader: StepLoader, steps: range) -> Iterator[Row]:
        """All rows of the steps; one dataset after the other."""
        first = steps.start * loader.clips_per_step
        stop = first + loader.num_rows(steps)
        rows_per_task = self.rows_per_task(loader)
        reference = ray.put(loader)
        for start in range(first, stop, rows_per_task * TASKS_PER_DATASET):
            end = min(stop, start + rows_per_task * TASKS_PER_DATASET)
            blocks = [
                pa.table({ROW: np.arange(at, min(at + rows_per_task, end))})
                for at in range(start, end, rows_per_task)
            ]
            dataset = self._dataset(blocks, _DecodeRows(reference))
            batches = dataset.iter_batches(
                batch_size=None, batch_format="numpy", prefetch_batches=self.prefetch_blocks
            )
            for batch in batches:
                yield from _rows_of(batch)

    def _dataset(self, blocks: list[pa.Table], decode: _DecodeRows) -> ray.data.Dataset:
        # Not from_arrow: it counts the rows of each block in a task of its own, on any node and a
        # whole CPU, for which an autoscaler would bring nodes with GPUs.
        dataset = ray.data.from_blocks(blocks)
        dataset.context.raise_original_map_exception = True
        options = dataset.context.execution_options
        options.preserve_order = True
        options.verbose_progress = False
        options.label_selector = self.group.selector or None
        options.resource_limits = ExecutionResources(
            cpu=self.tasks * self.cpus_per_task,
            object_store_memory=self._limit_bytes,
        )
        return dataset.map_batches(
            decode,
            batch_size=None,
            num_cpus=self.cpus_per_task,
            compute=TaskPoolStrategy(size=min(self.tasks, len(blocks))),
        )


class _RefusalError(Exception):
    """Carries an error out of a task unharmed: Ray Data writes advice into messages."""


@dataclass(frozen=True)
class _DecodeRows:
    """Runs in the tasks: numbers of rows to the columns of these rows."""

    loader: ray.ObjectRef[StepLoader]

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        try:
            loader = _fetch(self.loader)
            rows = [
                loader.row(*divmod(number, loader.clips_per_step)) for number in batch[ROW].tolist()
            ]
        except ValueError as error:
            raise _RefusalError(error) from error
        return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


_loaders: OrderedDict[str, StepLoader] = OrderedDict()
_loaders_lock = threading.Lock()


def _fetch(reference: ray.ObjectRef[StepLoader]) -> StepLoader:
    """The loader behind a reference; a process keeps the last few, so that tasks start at once."""
    key = reference.hex()
    with _loaders_lock:
        if key not in _loaders:
            _loaders[key] = _received(reference)
            while len(_loaders) > 4:
                _loaders.popitem(last=False)
        return _loaders[key]


def _received(reference: ray.ObjectRef[StepLoader]) -> StepLoader:
    try:
        loader: StepLoader = ray.get(reference)
        return loader
    except RaySystemError as error:
        # Ray Data would try again for ever what it takes for an accident of the system.
        raise StreamError(
            f"a decoding process cannot unpack its work ({error}); all nodes need the same Mien "
            "and Python packages"
        ) from error


def _rows_of(batch: dict[str, Any]) -> Iterator[Row]:
    for index in range(len(next(iter(batch.values())))):
        yield {name: column[index] for name, column in batch.items()}


def _in_steps(rows: Iterator[Row], clips_per_step: int) -> Iterator[list[Row]]:
    """Groups rows by their step; the last one may have fewer."""
    step: list[Row] = []
    for row in rows:
        step.append(row)
        if len(step) == clips_per_step:
            yield step
            step = []
    if step:
        yield step
