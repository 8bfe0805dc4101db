"""KER, key expression re-sampling: where a clip's key moments are, and their frames.

Positions are numbers of the clip's loaded frames, fractional ones among them, in [0, T - 1].
Nothing here is given a label.

Shape legend: B clips, T loaded frames, S instances of the synopsis, K classes, J keys, U frames of
a key, C channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mien_models.rdfer.config import KeyConfig, KeyRule

_NEAR, _TAKEN = 10.0, 1000.0
"""Taken off the priority of an instance near a chosen one, and of a chosen one."""


def synopsis_positions(num_frames: int, count: int, jitter_BS: Tensor | None = None) -> Tensor:
    """Frames that the synopsis sees: evenly spread from the first to the last frame.

    Args:
        num_frames: T.
        count: S.
        jitter_BS: in [0, 1): moves all but the last frame forward by that share of their distance.

    Returns:
        int64 [S], or [B, S] with jitter; non-decreasing.
    """
    even_S = torch.linspace(0, num_frames - 1, count).long()
    if jitter_BS is None:
        return even_S
    reach = (num_frames - 1) // count
    moved_BS = (jitter_BS * reach).long()
    is_last_S = torch.arange(count, device=jitter_BS.device) == count - 1
    positions_BS = even_S.to(jitter_BS.device) + moved_BS.masked_fill(is_last_S, 0)
    return positions_BS.clamp(max=num_frames - 1)


def pick_instances(probabilities_BSK: Tensor, count: int, rule: KeyRule, min_gap: int) -> Tensor:
    """The instances that show the key expressions, by rule.

    No instance is picked twice. Those at least ``min_gap`` from all picked before come first; where
    there are none left, nearer ones are taken.

    Args:
        probabilities_BSK: of each instance.
        count: J.
        rule: see ``KeyConfig.rule``.
        min_gap: in instances.

    Returns:
        int64 [B, J], ascending.
    """
    priority_BS = probabilities_BSK.amax(dim=2)
    if rule == "class_maxima":
        best_BK = probabilities_BSK.amax(dim=1)
        is_best_BSK = probabilities_BSK == best_BK[:, None]
        owned_BS = torch.where(is_best_BSK, probabilities_BSK, 0.0).amax(dim=2)
        # Instances that are the best of no class come last, the surest of them first.
        priority_BS = torch.where(owned_BS > 0, 2.0 + owned_BS, priority_BS)
    index_S = torch.arange(priority_BS.shape[1], device=priority_BS.device)
    picked = []
    for _ in range(count):
        choice_B1 = priority_BS.argmax(dim=1, keepdim=True)
        distance_BS = (index_S - choice_B1).abs()
        priority_BS = priority_BS - _NEAR * (distance_BS < min_gap) - _TAKEN * (distance_BS == 0)
        picked.append(choice_B1)
    return torch.cat(picked, dim=1).sort(dim=1).values


def spread(centres_BJ: Tensor, num_frames: int, min_gap: float) -> Tensor:
    """Sorted key positions in [0, T - 1] that are at least ``min_gap`` apart, where there is room.

    Gradients reach every position that was not moved by a neighbour or an end.
    """
    last, count = num_frames - 1.0, centres_BJ.shape[1]
    gap = min(min_gap, last / max(1, count - 1))
    columns = list(centres_BJ.clamp(0.0, last).sort(dim=1).values.unbind(dim=1))
    for index in range(1, count):
        columns[index] = torch.maximum(columns[index], columns[index - 1] + gap)
    for index in range(count):
        columns[index] = columns[index].clamp(max=last - (count - 1 - index) * gap)
    return torch.stack(columns, dim=1)


def frame_positions(centres_BJ: Tensor, stride: float | Tensor, count: int, last: int) -> Tensor:
    """Positions of ``count`` frames around each key, ``stride`` apart, clamped to [0, last].

    Args:
        centres_BJ: key positions.
        stride: in frames; a number, or [B, J].
        count: U.
        last: T - 1.

    Returns:
        [B, J, U].
    """
    place_U = torch.arange(count, device=centres_BJ.device) - (count - 1) / 2
    reach_BJU = (torch.as_tensor(stride, device=centres_BJ.device) + 0 * centres_BJ)[..., None]
    positions_BJU: Tensor = centres_BJ[..., None] + place_U * reach_BJU
    return positions_BJU.clamp(0.0, float(last))


def sample_hard(video_BTCHW: Tensor, positions_BJU: Tensor) -> Tensor:
    """The frames nearest to the positions, [B, J, U, C, H, W]; no gradient to the positions."""
    # Whole positions too become floats: ONNX rounds nothing else.
    index_BN = positions_BJU.float().round().long().flatten(1)
    row_B1 = torch.arange(video_BTCHW.shape[0], device=video_BTCHW.device)[:, None]
    frames_BNCHW: Tensor = video_BTCHW[row_B1, index_BN]
    return torch.unflatten(frames_BNCHW, 1, positions_BJU.shape[1:])


def sample_gaussian(video_BTCHW: Tensor, positions_BJU: Tensor, sigma: float) -> Tensor:
    """Means of the frames around the positions, weighted by exp(-(t - position)^2 / 2 sigma^2).

    The weights of a position sum to 1.

    Returns:
        [B, J, U, C, H, W].
    """
    time_T = torch.arange(video_BTCHW.shape[1], device=video_BTCHW.device)
    distance_BJUT = time_T - positions_BJU[..., None]
    weight_BJUT = torch.softmax(-0.5 * (distance_BJUT / sigma).square(), dim=-1)
    weight_BJUT = weight_BJUT.to(video_BTCHW.dtype)
    return torch.einsum("bjut,btchw->bjuchw", weight_BJUT, video_BTCHW)


class LearnedKeys(nn.Module):
    """Heads on the synopsis' clip feature that say where the keys are and how far apart."""

    def __init__(self, width: int, config: KeyConfig, num_frames: int) -> None:
        super().__init__()
        self.last = num_frames - 1
        self.largest_stride = config.stride_frames
        self.centre = nn.Linear(width, config.count)
        # With hard sampling nothing would ever move the strides.
        self.stride = nn.Linear(width, config.count) if config.kernel == "gaussian" else None
        with torch.no_grad():
            places = (torch.arange(config.count) + 0.5) / config.count
            self.centre.weight.mul_(0.1)
            self.centre.bias.copy_(torch.atanh(2 * places - 1))

    def forward(self, clip_BD: Tensor) -> tuple[Tensor, Tensor | float]:
        """Centres [B, J] in (0, T - 1), and strides [B, J] up to the largest."""
        centres_BJ = (torch.tanh(self.centre(clip_BD)) + 1) * (self.last / 2)
        if self.stride is None:
            return centres_BJ, self.largest_stride
        return centres_BJ, self.largest_stride * torch.exp(-self.stride(clip_BD).abs())


def even_centres(num_frames: int, count: int) -> list[float]:
    """Middles of equal parts of the clip."""
    return [(2 * index + 1) / (2 * count) * num_frames - 0.5 for index in range(count)]


def gap_in_instances(config: KeyConfig, num_frames: int, num_instances: int) -> int:
    """``KeyConfig.min_gap_frames`` as a number of instances, at least 1."""
    distance = max(1.0, (num_frames - 1) / max(1, num_instances - 1))
    return max(1, math.ceil(config.min_gap_frames / distance))
