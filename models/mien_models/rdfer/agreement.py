"""Agreement of the predictions of several looks at one video, and what it says about the label.

Shape legend: B clips, M looks, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.rdfer.config import AgreementConfig, Measure

Verdict = Literal["clean", "noisy", "hard", "unsure"]
"""``noisy``: the label is probably wrong. ``hard``: the expression is. ``unsure``: treated as
clean, although another class is ahead."""


def agreement(probabilities_BMK: Tensor, measure: Measure) -> Tensor:
    """How far the looks agree, [B] in [0, 1]; the order of the looks has no influence.

    Args:
        probabilities_BMK: of each look; M >= 2.
        measure: ``pairs``: share of the M (M - 1) / 2 pairs with the same most probable class.
            ``majority``: share of the looks with the most frequent one. ``soft``:
            1 - JS / log min(M, K) with JS = H(mean p) - mean H(p).
    """
    looks, classes = probabilities_BMK.shape[1:]
    if measure == "soft":
        between = _entropy(probabilities_BMK.mean(dim=1)) - _entropy(probabilities_BMK).mean(dim=1)
        return (1.0 - between / math.log(min(looks, classes))).clamp(0.0, 1.0)
    counts_BK = F.one_hot(probabilities_BMK.argmax(dim=2), classes).sum(dim=1)
    if measure == "majority":
        return counts_BK.amax(dim=1) / looks
    agreeing_B = (counts_BK * (counts_BK - 1)).sum(dim=1)
    return agreeing_B / (looks * (looks - 1))


def _entropy(probabilities: Tensor) -> Tensor:
    parts: Tensor = torch.special.entr(probabilities)
    return parts.sum(dim=-1)


def judge(
    agreement: float,
    suggested: int,
    given: int,
    margin: float,
    config: AgreementConfig,
    *,
    probability_of_high: float = 1.0,
) -> Verdict:
    """The decision table.

    Args:
        agreement: of the looks.
        suggested: the most probable class of their mean.
        given: the class of the label.
        margin: how much more probable the suggested class is than the given one.
        config: tau, delta, mixture, and which way agreement is read.
        probability_of_high: that the clip's loss is one of the high ones.
    """
    looks_agree = agreement >= config.tau
    if config.reading == "scattered":
        if not looks_agree:
            return "noisy"
        return "clean" if suggested == given else "hard"
    if not looks_agree:
        return "hard"
    if suggested == given:
        return "clean"
    is_high = config.mixture is None or probability_of_high > config.mixture
    return "noisy" if margin > config.delta and is_high else "unsure"


def window_frames(num_frames: int, num_looks: int, share: float) -> Tensor:
    """Frames of each of M windows, evenly placed from the clip's start to its end.

    Returns:
        int64 [M, T]: each row stretches ``share`` of the clip to T frames.
    """
    span = share * (num_frames - 1)
    start_M = torch.linspace(0.0, num_frames - 1 - span, num_looks)
    place_T = torch.linspace(0.0, span, num_frames)
    return (start_M[:, None] + place_T).round().long().clamp(0, num_frames - 1)
