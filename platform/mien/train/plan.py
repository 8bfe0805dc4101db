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
    least_workers: int | None = None
    """Elastic: with so few workers the run goes on while nodes are gone, and it grows back to
    ``workers`` when they return. None: it waits for all of them."""
    grow_check_s: float = 30.0
    """How often an elastic run looks whether there is room for more workers. Growing starts its
    workers anew from the newest checkpoint."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: CUDA where there is one when the run starts; its restarts keep to what it was.
    ``cuda`` fails where there is none."""
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
    """The metric whose best epoch is shipped (larger is better): ``val/uar``, ``val/war``,
    ``val/macro_f1``, and of methods that tell action units ``val/au_f1``."""
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
        least = self.least_workers
        if least is not None and not 1 <= least <= self.workers:
            raise ValueError(
                f"train.least_workers must be from 1 to train.workers={self.workers}, got {least}"
            )
        if self.grow_check_s <= 0:
            raise ValueError(f"train.grow_check_s must be above 0, got {self.grow_check_s}")
        every = self.checkpoint_every_steps
        if every is not None and every < 1:
            raise ValueError(f"train.checkpoint_every_steps must be at least 1, got {every}")

    @property
    def is_elastic(self) -> bool:
        """Whether the run goes on with fewer workers while nodes are gone."""
        return self.least_workers is not None
