"""Decoding on Ray Data: steps in, rows out, in order, ahead of the reader, in bounded memory.

Work is divided by rows, whatever the size of a batch: a dataset's rows are the numbers of the rows
still to come, each task turns some of them into arrays and gives them out block by block, and Ray
Data keeps their order, runs the tasks on whatever nodes have the CPUs, and stops them while the
reader is slower. Nothing but numbers is scheduled, so a stage of any length starts at any step
without touching what lies before it.
"""

from __future__ import annotations

import itertools
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
ROWS_PER_BLOCK = 32
"""Rows that a task gives out at a time: few enough that the first ones come soon."""
BLOCKS_PER_TASK = 8
"""Ray Data starts the next task about 0.3 s after one has ended: tasks are much longer than that,
and give out what they have meanwhile."""
TASKS_PER_DATASET = 256
"""Ray Data plans all tasks of a dataset before the first one starts, some milliseconds each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayExecutor:
    """Runs a stream's loader in Ray Data tasks."""

    tasks: int = 2
    """Tasks of this stream that run at once."""
    cpus_per_task: float = 1.0
    object_store_bytes_per_task: int = 128 << 20
    """Bound of the memory for decoded rows that wait for the reader, times `tasks`."""
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
    def object_store_bytes(self) -> int:
        """Bound of the memory for decoded rows that wait for the reader.

        A row larger than `blocks_in_store` parts of it exceeds the bound.
        """
        return self.object_store_bytes_per_task * self.tasks

    @property
    def blocks_in_store(self) -> int:
        """Blocks for which the object store's share has room."""
        return self._blocks_waiting + self._blocks_beyond_limit

    @property
    def _blocks_waiting(self) -> int:
        # Rows come out in order: while a task is read, all others work to their ends.
        return self.tasks * BLOCKS_PER_TASK

    @property
    def _blocks_beyond_limit(self) -> int:
        # Ray Data's limit is soft: it does not count what tasks are about to give out, nor what the
        # reader has fetched (measured: 5 blocks above the limit with two tasks).
        return 2 * self.tasks + 2

    @property
    def _limit_bytes(self) -> int:
        return self.object_store_bytes * self._blocks_waiting // self.blocks_in_store

    def rows_per_block(self, loader: StepLoader) -> int:
        """Rows given out at once, so that `blocks_in_store` of them fit into the store's share."""
        fitting = self.object_store_bytes // (self.blocks_in_store * loader.bytes_per_row)
        return max(1, min(ROWS_PER_BLOCK, fitting))

    def divide(self, rows: range, rows_per_block: int) -> Iterator[range]:
        """The rows of each task.

        Few at first, so that the reader soon has some of every task, and few at last, so that the
        tasks end together.
        """
        start = rows.start
        for number in itertools.count():
            if start >= rows.stop:
                return
            at_first = 2 ** min(number // self.tasks, BLOCKS_PER_TASK)
            at_last = (rows.stop - start) // (2 * self.tasks * rows_per_block)
            blocks = max(1, min(at_first, BLOCKS_PER_TASK, at_last))
            end = min(rows.stop, start + blocks * rows_per_block)
            yield range(start, end)
            start = end

    def _rows(self, loader: StepLoader, steps: range) -> Iterator[Row]:
        """All rows of the steps; one dataset after the other."""
        first = steps.start * loader.clips_per_step
        rows = range(first, first + loader.num_rows(steps))
        rows_per_block = self.rows_per_block(loader)
        decode = _DecodeRows(ray.put(loader), rows_per_block)
        parts = self.divide(rows, rows_per_block)
        while of_dataset := list(itertools.islice(parts, TASKS_PER_DATASET)):
            dataset = self._dataset(of_dataset, decode, rows_per_block * loader.bytes_per_row)
            batches = dataset.iter_batches(
                batch_size=None, batch_format="numpy", prefetch_batches=self.prefetch_blocks
            )
            for batch in batches:
                yield from _rows_of(batch)

    def _dataset(
        self, parts: list[range], decode: _DecodeRows, block_bytes: int
    ) -> ray.data.Dataset:
        # Not from_arrow: it counts the rows of each block in a task of its own, on any node and a
        # whole CPU, for which an autoscaler would bring nodes with GPUs.
        dataset = ray.data.from_blocks([pa.table({ROW: np.asarray(part)}) for part in parts])
        dataset.context.raise_original_map_exception = True
        # A task's blocks are collected until they exceed this, and cut where they are half as large
        # again: each goes out as it is made, and whole.
        dataset.context.target_max_block_size = round(0.75 * block_bytes)
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
            compute=TaskPoolStrategy(size=min(self.tasks, len(parts))),
        )


class _RefusalError(Exception):
    """Carries an error out of a task unharmed: Ray Data writes advice into messages."""


@dataclass(frozen=True)
class _DecodeRows:
    """Runs in the tasks: numbers of rows to the columns of these rows."""

    loader: ray.ObjectRef[StepLoader]
    rows_per_block: int

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> Iterator[dict[str, Any]]:
        numbers = batch[ROW].tolist()
        for start in range(0, len(numbers), self.rows_per_block):
            yield self._block(numbers[start : start + self.rows_per_block])

    def _block(self, numbers: list[int]) -> dict[str, Any]:
        try:
            loader = _fetch(self.loader)
            rows = [loader.row(*divmod(number, loader.clips_per_step)) for number in numbers]
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
