"""What the network's pictures are like, in three numbers that light, camera and codec move."""

from __future__ import annotations

import torch
from torch import Tensor

from mien_models.contract import View

PICTURE = ("brightness", "contrast", "sharpness")
_LUMA = (0.299, 0.587, 0.114)


def picture_statistics(view: View) -> Tensor:
    """[B, 3]: means over the frames in which a face was found, over all where none was.

    Brightness and contrast are mean and standard deviation of the luma, 0 to 1; sharpness is the
    mean step between neighbouring pixels as a share of the contrast.
    """
    weights = torch.tensor(_LUMA, device=view.video_BTCHW.device) / 255
    luma_BTHW = torch.einsum("btchw,c->bthw", view.video_BTCHW.float(), weights)
    contrast_BT = luma_BTHW.flatten(2).std(dim=2)
    steps_BT = torch.stack(
        [luma_BTHW.diff(dim=axis).abs().flatten(2).mean(dim=2) for axis in (2, 3)]
    ).mean(dim=0)
    values_BTP = torch.stack(
        [luma_BTHW.flatten(2).mean(dim=2), contrast_BT, steps_BT / contrast_BT.clamp(min=1e-3)],
        dim=2,
    )
    shown_BT = view.has_face_BT.float()
    shown_BT = torch.where(shown_BT.sum(dim=1, keepdim=True) > 0, shown_BT, 1.0)
    sums_BP = torch.einsum("btp,bt->bp", values_BTP, shown_BT)
    return sums_BP / shown_BT.sum(dim=1, keepdim=True)
