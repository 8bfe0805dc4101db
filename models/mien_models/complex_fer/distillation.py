"""Losses of a later stage: new classes are learnt, old answers are kept.

Shape legend: B clips, S classes learnt so far, R classes that a teacher knows (R <= S).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.complex_fer.config import DistillationConfig


def soft_cross_entropy(
    student_BR: Tensor, teacher_BR: Tensor, temperature: float, *, scale_by_square: bool
) -> Tensor:
    """Cross-entropy [B] of the student to the teacher's distribution, both at a temperature."""
    target_BR = (teacher_BR.float() / temperature).softmax(dim=1)
    loss_B = -(target_BR * (student_BR.float() / temperature).log_softmax(dim=1)).sum(dim=1)
    return loss_B * temperature**2 if scale_by_square else loss_B


def padded(teacher_BR: Tensor, num_classes: int) -> Tensor:
    """The teacher's logits with zeros for the classes that it does not know (published).

    A zero is no abstention: every such class gets the mass of e^0.
    """
    return F.pad(teacher_BR, (0, num_classes - teacher_BR.shape[1]))


def distillation_loss(
    config: DistillationConfig,
    student_BS: Tensor,
    *,
    basic_BR: Tensor | None,
    previous_BR: Tensor | None,
) -> Tensor:
    """Distillation [B] from the teachers that the settings name.

    Args:
        config: teachers, temperature.
        student_BS: logits in the order of learning, so that a teacher's classes come first.
        basic_BR: logits of the first stage's network; None where no setting wants it.
        previous_BR: logits of the network before this stage.
    """

    def towards(teacher_BR: Tensor) -> Tensor:
        known_BR = student_BS[:, : teacher_BR.shape[1]]
        return soft_cross_entropy(
            known_BR, teacher_BR, config.temperature, scale_by_square=config.scale_by_square
        )

    if config.teachers == "basic_padded":
        assert basic_BR is not None
        return towards(padded(basic_BR, student_BS.shape[1]))
    parts = [towards(teacher) for teacher in (basic_BR, previous_BR) if teacher is not None]
    return torch.stack(parts).mean(dim=0)


def clip_weights(
    num_new: int, num_replayed: int, *, new_classes: int, old_classes: int, balance: str
) -> Tensor:
    """What each clip of a step counts, summing to 1: new clips first, then replayed ones.

    Both kinds are drawn uniformly over their classes. ``balance="classes"`` weighs them so that
    every class learnt so far counts the same, however many clips of either kind a step has.
    """
    if num_replayed == 0 or balance == "clips":
        total = num_new + num_replayed
        return torch.full((total,), 1.0 / total)
    share = new_classes / (new_classes + old_classes)
    return torch.cat(
        [
            torch.full((num_new,), share / num_new),
            torch.full((num_replayed,), (1.0 - share) / num_replayed),
        ]
    )
