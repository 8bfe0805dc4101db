"""Embeddings freed of what all frames have in common, without reading their own batch.

Shape legend: B clips, T frames, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.layers.worker_sums import num_workers, sum_over_workers

_MOMENTUM = 0.9
"""Share of the running statistics that a batch leaves."""


class RunningStandardisation(nn.Module):
    """Less the running mean, by the running deviation, then of unit length.

    Embeddings of an untrained network all point nearly the same way, so that no cosine tells
    frames apart and nothing is learnt. A batch norm would cure that, but would let the frames of a
    batch tell each other apart by its statistics; running ones of the batches *before* don't.

    Args:
        dim: E.
    """

    mean_E: Tensor
    variance_E: Tensor
    batches: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_E", torch.zeros(dim))
        self.register_buffer("variance_E", torch.ones(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, projected_BTE: Tensor) -> Tensor:
        """Unit vectors, float32 [B, T, E]; in training mode the batch then moves the statistics.

        The first batch, before which there is nothing, is standardised by its own.
        """
        projected_BTE = projected_BTE.float()
        is_first = not bool(self.batches)
        if self.training and is_first:
            self._take_in(projected_BTE.detach(), share=1.0)
        scale_E = (self.variance_E + 1e-6).rsqrt()
        embedded_BTE = F.normalize((projected_BTE - self.mean_E) * scale_E, dim=2)
        if self.training and not is_first:
            self._take_in(projected_BTE.detach(), share=1.0 - _MOMENTUM)
        return embedded_BTE

    @torch.no_grad()
    def _take_in(self, projected_BTE: Tensor, *, share: float) -> None:
        rows_NE = projected_BTE.flatten(0, 1)
        number = len(rows_NE) * num_workers()
        mean_E = sum_over_workers(rows_NE.sum(dim=0)) / number
        variance_E = sum_over_workers((rows_NE - mean_E).square().sum(dim=0)) / number
        # New tensors: the backward pass still needs the old ones.
        self.mean_E = self.mean_E.lerp(mean_E, share)
        self.variance_E = self.variance_E.lerp(variance_E, share)
        self.batches = self.batches + 1
