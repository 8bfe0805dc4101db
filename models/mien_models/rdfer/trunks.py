"""Short-term movement: a picture network whose frames see their neighbours (temporal shift).

Shape legend: N pictures (clips times frames), C channels, H W pixels, U frames of a segment.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.layers.merged_batch_norm import MergedBatchNorm2d, merge_batch_norms
from mien_models.rdfer.config import TrunkConfig


def shift_in_time(maps_NCHW: Tensor, segment: int, share: float) -> Tensor:
    """Swaps some channels with the neighbouring frames (TSM, Lin et al. 2019).

    The first ``share`` of the channels come from the frame after, the next ``share`` from the frame
    before, zeros at the ends of a segment; the others stay.

    Args:
        maps_NCHW: N is a multiple of ``segment``, whose frames follow each other.
        segment: frames of a group, U.
        share: of the channels, each way.
    """
    maps_NUCHW = maps_NCHW.unflatten(0, (-1, segment))
    moved = int(maps_NCHW.shape[1] * share)
    from_after, from_before, still = maps_NUCHW.tensor_split([moved, 2 * moved], dim=2)
    from_after = F.pad(from_after[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    from_before = F.pad(from_before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([from_after, from_before, still], dim=2).flatten(0, 1)


class ShiftBefore:
    """Forward hook that shifts a convolution's input in time; it has no weights of its own."""

    def __init__(self, segment: int, share: float) -> None:
        self.segment, self.share = segment, share

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Called by torch before the convolution."""
        return (shift_in_time(inputs[0], self.segment, self.share), *inputs[1:])


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; halves the picture."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = MergedBatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = MergedBatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride=2)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H / 2, W / 2]."""
        inner = F.relu(self.bn1(self.conv1(maps_NCHW)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps_NCHW))


class ConvTrunk(nn.Sequential):
    """Residual blocks, one a width; for small pictures and laptops."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        pairs = zip((channels, *widths[:-1]), widths, strict=True)
        super().__init__(*(ResidualBlock(before, after) for before, after in pairs))
        self.num_features = widths[-1]

    def forward_features(self, pictures_NCHW: Tensor) -> Tensor:
        """The last map, as timm's networks name it."""
        return self(pictures_NCHW)  # type: ignore[no-any-return]


def build_trunk(config: TrunkConfig, channels: int, segment: int) -> nn.Module:
    """A picture network with shifts in its residual branches.

    Args:
        config: which network, and how much is shifted.
        channels: of the pictures.
        segment: frames that follow each other; the shift stops at the borders of these groups.

    Returns:
        A module with ``forward_features`` ([N, C, H, W] to its last map) and ``num_features``.

    Raises:
        ValueError: no such network, or one without residual blocks to shift in.
    """
    if config.name == "conv":
        trunk: nn.Module = ConvTrunk(channels, config.widths)
    else:
        if not timm.is_model(config.name):
            near = ", ".join(timm.list_models(f"*{config.name}*")[:5]) or "resnet18, resnet50"
            raise ValueError(f"trunk.name={config.name!r} is no network of timm; try {near}")
        trunk = timm.create_model(config.name, num_classes=0, in_chans=channels)
        merge_batch_norms(trunk)
        _refuse_unmerged_norms(trunk, config.name)
    if config.shift_share > 0 and segment > 1:
        _shift_residual_branches(trunk, config, segment)
    return trunk


def _refuse_unmerged_norms(trunk: nn.Module, name: str) -> None:
    for module in trunk.modules():
        is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_batch_norm and not isinstance(module, MergedBatchNorm2d):
            raise ValueError(
                f"trunk.name={name!r} has batch norms ({type(module).__name__}) whose statistics "
                "would differ between workers; use a plain residual network (resnet18, resnet50)"
            )


def _shift_residual_branches(trunk: nn.Module, config: TrunkConfig, segment: int) -> None:
    blocks = [block for name, block in trunk.named_modules() if name and hasattr(block, "conv1")]
    if not blocks:
        raise ValueError(
            f"trunk.name={config.name!r} has no residual blocks to shift in time; use "
            "trunk.shift_share=0 or a residual network (resnet18, resnet50)"
        )
    for block in blocks:
        block.conv1.register_forward_pre_hook(ShiftBefore(segment, config.shift_share))
