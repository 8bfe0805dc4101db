"""Which classes are learnt when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mien_models.complex_fer.compounds import is_compound
from mien_models.complex_fer.config import ComplexFerConfig, StreamPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stage of the training."""

    kind: Literal["warm_up", "basic", "later"]
    name: str
    classes: tuple[str, ...]
    """What it learns."""
    is_new: bool
    """Whether the head has to grow for it."""
    later_index: int = 0
    """Its number among the later stages, from 0."""


def make_schedule(config: ComplexFerConfig, classes: Sequence[str]) -> tuple[Phase, ...]:
    """The stages of a training.

    Raises:
        ValueError: names that are no classes, or nothing to begin with.
    """
    first, later = _divide(config.classes, classes)
    phases = []
    if config.warm_up.epochs > 0:
        phases.append(Phase(kind="warm_up", name="warm_up", classes=first, is_new=True))
    phases.append(Phase(kind="basic", name="basic", classes=first, is_new=not phases))
    size = config.classes.classes_per_stage
    for index, start in enumerate(range(0, len(later), size)):
        names = later[start : start + size]
        phases.append(
            Phase(
                kind="later",
                name=f"learn_{'+'.join(names)}",
                classes=names,
                is_new=True,
                later_index=index,
            )
        )
    return tuple(phases)


def _divide(plan: StreamPlan, classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first classes in the order of the logits, and the later ones in the order of learning."""
    for setting in ("first_classes", "left_out", "order"):
        unknown = [name for name in getattr(plan, setting) if name not in classes]
        # What is left out of one set of classes may not be in another.
        if unknown and setting != "left_out":
            raise ValueError(
                f"classes.{setting} names {', '.join(unknown)}, but the classes are "
                f"{', '.join(classes)}"
            )
    kept = [name for name in classes if name not in plan.left_out]
    chosen = plan.first_classes or [name for name in kept if not is_compound(name)]
    first = tuple(name for name in kept if name in chosen)
    if not first:
        raise ValueError(
            "no class to begin with: none of "
            f"{', '.join(kept)} is a basic expression; name some with classes.first_classes"
        )
    later = [name for name in kept if name not in first]
    return first, _ordered(plan, later)


def _ordered(plan: StreamPlan, later: list[str]) -> tuple[str, ...]:
    if not plan.order:
        random.Random(plan.order_seed).shuffle(later)
        return tuple(later)
    if sorted(plan.order) != sorted(later):
        raise ValueError(
            f"classes.order has to name each later class once ({', '.join(later) or 'none'}), got "
            f"{', '.join(plan.order)}"
        )
    return plan.order
