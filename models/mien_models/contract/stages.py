"""A stage of a training, and what its steps and epochs give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from mien_models.contract.streams import StreamSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimPlan:
    """How the trainable parameters of a stage are updated."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-4
    """Highest learning rate, reached after the warm-up."""
    min_lr: float = 0.0
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas; the first is SGD's momentum."""
    schedule: Literal["cosine", "epoch_cosine", "constant"] = "cosine"
    """``cosine``: every step, after the warm-up. ``epoch_cosine``: constant within an epoch."""
    warmup_fraction: float = 0.0
    """Share of the stage's steps over which the learning rate rises linearly from 0."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; None switches clipping off."""
    accumulate: int = 1
    """Micro-batches that a worker's share of a batch is cut into."""
    ema_decay: float | None = None
    """Decay of the averaged weights that are evaluated and shipped; None: the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One part of a training: its streams, length, optimiser and what is trainable."""

    name: str
    streams: Mapping[str, StreamSpec]
    """The batches that ``forward`` gets, by name. The first one's length is the epoch's."""
    epochs: int
    optim: OptimPlan = field(default_factory=OptimPlan)
    trainable: tuple[str, ...] = ("*",)
    """Shell patterns over parameter names; every pattern must match something."""
    no_decay: tuple[str, ...] = ()
    """Shell patterns of trainable parameters without weight decay."""
    steps_per_epoch: int | None = None
    """A fixed number instead of one pass over the first stream."""
    evaluate: bool = True
    """Whether ``predict`` makes sense after each epoch (not while an encoder is pretrained)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a step lies in its stage."""

    stage: int
    epoch: int
    step: int
    """Optimiser steps done in this stage."""
    total_steps: int

    @property
    def fraction(self) -> float:
        """Share of the stage done, in [0, 1)."""
        return self.step / max(1, self.total_steps)


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What one forward pass gives the loop."""

    loss: Tensor
    """Scalar, a mean over the clips of this worker's share."""
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars for the curves, detached; the loop averages them over workers."""


@dataclass(frozen=True, kw_only=True)
class EpochNotes:
    """What a method has to say of an epoch that ended; of all workers' clips, on every worker."""

    logs: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the curves."""
    warnings: tuple[str, ...] = ()
    """Lines for whoever watches the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """How well the classes learnt so far were told apart when a stage ended."""

    stage: str
    new_classes: tuple[str, ...]
    """What the stage learnt."""
    confusions: Mapping[str, tuple[tuple[int, ...], ...]]
    """By split, [S, S] clips by true class (row) and predicted class (column), for the S classes
    learnt so far in the order in which they were learnt. Nothing is chosen by them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What is worth trying for one setting."""

    kind: Literal["uniform", "log_uniform", "int", "choice"]
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    only_if: tuple[str, tuple[Any, ...]] | None = None
    """Another searched setting and its values under which this one matters; it is drawn only
    then, and keeps the recipe's value otherwise. None: always."""
