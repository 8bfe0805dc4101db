"""Embeddings freed of what all frames have in common, without reading their own batch.

Shape legend: B clips, T frames, N = B * T frames, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.layers.worker_sums import num_workers, sum_over_workers

_MOMENTUM = 0.95
"""Share of the running statistics that a batch leaves."""
_SHRINKAGE = 0.1
"""Added to all variances, as a share of their mean: directions in which embeddings hardly differ
are not blown up without bound."""


class RunningWhitening(nn.Module):
    """Less the running mean, by the root of the running covariance, then of unit length.

    Embeddings of an untrained network all point nearly the same way, so that no cosine tells
    frames apart and nothing is learnt; and two or three directions (how strongly the face moves,
    how far the mouth is open) are enough to tell a clip's frames apart, so that without whitening
    the embedding shrinks to those. A batch norm would cure the first, but would let the frames of
    a batch tell each other apart by its statistics; running ones of the batches *before* don't.

    Args:
        dim: E.
    """

    mean_E: Tensor
    covariance_EE: Tensor
    batches: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_E", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("covariance_EE", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, projected_BTE: Tensor) -> Tensor:
        """Unit vectors, float32 [B, T, E]; in training mode the batch then moves the statistics.

        The first batch, before which there is nothing, is whitened by its own.
        """
        with torch.autocast(projected_BTE.device.type, enabled=False):
            return self._whitened(projected_BTE.float())

    def _whitened(self, projected_BTE: Tensor) -> Tensor:
        is_first = not bool(self.batches)
        if self.training and is_first:
            self._take_in(projected_BTE.detach(), share=1.0)
        embedded_BTE = F.normalize((projected_BTE - self.mean_E).float() @ self._root_EE(), dim=2)
        if self.training and not is_first:
            self._take_in(projected_BTE.detach(), share=1.0 - _MOMENTUM)
        return embedded_BTE

    def _root_EE(self) -> Tensor:
        """The symmetric root of the inverse covariance: it turns nothing, so that queries and keys,
        each with statistics of their own, stay comparable."""
        variance_E, direction_EE = torch.linalg.eigh(self.covariance_EE)
        variance_E = variance_E + _SHRINKAGE * variance_E.mean() + 1e-6
        root_EE: Tensor = (direction_EE * variance_E.rsqrt()) @ direction_EE.T
        return root_EE.float()

    @torch.no_grad()
    def _take_in(self, projected_BTE: Tensor, *, share: float) -> None:
        # In double precision: one worker and two add in another order, and an untrained network's
        # embeddings differ in their last digits.
        rows_NE = projected_BTE.flatten(0, 1).double()
        number = len(rows_NE) * num_workers()
        mean_E = sum_over_workers(rows_NE.sum(dim=0)) / number
        off_NE = rows_NE - mean_E
        covariance_EE = sum_over_workers(off_NE.T @ off_NE) / number
        # New tensors: the backward pass still needs the old ones.
        self.mean_E = self.mean_E.lerp(mean_E, share)
        self.covariance_EE = self.covariance_EE.lerp(covariance_EE, share)
        self.batches = self.batches + 1
