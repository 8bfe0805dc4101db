"""How a training is run, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlan:
    """Everything about a run that is neither method nor data."""

    seed: int = 0
    workers: int = 1
    """Ray Train workers, one DDP rank each; 0 runs the loop in the calling process, without Ray."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: CUDA where there is one. ``cuda`` fails where there is none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 autocast where the device computes in it (CUDA), float32 elsewhere."""
    compile: bool = False
    """``torch.compile`` the forward pass."""
    cpus_per_worker: float = 1.0
    """Ray CPUs that each training worker reserves."""
    decode_tasks: int = 2
    """Decoding tasks of each worker that run at once."""
    cpus_per_decode_task: float = 1.0
    threads_per_worker: int | None = None
    """torch threads of a worker; None: torch's default, divided among the workers of a machine."""
    checkpoint_every_steps: int | None = None
    """Checkpoints inside an epoch; every epoch ends with one anyway."""
    keep_checkpoints: int = 2
    log_every_steps: int = 10
    select: str = "val/uar"
    """The metric whose best epoch is shipped (larger is better)."""
    evaluate_every_epochs: int = 1
    """Epochs between evaluations on the validation split; the last epoch always has one."""
    max_failures: int = 3
    """Restarts of the worker group after a crash, each from the newest checkpoint."""

    def __post_init__(self) -> None:
        for name in (
            "decode_tasks",
            "keep_checkpoints",
            "log_every_steps",
            "evaluate_every_epochs",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"train.workers must be 0 (no Ray) or more, got {self.workers}")
        every = self.checkpoint_every_steps
        if every is not None and every < 1:
            raise ValueError(f"train.checkpoint_every_steps must be at least 1, got {every}")
