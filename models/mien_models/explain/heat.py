"""Grad-CAM maps of any method, and what each modality adds to a decision.

Shape legend: B clips, S frames looked at, X their product, R C rows and columns of the map, N
tokens, D features, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.contract import ClipBatch, Method, PictureLayer


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Where in the pictures a class is decided."""

    class_B: Tensor
    """int64 [B]: the class that is explained."""
    logits_BK: Tensor
    """Of the prediction that is explained."""
    frames_BS: Tensor
    """int64 [B, S]: numbers of the first view's frames that the maps belong to."""
    heat_BSRC: Tensor
    """[B, S, R, C], 0 to 1 within a clip; all 0 where nothing speaks for the class."""


def grad_cam(values: Tensor, gradient: Tensor, place: PictureLayer) -> Tensor:
    """[X, R, C]: positive part of a layer's features weighed by their mean gradient.

    Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1-2). Among tokens the mean is over all of them: in
    networks that read the class token alone, it alone has a gradient behind the last block.
    """
    if place.token_grid is None:
        weight_XD11 = gradient.mean(dim=(2, 3), keepdim=True)
        return F.relu((weight_XD11 * values).sum(dim=1))
    rows, columns = place.token_grid
    patches_XPD = values[:, place.first_patch : place.first_patch + rows * columns]
    weight_X1D = gradient.mean(dim=1, keepdim=True)
    heat_XP = F.relu((weight_X1D * patches_XPD).sum(dim=2))
    return cast(Tensor, heat_XP.unflatten(1, (rows, columns)))


def heat_maps(method: Method, batch: ClipBatch, class_B: Tensor | None = None) -> Heat:
    """Grad-CAM of a batch's predictions, in evaluation mode.

    Args:
        method: names its ``picture_layer``.
        batch: as for ``predict``.
        class_B: the classes that are explained; None: the most probable ones.

    Raises:
        ValueError: the method has no layer to look at, or the layer is not what it says.
    """
    place = method.picture_layer()
    if place is None:
        raise ValueError(
            f"{type(method).__name__} with these settings names no layer that Grad-CAM could read"
        )
    was_training = method.training
    method.eval()
    try:
        seen: list[Tensor] = []
        handle = place.layer.register_forward_hook(_cut_into(seen))
        try:
            with torch.enable_grad():
                logits_BK = method.predict(batch).logits_BK
        finally:
            handle.remove()
        if class_B is None:
            class_B = logits_BK.argmax(dim=1)
        score = logits_BK.gather(1, class_B[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, seen[0])
        frames_BS = _frames_seen(place, batch)
    finally:
        method.train(was_training)
    heat_XRC = grad_cam(seen[0].detach(), gradient, place)
    if heat_XRC.shape[0] != frames_BS.numel():
        raise ValueError(
            f"{type(place.layer).__name__} saw {heat_XRC.shape[0]} pictures, expected "
            f"{frames_BS.shape[1]} frames of {len(batch)} clips"
        )
    heat_BSRC = heat_XRC.unflatten(0, tuple(frames_BS.shape))
    peak_B111 = heat_BSRC.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return Heat(
        class_B=class_B,
        logits_BK=logits_BK.detach(),
        frames_BS=frames_BS,
        heat_BSRC=heat_BSRC / peak_B111,
    )


def _frames_seen(place: PictureLayer, batch: ClipBatch) -> Tensor:
    if place.frames is not None:
        return place.frames(batch)
    num_clips, num_frames = batch.video_BTCHW.shape[:2]
    return torch.arange(num_frames, device=batch.video_BTCHW.device).expand(num_clips, -1)


def _cut_into(seen: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        # A leaf: nothing below it needs a gradient.
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    return hook


def on_picture(heat: Heat, place: PictureLayer, size_px: int) -> Tensor:
    """The maps [B, S, H, W] over the stream's square pictures; 0 in a border that was cut off."""
    inner = size_px - 2 * place.border_px
    large_BSHW = F.interpolate(
        heat.heat_BSRC, size=(inner, inner), mode="bilinear", align_corners=False
    )
    return F.pad(large_BSHW, [place.border_px] * 4)
