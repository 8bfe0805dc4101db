"""The network: a trunk on every frame, the mean over a clip's faces, a linear classifier.

Shape legend: B clips, T frames, C channels, H W pixels, N = B * T frames, D features, K classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mien_models.dtm.config import DtmConfig, TrunkConfig
from mien_models.layers.merged_batch_norm import merge_batch_norms
from mien_models.layers.pixel_input import PixelInput
from mien_models.layers.pretrained import load_trunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the network says about a batch of clips."""

    logits_BK: Tensor
    features_BD: Tensor

    @property
    def probability_BK(self) -> Tensor:
        """float32 [B, K], rows sum to 1."""
        return self.logits_BK.float().softmax(dim=1)

    def rows(self, start: int, stop: int) -> Reading:
        """Clips ``start`` to ``stop`` (exclusive)."""
        return Reading(
            logits_BK=self.logits_BK[start:stop], features_BD=self.features_BD[start:stop]
        )


class ConvTrunk(nn.Module):
    """Convolutions with batch norm; every stage halves the side. [N, C, H, W] to [N, D]."""

    def __init__(self, config: TrunkConfig, in_channels: int) -> None:
        super().__init__()
        self.num_features = config.dim
        stages: list[nn.Module] = []
        channels = in_channels
        for width in config.widths:
            stages += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
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


class ExpressionNetwork(nn.Module):
    """Clips to logits and features.

    Args:
        config: sizes.
        num_classes: K.

    Raises:
        ValueError: timm has no model of the trunk's name.
    """

    def __init__(self, config: DtmConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        side = config.image_size_px - 2 * config.border_px
        channels = 3 if config.motion_gain is None else 6
        self.pixels = PixelInput(
            config.input_scale, border_px=config.border_px, motion_gain=config.motion_gain
        )
        self.trunk: nn.Module = (
            ConvTrunk(config.trunk, channels)
            if config.trunk.name == "conv"
            else _timm_trunk(config.trunk.name, side)
        )
        merge_batch_norms(self.trunk)
        num_features = int(self.trunk.num_features)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Reading:
        """Reads clips.

        Args:
            video_BTCHW: uint8 [B, T, 3, H, W].
            has_face_BT: bool [B, T]; frames without a face don't count.
        """
        frames_BTCHW = self.pixels(video_BTCHW, has_face_BT)
        num_frames = frames_BTCHW.shape[1]
        features_BTD = self.trunk(frames_BTCHW.flatten(0, 1)).unflatten(0, (-1, num_frames))
        features_BD = _mean_of_faces(features_BTD, has_face_BT)
        logits_BK = self.classifier(self.dropout(features_BD))
        return Reading(logits_BK=logits_BK, features_BD=features_BD)

    def load_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights under timm's names into the trunk; its own classifier is left out.

        Raises:
            WeightsMismatchError: lists what does not fit.
        """
        load_trunk(self.trunk, tensors, self.config.trunk.name)


def _mean_of_faces(values_BT: Tensor, has_face_BT: Tensor) -> Tensor:
    """Mean over the frames with a face, of any values [B, T, ...]; 0 where there is none."""
    weight_BT = has_face_BT.to(values_BT.dtype)
    weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (values_BT * weight_BT.reshape(*weight_BT.shape, *[1] * (values_BT.ndim - 2))).sum(dim=1)


def _timm_trunk(name: str, side_px: int) -> nn.Module:
    # Imported late: timm's registry takes seconds, and listing methods does not need it.
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ", such as resnet50"
        raise ValueError(f"trunk.name={name!r} is neither `conv` nor a model of timm{hint}")
    # Vision transformers are built for one size; convolutions take any.
    is_fixed = timm.get_pretrained_cfg(name).fixed_input_size
    options = {"img_size": side_px} if is_fixed else {}
    trunk: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return trunk
