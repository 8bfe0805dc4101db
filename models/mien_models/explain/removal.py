"""Whether the network depends on what heat maps show: places are taken away and the class watched.

Two measures. *Deletion* blurs places. *ROAD* (Rong et al., A consistent and efficient evaluation
strategy for attribution methods, ICML 2022) fills them in from what is around them, so that neither
an edge nor a blur tells the network where something is gone.

Shape legend: B clips, S frames, T frames of the view, N pictures, C channels, H W pixels, P pixels
of all frames of a clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.contract import ClipBatch, Method
from mien_models.explain.heat import Heat, on_picture

STEPS = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Shares of the pictures that are taken away, one after the other."""
_NOISE = 0.01 * 255
"""Deviation of the noise on filled-in pixels: smoothness would give them away too."""
_CLOSE = 1e-3
"""Filled-in pixels are solved until no equation is off by more, in grey levels of 255."""
_MOST_ROUNDS = 5000
"""Far more than large pictures need: 36 px take about 100, and rounds grow with the side."""

TakeAway = Callable[[Tensor, Tensor], Tensor]
"""Pictures [N, C, H, W] uint8 without the places [N, H, W] that are marked."""


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
        return _mean_gap(self.at_random, self.hottest_first)


@dataclass(frozen=True, kw_only=True)
class Road:
    """Probability of the explained class as more and more of the pictures is filled in."""

    shares: tuple[float, ...]
    hottest_first: tuple[float, ...]
    """Mean over clips, at each share."""
    coldest_first: tuple[float, ...]

    @property
    def gain(self) -> float:
        """By how much more the hottest places are missed than the coldest, mean over the shares."""
        return _mean_gap(self.coldest_first, self.hottest_first)


