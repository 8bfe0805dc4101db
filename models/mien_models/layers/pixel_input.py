"""Frames as a network sees them: border cut, scaled, with motion beside the colours if wanted.

Shape legend: B clips, T frames, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

InputScale = Literal["unit", "imagenet", "frame"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelInput(nn.Module):
    """Scales uint8 frames.

    Args:
        scale: ``unit``: to [0, 1]. ``imagenet``: also less ImageNet's mean, by its deviation.
            ``frame``: less each frame's own mean, by its deviation, which takes the light out.
        border_px: cut off on every side.
        motion_gain: adds three channels, this times the frame less the mean of the clip's frames
            with a face; None: colours alone.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self, scale: InputScale, *, border_px: int = 0, motion_gain: float | None = None
    ) -> None:
        super().__init__()
        self.scale, self.border_px, self.motion_gain = scale, border_px, motion_gain
        is_imagenet = scale == "imagenet"
        mean = _IMAGENET_MEAN if is_imagenet else (0.0, 0.0, 0.0)
        std = _IMAGENET_STD if is_imagenet else (1.0, 1.0, 1.0)
        for name, values in (("mean_C11", mean), ("std_C11", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Tensor:
        """uint8 [B, T, 3, H, W] to float32 [B, T, 3 or 6, H', W']."""
        height, width = video_BTCHW.shape[-2:]
        border = self.border_px
        seen = video_BTCHW[..., border : height - border, border : width - border]
        scaled_BTCHW = self._scaled(seen.float() / 255.0)
        if self.motion_gain is None:
            return scaled_BTCHW
        counts_BT111 = has_face_BT.float()[..., None, None, None]
        total_B1CHW = (counts_BT111 * scaled_BTCHW).sum(dim=1, keepdim=True)
        mean_B1CHW = total_B1CHW / counts_BT111.sum(dim=1, keepdim=True).clamp(min=1.0)
        motion_BTCHW = self.motion_gain * (scaled_BTCHW - mean_B1CHW)
        return torch.cat([scaled_BTCHW, motion_BTCHW], dim=2)

    def _scaled(self, unit_BTCHW: Tensor) -> Tensor:
        if self.scale == "frame":
            mean_BT111 = unit_BTCHW.mean(dim=(2, 3, 4), keepdim=True)
            # A frame of one colour stays 0; 0.05 is well below the contrast of a dark picture.
            std_BT111 = unit_BTCHW.std(dim=(2, 3, 4), keepdim=True) + 0.05
            return (unit_BTCHW - mean_BT111) / std_BT111
        return (unit_BTCHW - self.mean_C11) / self.std_C11
