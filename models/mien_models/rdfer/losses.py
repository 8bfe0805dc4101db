"""Losses of RDFER, one value a clip, so that every clip can have its own weight.

Shape legend: B clips, I instances, K classes, J keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross-entropy against a distribution, [B]."""
    return -(target_BK * logits_BK.float().log_softmax(dim=-1)).sum(dim=-1)


def instance_loss(instance_logits_BIK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross-entropy of every instance against its clip's target, mean over instances, [B]."""
    return soft_cross_entropy(instance_logits_BIK, target_BK[:, None]).mean(dim=1)


def smoothed(target_BK: Tensor, label_smoothing: float) -> Tensor:
    """A target of which a share is spread evenly over all classes."""
    return target_BK * (1.0 - label_smoothing) + label_smoothing / target_BK.shape[1]


def intensity_aware_loss(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """-log(e_t / (e_t + e_max)) with the strongest class beside the target (Li et al. 2023), [B].

    Pushes a clip away from its strongest competitor alone.
    """
    logits_BK = logits_BK.float()
    is_target_BK = F.one_hot(label_B, logits_BK.shape[1]).bool()
    rival_B = logits_BK.masked_fill(is_target_BK, -torch.inf).amax(dim=1)
    own_B = logits_BK.gather(1, label_B[:, None])[:, 0]
    return F.softplus(rival_B - own_B)


def key_target_loss(centres_BJ: Tensor, rule_BJ: Tensor, num_frames: int) -> Tensor:
    """Distance of sorted learned keys from those of the rule, in half clips, summed over keys, [B].

    No gradient reaches the rule's keys.
    """
    half = max(1.0, (num_frames - 1) / 2)
    return (centres_BJ - rule_BJ.detach()).abs().sum(dim=1) / half
