"""Whether heat maps can be believed: what they cover, and whether the network depends on it.

Shape legend: B clips, S frames, T frames of the view, H W pixels, P places of all maps of a clip.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.contract import ClipBatch, Method
from mien_models.explain.heat import Heat, heat_maps, on_picture

STEPS = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Shares of the pictures that are taken away, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Probability of the explained class as more and more of the pictures is blurred away."""

    shares: tuple[float, ...]
    hottest_first: tuple[float, ...]
    """Mean over clips, at each share."""
    at_random: tuple[float, ...]

    @property
    def gain(self) -> float:
        """By how much more the hottest places are missed than random ones, mean over the shares.

        Above 0: the maps point at what the network uses.
        """
        pairs = zip(self.at_random, self.hottest_first, strict=True)
        return sum(random - hottest for random, hottest in pairs) / len(self.shares)


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


@torch.no_grad()
def deletion(
    method: Method,
    batch: ClipBatch,
    heat: Heat,
    *,
    shares: Sequence[float] = STEPS,
    seed: int = 0,
    orders: int = 3,
) -> Deletion:
    """Blurs the hottest places of the looked-at frames away, and as much at random.

    Deletion (Petsiuk et al., RISE, BMVC 2018), with blur in the place of grey: a grey patch is a
    sight that no training showed. Random places are as large as the map's, so that both orders
    take away patches of one size.

    Args:
        method: of the maps.
        batch: of the maps.
        heat: what :func:`heat_maps` found in them.
        shares: of the pictures, rising.
        seed: of the random orders.
        orders: random orders that the comparison is a mean of.
    """
    place = method.picture_layer()
    assert place is not None
    generator = torch.Generator().manual_seed(seed)
    size = batch.video_BTCHW.shape[-1]
    hottest = _probabilities(method, batch, heat, on_picture(heat, place, size), shares)
    random = torch.zeros(len(shares))
    for _ in range(orders):
        drawn = torch.rand(heat.heat_BSRC.shape, generator=generator).to(heat.heat_BSRC.device)
        other = dataclasses.replace(heat, heat_BSRC=drawn)
        random += _probabilities(method, batch, heat, on_picture(other, place, size), shares)
    return Deletion(
        shares=tuple(shares),
        hottest_first=tuple(hottest.tolist()),
        at_random=tuple((random / orders).tolist()),
    )


def _probabilities(
    method: Method, batch: ClipBatch, heat: Heat, order_BSHW: Tensor, shares: Sequence[float]
) -> Tensor:
    """Mean probability of the explained classes at each share."""
    found = []
    for share in shares:
        # Rank, not value: maps are flat in places, and every order must take away as much.
        ranks_BP = order_BSHW.flatten(1).argsort(dim=1).argsort(dim=1)
        gone_BP = ranks_BP >= (1 - share) * ranks_BP.shape[1]
        video = _blurred_where(batch.video_BTCHW, gone_BP.view_as(order_BSHW), heat.frames_BS)
        view = dataclasses.replace(batch.views[0], video_BTCHW=video)
        changed = dataclasses.replace(batch, views=(view, *batch.views[1:]))
        probability_BK = method.predict(changed).logits_BK.float().softmax(dim=1)
        found.append(probability_BK.gather(1, heat.class_B[:, None]).mean())
    return torch.stack(found).cpu()


def _blurred_where(video_BTCHW: Tensor, gone_BSHW: Tensor, frames_BS: Tensor) -> Tensor:
    size = video_BTCHW.shape[-1]
    side = max(3, size // 4 * 2 + 1)
    changed = video_BTCHW.clone()
    clips_B1 = torch.arange(len(changed), device=changed.device)[:, None]
    chosen = video_BTCHW[clips_B1, frames_BS]
    flat = chosen.flatten(0, 1).float()
    padded = F.pad(flat, [side // 2] * 4, mode="replicate")
    blurred = F.avg_pool2d(padded, side, stride=1).unflatten(0, chosen.shape[:2])
    mixed = torch.where(gone_BSHW[:, :, None], blurred, chosen.float())
    changed[clips_B1, frames_BS] = mixed.round().clamp(0, 255).to(torch.uint8)
    return changed


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
