"""Losses of DTM, each a function of tensors.

Means go over *all* unlabelled clips, not over the accepted ones: otherwise the few that are
accepted early would get huge gradients.

Shape legend: B labelled clips, U unlabelled clips, K classes, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.layers.worker_sums import gather_rows, sum_over_workers

_TINY = 1e-12


def labelled_loss(logits_BK: Tensor, label_B: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, a mean over the clips."""
    return F.cross_entropy(logits_BK.float(), label_B, label_smoothing=label_smoothing)


def unlabelled_loss(strong_logits_UK: Tensor, pseudo_label_U: Tensor, weight_U: Tensor) -> Tensor:
    """Weighted cross-entropy of strong views against pseudo-labels, over all unlabelled clips."""
    losses_U = F.cross_entropy(strong_logits_UK.float(), pseudo_label_U, reduction="none")
    return (weight_U * losses_U).mean()


def contrastive_loss(
    first_UD: Tensor, second_UD: Tensor, chosen_U: Tensor, *, temperature: float
) -> Tensor:
    """NT-Xent between two views' features of the chosen clips of all workers.

    Each view of a clip has to find the other among all other views. Without a chosen clip, and
    with a single one, it is 0.

    Args:
        first_UD: features of one view.
        second_UD: features of the other.
        chosen_U: bool, the clips that take part.
        temperature: divides the cosines.
    """
    chosen = gather_rows(chosen_U.long()).bool()
    first = F.normalize(gather_rows(first_UD.float())[chosen], dim=1)
    second = F.normalize(gather_rows(second_UD.float())[chosen], dim=1)
    views = torch.cat([first, second])
    number = len(first)
    if number == 0:
        # The sum of nothing: 0, with gradients of 0.
        return views.sum()
    similarity = views @ views.T / temperature
    itself = torch.eye(2 * number, dtype=torch.bool, device=views.device)
    partner = torch.arange(2 * number, device=views.device).roll(number)
    return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)


def negative_loss(
    strong_logits_UK: Tensor, teacher_UK: Tensor, refused_U: Tensor, *, below: float
) -> Tensor:
    """Sum of ``-log(1 - p_c)`` over the classes that the teacher excludes, for refused clips.

    A mean over all unlabelled clips.

    Args:
        strong_logits_UK: the student's, of the strong view.
        teacher_UK: the teacher's probabilities.
        refused_U: bool, clips whose pseudo-label is not believed.
        below: a class with a smaller probability is excluded.
    """
    probability_UK = strong_logits_UK.float().softmax(dim=1).clamp(max=1.0 - 1e-6)
    excluded_UK = (teacher_UK < below) & refused_U[:, None]
    losses_U = torch.where(excluded_UK, -torch.log1p(-probability_UK), 0.0).sum(dim=1)
    return losses_U.mean()


def fairness_loss(
    strong_logits_UK: Tensor, accepted_U: Tensor, share_K: Tensor, histogram_K: Tensor
) -> Tensor:
    """FreeMatch's fairness term over the accepted clips of all workers; 0 without any.

    ``sum_c a_c * log(b_c)``, where a is the running mean prediction over the running histogram of
    predictions, and b the same of the strong views of this batch, each scaled to sum to 1.

    Args:
        strong_logits_UK: the student's, of the strong view.
        accepted_U: bool.
        share_K: FreeMatch's running mean prediction.
        histogram_K: FreeMatch's running histogram of predicted classes.
    """
    probability_UK = strong_logits_UK.float().softmax(dim=1)
    accepted_U1 = accepted_U.float()[:, None]
    hits_UK = F.one_hot(probability_UK.argmax(dim=1), probability_UK.shape[1]).float()
    total_K = sum_over_workers((probability_UK * accepted_U1).sum(dim=0))
    hits_K = sum_over_workers((hits_UK * accepted_U1).sum(dim=0))
    if not bool(hits_K.any()):
        return total_K.sum()
    target_K = _per_hit(share_K, histogram_K)
    return (target_K * torch.log(_per_hit(total_K, hits_K) + _TINY)).sum()


def _per_hit(total_K: Tensor, hits_K: Tensor) -> Tensor:
    """``total / hits`` scaled to sum to 1; classes without hits are 0."""
    has_hits_K = hits_K > 0
    ratio_K = torch.where(has_hits_K, total_K / torch.where(has_hits_K, hits_K, 1.0), 0.0)
    return ratio_K / ratio_K.sum().clamp(min=_TINY)
