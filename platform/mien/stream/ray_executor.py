"""Decoding on Ray Data: steps in, rows out, in order, ahead of the reader, in bounded memory.

A dataset here is the range of steps still to come. Each task turns a few of them into rows, one
row a clip; Ray Data keeps their order, runs them on whatever nodes have the CPUs, and stops them
while the reader is slower. Nothing but step numbers is scheduled, so a stage of any length starts
at any step without touching what lies before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ExecutionResources, TaskPoolStrategy
from ray.exceptions import RayTaskError

from mien.stream.batches import Row
from mien.stream.source import StepLoader

STEP = "step"
ROWS_PER_TASK = 32
"""Clips that a task aims to decode: enough to hide scheduling, few enough to start soon."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayExecutor:
    """Runs a stream's loader in Ray Data tasks."""

    tasks: int = 2
    """Tasks of this stream that run at once."""
    cpus_per_task: float = 1.0
    object_store_bytes: int = 256 << 20
    """Decoded rows that may wait for the reader."""
    prefetch_blocks: int = 2

    def __call__(self, loader: StepLoader, steps: range) -> Iterator[list[Row]]:
        """The rows of each step, in order.

        Raises:
            ValueError: what the loader raised in a task, as it raised it (StorageUnusableError,
                StreamError, ...).
        """
        if len(steps) == 0:
            return
        try:
            yield from _rows_by_step(self._dataset(loader, steps), self.prefetch_blocks)
        except RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise error.cause from error
            raise

    def _dataset(self, loader: StepLoader, steps: range) -> ray.data.Dataset:
        steps_per_task = max(1, ROWS_PER_TASK // loader.clips_per_step)
        blocks = -(-len(steps) // steps_per_task)
        dataset = ray.data.range(len(steps), override_num_blocks=blocks)
        dataset.context.raise_original_map_exception = True
        options = dataset.context.execution_options
        options.preserve_order = True
        options.verbose_progress = False
        options.resource_limits = ExecutionResources(
            cpu=self.tasks * self.cpus_per_task, object_store_memory=self.object_store_bytes
        )
        decode = _DecodeSteps(ray.put(loader), steps.start)
        return dataset.map_batches(
            decode,
            batch_size=1,
            num_cpus=self.cpus_per_task,
            compute=TaskPoolStrategy(size=min(self.tasks, blocks)),
        )


@dataclass(frozen=True)
class _DecodeSteps:
    """Runs in the tasks: one step number to the columns of its rows."""

    loader: ray.ObjectRef[StepLoader]
    start: int

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        step = self.start + int(batch["id"][0])
        rows = _fetch(self.loader)(step)
        columns: dict[str, Any] = {STEP: np.full(len(rows), step, dtype=np.int64)}
        for name in rows[0]:
            columns[name] = np.stack([np.asarray(row[name]) for row in rows])
        return columns


_loaders: OrderedDict[str, StepLoader] = OrderedDict()
_loaders_lock = threading.Lock()


def _fetch(reference: ray.ObjectRef[StepLoader]) -> StepLoader:
    """The loader behind a reference; a process keeps the last few, so that tasks start at once."""
    key = reference.hex()
    with _loaders_lock:
        if key not in _loaders:
            _loaders[key] = ray.get(reference)
            while len(_loaders) > 4:
                _loaders.popitem(last=False)
        return _loaders[key]


def _rows_by_step(dataset: ray.data.Dataset, prefetch_blocks: int) -> Iterator[list[Row]]:
    """Groups the rows of consecutive blocks by their step."""
    rows: list[Row] = []
    current: int | None = None
    batches = dataset.iter_batches(
        batch_size=None, batch_format="numpy", prefetch_batches=prefetch_blocks
    )
    for batch in batches:
        steps = batch.pop(STEP)
        for index, step in enumerate(steps.tolist()):
            if current is not None and step != current:
                yield rows
                rows = []
            current = step
            rows.append({name: column[index] for name, column in batch.items()})
    if rows:
        yield rows
