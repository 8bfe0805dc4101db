"""The network: a trunk on every frame, the mean over a clip's faces, a linear classifier.

Shape legend: B clips, T frames, C channels, H W pixels, N = B * T frames, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mien_models.dtm.config import DtmConfig
from mien_models.layers.face_trunk import ConvTrunk, mean_of_faces, timm_trunk
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
            ConvTrunk(
                channels,
                widths=config.trunk.widths,
                grid=config.trunk.grid,
                dim=config.trunk.dim,
            )
            if config.trunk.name == "conv"
            else timm_trunk(config.trunk.name, side)
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
        features_BD = mean_of_faces(features_BTD, has_face_BT)
        logits_BK = self.classifier(self.dropout(features_BD))
        return Reading(logits_BK=logits_BK, features_BD=features_BD)

    def load_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights under timm's names into the trunk; its own classifier is left out.

        Raises:
            WeightsMismatchError: lists what does not fit.
        """
        load_trunk(self.trunk, tensors, self.config.trunk.name)
