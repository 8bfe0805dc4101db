"""Batch normalisation over the global batch, on any device.

torch's ``SyncBatchNorm`` refuses tensors that are not on a GPU; this one gives the same on CPU
workers, so that tests can hold two workers against one.

Shape legend: N pictures, C channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien_models.layers.worker_sums import num_workers, sum_over_workers


class MergedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics are those of all workers' pictures.

    Every worker has the same number of pictures.
    """

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Normalised pictures [N, C, H, W]."""
        workers = num_workers()
        if not self.training or workers == 1:
            return super().forward(pictures_NCHW)
        x_NCHW = pictures_NCHW.float()
        count = workers * x_NCHW.numel() // x_NCHW.shape[1]
        mean_C11 = (sum_over_workers(x_NCHW.sum(dim=(0, 2, 3))) / count)[:, None, None]
        x_NCHW = x_NCHW - mean_C11
        var_C11 = (sum_over_workers(x_NCHW.square().sum(dim=(0, 2, 3))) / count)[:, None, None]
        self._remember(mean_C11.flatten(), var_C11.flatten() * (count / max(1, count - 1)))
        x_NCHW = x_NCHW * (var_C11 + self.eps).rsqrt()
        x_NCHW = x_NCHW * self.weight[:, None, None] + self.bias[:, None, None]
        return x_NCHW.to(pictures_NCHW.dtype)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, var_C: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(var_C, self.momentum)


def merge_batch_norms(network: nn.Module) -> None:
    """Puts :class:`MergedBatchNorm2d` in the place of every plain ``nn.BatchNorm2d``, same state.

    Other kinds (timm's, with a built-in activation) stay as they are: each worker normalises its
    own pictures there.
    """
    for name, child in network.named_children():
        if type(child) is not nn.BatchNorm2d:
            merge_batch_norms(child)
            continue
        merged = MergedBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
        merged.load_state_dict(child.state_dict())
        setattr(network, name, merged)
