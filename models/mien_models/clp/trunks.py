"""Networks that make features of a picture without looking at the other pictures of a batch.

Shape legend: N pictures, C channels, H W pixels, D features.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from mien_models.clp.config import TrunkConfig
from mien_models.layers.face_trunk import ConvTrunk, timm_trunk

_GROUPS = 8
"""Groups of our own group norms; a timm model's batch norms get 32, as usual."""


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that always uses the statistics that it was given."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stays in evaluation mode, whatever is asked."""
        super().train(False)
        return self


def build_trunk(config: TrunkConfig, side_px: int) -> nn.Module:
    """A network with ``num_features`` whose batch norms are out of the way.

    Args:
        config: which one.
        side_px: of the pictures.

    Raises:
        ValueError: timm has no model of that name, or one with batch norms that can't be replaced.
    """
    if config.name == "conv":
        return ConvTrunk(
            3,
            widths=config.widths,
            grid=config.grid,
            dim=config.dim,
            norm=partial(_group_norm, groups=_GROUPS),
            last=nn.LayerNorm(config.dim) if config.last == "layer_norm" else None,
        )
    trunk = timm_trunk(config.name, side_px)
    _replace_batch_norms(trunk, config)
    return trunk


def _replace_batch_norms(network: nn.Module, config: TrunkConfig) -> None:
    for name, child in network.named_children():
        if not isinstance(child, nn.modules.batchnorm._BatchNorm):
            _replace_batch_norms(child, config)
        elif type(child) is not nn.BatchNorm2d:
            raise ValueError(
                f"trunk.name={config.name!r} has batch norms ({type(child).__name__}) that can't "
                "be kept from reading a batch's statistics; use resnet18, resnet50_gn, "
                "convnext_tiny or a vision transformer"
            )
        elif config.batch_norms == "group":
            setattr(network, name, _group_norm(child.num_features, 32))
        else:
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(network, name, frozen)


def _group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """A group norm with the largest number of groups up to ``groups`` that divides."""
    fitting = next(number for number in range(groups, 0, -1) if channels % number == 0)
    return nn.GroupNorm(fitting, channels)
