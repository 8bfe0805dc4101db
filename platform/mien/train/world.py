"""This worker among the others: rank, device, and the few collectives that the loop needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist

CPU = torch.device("cpu")


class DeviceError(ValueError):
    """A device that was asked for and is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One worker's place. ``World()`` is a single process on the CPU."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this worker writes, logs and tracks."""
        return self.rank == 0

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over all workers; every worker passes the same names."""
        if self.size == 1 or not values:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64)
        total = total.to(self.device)
        dist.all_reduce(total)
        return dict(zip(names, (total / self.size).tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in rank order, on every worker."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """The main worker's value, on every worker."""
        if self.size == 1:
            return value
        holder = [value if self.is_main else None]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def barrier(self) -> None:
        """Waits for all workers."""
        if self.size > 1:
            dist.barrier()


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device for a wish.

    Raises:
        DeviceError: CUDA was asked for and torch sees none; never falls back silently.
    """
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            "train.device=cuda, but torch sees no CUDA device here "
            f"(torch {torch.__version__}, built for CUDA: {torch.version.cuda}). "
            "Use --set train.device=cpu, or run `mien doctor`."
        )
    return torch.device("cuda", torch.cuda.current_device())


def choose_precision(
    wish: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> torch.dtype:
    """The dtype of autocast regions: bfloat16 where wanted and computed in by the device.

    Raises:
        DeviceError: bfloat16 was asked for on a CUDA device without it.
    """
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported()
    if wish == "bfloat16" and not has_bfloat16:
        raise DeviceError("train.precision=bfloat16, but this CUDA device has no bfloat16")
    if wish == "bfloat16" or (wish == "auto" and device.type == "cuda" and has_bfloat16):
        return torch.bfloat16
    return torch.float32
