"""Whether heat maps can be believed: what they cover, and whether training changed them.

Shape legend: B clips, S frames, R C rows and columns of the map, H W pixels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mien_models.contract import ClipBatch, Method
from mien_models.explain.heat import Heat, heat_maps


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """[B]: cosine between two clips' maps [B, S, R, C]; 0 where one of them is empty."""
    product_B = (one * other).flatten(1).sum(dim=1)
    sizes_B = one.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1)
    cosine_B: Tensor = product_B / sizes_B.clamp(min=1e-12)
    return cosine_B


def share_inside(heat_BSHW: Tensor, inside_BSHW: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the heat lies inside regions, and how much of the picture they are.

    The first above the second: the network looks there more than anywhere (energy-based pointing
    game, Wang et al., Score-CAM, CVPR Workshops 2020).

    Args:
        heat_BSHW: at least 0.
        inside_BSHW: bool.

    Returns:
        Share of the heat [B] (NaN where there is none) and share of the area [B].
    """
    within_B = (heat_BSHW * inside_BSHW).flatten(1).sum(dim=1)
    return (
        within_B / heat_BSHW.flatten(1).sum(dim=1),
        inside_BSHW.float().flatten(1).mean(dim=1),
    )


def randomisation_similarity(
    method: Method, batch: ClipBatch, heat: Heat, *, seed: int = 0
) -> float:
    """Mean overlap of the maps with those of the same network with random weights.

    A map that stays as it was when all that was learnt is gone shows the picture's edges, not what
    the network knows (Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018). Both maps
    have their mean taken off first, so that unrelated maps come out near 0.
    """
    other = copy.deepcopy(method)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            shuffled = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(shuffled.view_as(parameter))
    random = heat_maps(other, batch, heat.class_B)
    return float(overlap(_centred(heat.heat_BSRC), _centred(random.heat_BSRC)).mean())


def _centred(heat_BSRC: Tensor) -> Tensor:
    return heat_BSRC - heat_BSRC.mean(dim=(1, 2, 3), keepdim=True)
