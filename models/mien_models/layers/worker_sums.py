"""Sums over training workers that gradients flow through.

What a batch decides (statistics, contrasts, thresholds) is decided by the global batch, so that a
run on many workers ends where a run on one does. Outside ``torch.distributed`` all of this does
nothing.

Shape legend: B clips of this worker, D features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_workers() -> int:
    """Workers that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of all workers' tensors of one shape, on every worker.

    The gradient of a worker's tensor is the sum of the gradients of all workers' results. With
    losses that DDP averages over workers, that is the gradient of the same loss on one worker.
    """
    if num_workers() == 1:
        return value
    total: Tensor = _SumOverWorkers.apply(value)  # type: ignore[no-untyped-call]
    return total


def gather_rows(rows_BD: Tensor) -> Tensor:
    """All workers' rows in the order of their ranks; every worker has the same number of rows."""
    workers = num_workers()
    if workers == 1:
        return rows_BD
    places = [torch.zeros_like(rows_BD) for _ in range(workers)]
    places[dist.get_rank()] = rows_BD
    return sum_over_workers(torch.cat(places))


def gather_objects(mine: list[Any]) -> list[Any]:
    """All workers' entries in the order of their ranks; they may have different numbers of them."""
    if num_workers() == 1:
        return mine
    parts: list[list[Any]] = [[] for _ in range(num_workers())]
    dist.all_gather_object(parts, mine)
    return [entry for part in parts for entry in part]


class _SumOverWorkers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_reduced(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduced(gradients[0])


def _all_reduced(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
