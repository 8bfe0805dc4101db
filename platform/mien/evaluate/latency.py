"""How long a model takes for one clip, decoded already."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from mien.track.export import example_inputs
from mien_models.contract import Method, plain_batch

ROUNDS = 9


@torch.inference_mode()
def measure_latency_ms(methods: Sequence[Method], device: torch.device) -> list[float]:
    """Median time of a prediction of one made-up clip, models taking turns.

    Args:
        methods: in evaluation mode, on ``device``.
        device: where they are.
    """
    calls = []
    for method in methods:
        arrays = example_inputs(method.prediction_stream(), 1)
        batch = plain_batch(*(torch.from_numpy(array).to(device) for array in arrays))
        calls.append(partial(method.predict, batch))
    return [statistics.median(times) for times in times_in_turns_ms(calls, device, ROUNDS)]


def times_in_turns_ms(
    calls: Sequence[Callable[[], object]], device: torch.device, rounds: int
) -> list[list[float]]:
    """Times of each call in ``rounds`` rounds, in which all take turns; a first one warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, found in zip(calls, times, strict=True):
            _wait(device)
            started = time.perf_counter()
            call()
            _wait(device)
            found.append(1000 * (time.perf_counter() - started))
    return [found[1:] for found in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
