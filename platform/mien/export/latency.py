"""How long a batch takes in the package and in the exported files, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mien.evaluate.latency import times_in_turns_ms
from mien.evaluate.report import Table
from mien.export.graph import Runner
from mien.track.export import example_inputs
from mien_models.contract import StreamSpec

BATCH_SIZES = (1, 8)
ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Times of one way to compute a batch, in milliseconds."""

    way: str
    batch_size: int
    median_ms: float
    p90_ms: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def measure(ways: Mapping[str, Runner], stream: StreamSpec) -> list[Latency]:
    """Times of made-up batches on the CPU, all ways taking turns, ``ROUNDS`` rounds.

    Args:
        ways: by name, each with the threads that it was opened with.
        stream: how clips look.
    """
    found = []
    for size in BATCH_SIZES:
        arrays = example_inputs(stream, size)
        calls = [partial(run, arrays) for run in ways.values()]
        times = times_in_turns_ms(calls, torch.device("cpu"), ROUNDS)
        for way, values in zip(ways, times, strict=True):
            median, p90 = np.percentile(values, [50, 90])
            found.append(
                Latency(
                    way=way,
                    batch_size=size,
                    median_ms=round(float(median), 3),
                    p90_ms=round(float(p90), 3),
                )
            )
    return found


def latency_table(latencies: Sequence[Latency], threads: int) -> Table:
    """For people."""
    rows = [
        [item.way, str(item.batch_size), f"{item.median_ms:.1f}", f"{item.p90_ms:.1f}"]
        for item in latencies
    ]
    return Table(
        title=f"Milliseconds a batch, CPU, {threads} threads, {ROUNDS} rounds in turns",
        head=["", "clips", "median", "90th percentile"],
        rows=rows,
    )
