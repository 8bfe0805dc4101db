"""Which losses are too high to be those of right labels: a mixture of two normal distributions.

Right and wrong labels give two hills of losses as long as a network hasn't memorised. Where the
valley between them lies changes with the data, the classes and the training, so that no fixed
threshold fits; the mixture is fitted to the losses alone, nobody has to know the share of noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_STEPS = 100
_LEAST_SHARE, _LEAST_DEVIATION = 1e-3, 0.05


def probability_of_high(values: Sequence[float]) -> list[float]:
    """Of each value, the probability that it belongs to the higher of two hills.

    Fitted by expectation maximisation from the lower half and the upper tenth; always the same for
    the same values, whatever their order. Fewer than 4 values, or values that are all the same,
    have no second hill: 0.
    """
    if len(values) < 4 or max(values) - min(values) < 1e-9:
        return [0.0] * len(values)
    value_N = torch.tensor(values, dtype=torch.float64)
    mean_2 = torch.quantile(value_N, torch.tensor([0.3, 0.95], dtype=torch.float64))
    deviation_2 = value_N.std().clamp(min=_LEAST_DEVIATION).repeat(2) / 2
    share_2 = torch.tensor([0.8, 0.2], dtype=torch.float64)
    high_N = torch.zeros_like(value_N)
    for _ in range(_STEPS):
        distance_N2 = (value_N[:, None] - mean_2) / deviation_2
        density_N2 = share_2.log() - deviation_2.log() - distance_N2.square() / 2
        weight_N2 = density_N2.softmax(dim=1)
        high_N = weight_N2[:, 1]
        total_2 = weight_N2.sum(dim=0).clamp(min=_LEAST_SHARE)
        mean_2 = (weight_N2 * value_N[:, None]).sum(dim=0) / total_2
        spread_N2 = (value_N[:, None] - mean_2).square() * weight_N2
        deviation_2 = (spread_N2.sum(dim=0) / total_2).sqrt().clamp(min=_LEAST_DEVIATION)
        share_2 = (total_2 / len(value_N)).clamp(min=_LEAST_SHARE)
    # A wide hill also claims the far end of the other side: below the lower mean nothing is high.
    high_N = torch.where(value_N < mean_2[0], 0.0, high_N)
    return [round(value, 6) for value in high_N.tolist()]


def label_loss(probability: float) -> float:
    """-log of the probability of the given label, bounded as losses of a sure network are not."""
    return -math.log(max(probability, 1e-3))
