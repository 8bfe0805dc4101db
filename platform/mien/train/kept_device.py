"""Which device a run trains on: decided when it starts, kept at every restart.

Without that, a run whose GPU nodes are gone would quietly go on on the CPU: slower, and with other
numbers than the rest of its curve.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mien.train.checkpoint import CheckpointStore
from mien.train.plan import TrainPlan


def with_kept_device(plan: TrainPlan, store: CheckpointStore, *, has_gpu: bool) -> TrainPlan:
    """The plan with ``device=auto`` decided.

    Args:
        plan: of the run.
        store: its checkpoints; the newest one says where it was trained.
        has_gpu: whether there is a GPU now, which decides for a run without a checkpoint.
    """
    if plan.device != "auto":
        return plan
    kept: Literal["cpu", "cuda"] | None = (store.newest_state() or {}).get("device")
    return replace(plan, device=kept or ("cuda" if has_gpu else "cpu"))


def gone_gpu(name: str) -> str:
    """What is told where a run of that name needs a GPU and there is none."""
    return (
        f"run {name!r} asks for a GPU, or was trained on one so far, and there is none here: start "
        "the same command where there is one. To train on the CPU: another --name and "
        "--set train.device=cpu"
    )
