"""How much memory a running Ray uses, and a stream that can use as much as it may."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import ray
from ray import cloudpickle
from ray._private.internal_api import get_memory_info_reply, get_state_from_address


class Noise:
    """A loader whose rows cost little to make."""

    clips_per_step = 8
    bytes_per_row = 200_000

    def num_rows(self, steps: range) -> int:
        return self.clips_per_step * len(steps)

    def row(self, step: int, place: int) -> dict[str, Any]:
        number = step * self.clips_per_step + place
        noise = np.random.default_rng(number).integers(0, 256, self.bytes_per_row, dtype=np.uint8)
        return {"clip_id": str(number), "video": noise}


@dataclass
class MemoryTrace:
    """Samples over a run, in bytes."""

    seconds: list[float] = field(default_factory=list)
    object_store: list[int] = field(default_factory=list)
    """Bytes of objects in the store, those being read included."""
    spilled: int = 0
    """Bytes that were written to disk for want of room."""
    tasks: list[int] = field(default_factory=list)
    """Memory of its own of the largest task process."""


def _store_stats() -> tuple[int, int]:
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stats = get_memory_info_reply(state).store_stats
    return int(stats.object_store_bytes_used), int(stats.spilled_bytes_total)


def _largest_task() -> int:
    largest = 0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.name().startswith("ray::"):
                largest = max(largest, process.memory_full_info().uss)
    return largest


@contextlib.contextmanager
def memory_trace(every_s: float = 0.2) -> Iterator[MemoryTrace]:
    """Samples memory while the body runs."""
    trace, is_over, started = MemoryTrace(), threading.Event(), time.monotonic()
    spilled_before = _store_stats()[1]

    def sample() -> None:
        while not is_over.wait(every_s):
            used, spilled = _store_stats()
            trace.seconds.append(time.monotonic() - started)
            trace.object_store.append(used)
            trace.spilled = spilled - spilled_before
            trace.tasks.append(_largest_task())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield trace
    finally:
        is_over.set()
        thread.join()


# Ray's workers have no path to this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
