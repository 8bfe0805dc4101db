"""How long a model takes for one clip, decoded already."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

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
    batches = []
    for method in methods:
        arrays = example_inputs(method.prediction_stream(), 1)
        batches.append(plain_batch(*(torch.from_numpy(array).to(device) for array in arrays)))
    times: list[list[float]] = [[] for _ in methods]
    for _ in range(ROUNDS + 1):
        for method, batch, found in zip(methods, batches, times, strict=True):
            _wait(device)
            started = time.perf_counter()
            method.predict(batch)
            _wait(device)
            found.append(1000 * (time.perf_counter() - started))
    return [statistics.median(found[1:]) for found in times]  # the first round warms up


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
