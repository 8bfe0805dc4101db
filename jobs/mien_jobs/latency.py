"""How long a trained model takes for one clip, as an objective of a search."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from mien.track.export import example_inputs
from mien.train.world import choose_device
from mien_jobs.methods import load_method
from mien_models.contract import TensorPredictor

LATENCY = "latency_ms"
_WARM_UP, _MEASURED = 2, 9


@torch.inference_mode()
def measure_latency(package: Path) -> float:
    """Milliseconds of the network for one clip that is decoded, the median of several, on this
    process's device."""
    info, method = load_method(package)
    device = choose_device("auto")
    predictor = TensorPredictor(method).eval().to(device)
    inputs = [
        torch.from_numpy(array).to(device)
        for array in example_inputs(info.prediction_stream, num_clips=1)
    ]
    times = []
    for _ in range(_WARM_UP + _MEASURED):
        _wait_for(device)
        start = time.perf_counter()
        predictor(*inputs)
        _wait_for(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[_WARM_UP:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
