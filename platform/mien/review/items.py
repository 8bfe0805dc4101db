"""One clip in the queue: what it is called now, what a model suggests, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = float | int | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewItem:
    """A clip and the question that a person shall answer about it."""

    clip_id: str
    given: str | None
    """Its label in the manifest; None where it has none."""
    suggested: str
    """The class that the model prefers."""
    reason: str
    """One word: why it is here (``noisy``, ``hard``, ``doubtful``, ...)."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """Further columns of the table, the same names for every item of a queue."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of each class, by the model."""
    history: tuple[Mapping[str, Fact], ...] = ()
    """What the model said after each epoch: ``epoch``, ``suggested``, ``agreement``, ..."""
    moments: tuple[float, ...] = ()
    """Where in the clip it shows best, each from 0 (start) to 1 (end); none: evenly over it."""
