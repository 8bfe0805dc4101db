"""Networks that make features of a picture without looking at the other pictures of a batch.

Shape legend: N pictures, C channels, H W pixels, D features.
"""

from __future__ import annotations

import difflib

from torch import Tensor, nn

from mien_models.clp.config import TrunkConfig

_GROUPS = 8
"""Groups of our own group norms; a timm model's batch norms get 32, as usual."""


class ConvTrunk(nn.Module):
    """Convolutions with group norm; every stage halves the side. [N, 3, H, W] to [N, D]."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.num_features = config.dim
        stages: list[nn.Module] = []
        channels = 3
        for width in config.widths:
            stages += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                _group_norm(width, _GROUPS),
                nn.ReLU(),
            ]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.places = nn.AdaptiveAvgPool2d(config.grid)
        self.project = nn.Linear(channels * config.grid**2, config.dim)

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Features [N, D]."""
        features_ND: Tensor = self.project(self.places(self.stages(frames_NCHW)).flatten(1)).relu()
        return features_ND


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
        return ConvTrunk(config)
    # Imported late: timm's registry takes seconds, and listing methods does not need it.
    import timm

    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ", such as resnet18"
        raise ValueError(f"trunk.name={config.name!r} is neither `conv` nor a model of timm{hint}")
    # Vision transformers are built for one size; convolutions take any.
    is_fixed = timm.get_pretrained_cfg(config.name).fixed_input_size
    options = {"img_size": side_px} if is_fixed else {}
    trunk: nn.Module = timm.create_model(config.name, pretrained=False, num_classes=0, **options)
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