def _mean_gap(upper: Sequence[float], lower: Sequence[float]) -> float:
    return sum(one - other for one, other in zip(upper, lower, strict=True)) / len(upper)


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
        shares: of what the network sees of the pictures, rising.
        seed: of the random orders.
        orders: random orders that the comparison is a mean of.
    """
    generator = torch.Generator().manual_seed(seed)
    hottest = _probabilities(method, batch, heat, shares, blurred)
    random = torch.zeros(len(shares))
    for _ in range(orders):
        drawn = torch.rand(heat.heat_BSRC.shape, generator=generator).to(heat.heat_BSRC.device)
        other = dataclasses.replace(heat, heat_BSRC=drawn)
        random += _probabilities(method, batch, other, shares, blurred)
    return Deletion(
        shares=tuple(shares),
        hottest_first=tuple(hottest.tolist()),
        at_random=tuple((random / orders).tolist()),
    )


@torch.no_grad()
def road(
    method: Method, batch: ClipBatch, heat: Heat, *, shares: Sequence[float] = STEPS, seed: int = 0
) -> Road:
    """Removes the hottest places of the looked-at frames, and the coldest, and debiases.

    ROAD's two orders, with the explained class's probability in the place of accuracy.

    Args:
        method: of the maps.
        batch: of the maps.
        heat: what :func:`heat_maps` found in them.
        shares: of what the network sees of the pictures, rising.
        seed: of the noise on filled-in pixels.
    """
    generator = torch.Generator().manual_seed(seed)

    def filled_in(pictures: Tensor, gone: Tensor) -> Tensor:
        return fill_in(pictures, gone, generator)

    colder = dataclasses.replace(heat, heat_BSRC=-heat.heat_BSRC)
    return Road(
        shares=tuple(shares),
        hottest_first=tuple(_probabilities(method, batch, heat, shares, filled_in).tolist()),
        coldest_first=tuple(_probabilities(method, batch, colder, shares, filled_in).tolist()),
    )


def _probabilities(
    method: Method, batch: ClipBatch, heat: Heat, shares: Sequence[float], take_away: TakeAway
) -> Tensor:
    """Mean probability of the explained classes when each share of the pictures is gone."""
    place = method.picture_layer()
    assert place is not None
    border, size = place.border_px, batch.video_BTCHW.shape[-1]
    seen = slice(border, size - border)
    ranks_BSHW = _ranks(on_picture(heat, place, size)[..., seen, seen])
    clips_B1 = torch.arange(len(batch), device=ranks_BSHW.device)[:, None]
    chosen = batch.video_BTCHW[clips_B1, heat.frames_BS]
    found = []
    for share in shares:
        gone_BSHW = ranks_BSHW < share * ranks_BSHW[0].numel()
        changed = chosen.clone()
        left = take_away(chosen[..., seen, seen].flatten(0, 1), gone_BSHW.flatten(0, 1))
        changed[..., seen, seen] = left.unflatten(0, tuple(heat.frames_BS.shape))
        video = batch.video_BTCHW.clone()
        video[clips_B1, heat.frames_BS] = changed
        view = dataclasses.replace(batch.views[0], video_BTCHW=video)
        without = dataclasses.replace(batch, views=(view, *batch.views[1:]))
        probability_BK = method.predict(without).logits_BK.float().softmax(dim=1)
        found.append(probability_BK.gather(1, heat.class_B[:, None]).mean())
    return torch.stack(found).cpu()


def _ranks(heat_BSHW: Tensor) -> Tensor:
    """Each pixel's place among those of its clip, hottest first.

    Rank, not value: every order must take away as much. Maps are flat in places; among equals the
    order is drawn.
    """
    drawn = torch.rand(heat_BSHW.shape, generator=torch.Generator().manual_seed(0))
    order_BP = (heat_BSHW.double() + 1e-6 * drawn.to(heat_BSHW.device)).flatten(1)
    return order_BP.argsort(dim=1, descending=True).argsort(dim=1).view_as(heat_BSHW)


def blurred(pictures_NCHW: Tensor, gone_NHW: Tensor) -> Tensor:
    """Pictures, uint8 [N, C, H, W], with the means of large squares around them in some places."""
    side = max(3, pictures_NCHW.shape[-1] // 4 * 2 + 1)
    exact = pictures_NCHW.float()
    padded = F.pad(exact, [side // 2] * 4, mode="replicate")
    means = F.avg_pool2d(padded, side, stride=1)
    return _as_pixels(torch.where(gone_NHW[:, None], means, exact))


def fill_in(pictures_NCHW: Tensor, gone_NHW: Tensor, generator: torch.Generator) -> Tensor:
    """ROAD's noisy linear imputation: each missing pixel is the weighted mean of its neighbours.

    The equations of all pictures are solved at once, by conjugate gradients from a blurred picture.
    A picture of which nothing is left becomes of one colour.

    Args:
        pictures_NCHW: uint8 [N, C, H, W].
        gone_NHW: bool, what is missing.
        generator: of the noise.
    """
    gone_N1HW = gone_NHW[:, None]
    exact = pictures_NCHW.float()
    degree_HW = _neighbours(torch.ones_like(exact[:1, :1]))[0, 0]

    def shortfall(values: Tensor) -> Tensor:
        """By how much missing pixels lie below what their neighbours ask for."""
        return (_neighbours(values) - degree_HW * values) * gone_N1HW

    found = torch.where(gone_N1HW, blurred(pictures_NCHW, gone_NHW).float(), exact)
    rest = direction = shortfall(found)
    size_NC11 = rest.square().sum(dim=(2, 3), keepdim=True)
    for _ in range(_MOST_ROUNDS):
        # What is solved stays as it is: in rounding errors there is no direction.
        is_open_NC11 = rest.abs().amax(dim=(2, 3), keepdim=True) >= _CLOSE
        if not is_open_NC11.any():
            break
        effect = -shortfall(direction)
        bend_NC11 = (direction * effect).sum(dim=(2, 3), keepdim=True)
        step_NC11 = torch.where(is_open_NC11, size_NC11 / bend_NC11, 0.0)
        found = found + step_NC11 * direction
        rest = rest - step_NC11 * effect
        before_NC11, size_NC11 = size_NC11, rest.square().sum(dim=(2, 3), keepdim=True)
        direction = rest + torch.where(is_open_NC11, size_NC11 / before_NC11, 0.0) * direction
    noise = _NOISE * torch.randn(exact.shape, generator=generator).to(exact.device)
    return _as_pixels(torch.where(gone_N1HW, found + noise, exact))


def _neighbours(values_NCHW: Tensor) -> Tensor:
    """The weighted sum of each pixel's neighbours; there are none beyond the picture."""
    corner, beside = 1 / 12, 1 / 6
    rows = ((corner, beside, corner), (beside, 0.0, beside), (corner, beside, corner))
    kernel = torch.tensor(rows, device=values_NCHW.device)[None, None]
    return F.conv2d(values_NCHW.flatten(0, 1)[:, None], kernel, padding=1).view_as(values_NCHW)


def _as_pixels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
