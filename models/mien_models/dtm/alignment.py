"""Distribution alignment: pseudo-labels whose average is a given prior.

Shape legend: U unlabelled clips, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien_models.layers.worker_sums import num_workers, sum_over_workers


class DistributionAlignment(nn.Module):
    """``p <- norm(p * prior / running mean of p)`` (ReMixMatch).

    Args:
        prior: shares of the classes, scaled to sum to 1.
        momentum: share of the running mean that a batch leaves.

    Raises:
        ValueError: a share is not positive.
    """

    prior_K: Tensor
    mean_K: Tensor

    def __init__(self, prior: tuple[float, ...], *, momentum: float) -> None:
        super().__init__()
        if min(prior) <= 0:
            raise ValueError(f"class_prior={prior}: every share must be positive")
        prior_K = torch.tensor(prior) / sum(prior)
        self.momentum = momentum
        self.register_buffer("prior_K", prior_K, persistent=False)
        self.register_buffer("mean_K", prior_K.clone())

    def forward(self, probability_UK: Tensor) -> Tensor:
        """Takes a batch into the running mean, then rescales it; rows sum to 1."""
        total_K = sum_over_workers(probability_UK.float().sum(dim=0))
        self.mean_K.lerp_(total_K / (len(probability_UK) * num_workers()), 1.0 - self.momentum)
        aligned_UK = probability_UK * self.prior_K / self.mean_K.clamp(min=1e-12)
        return aligned_UK / aligned_UK.sum(dim=1, keepdim=True)
