"""The network: features of every frame, their embedding for contrasts, what is read out of them.

Shape legend: B clips, T frames, C channels, H W pixels, N = B * T frames, D features, E embedding,
K classes, U action units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mien_models.clp.config import ClpConfig
from mien_models.clp.trunks import build_trunk
from mien_models.layers.merged_batch_norm import MergedBatchNorm2d
from mien_models.layers.pixel_input import PixelInput
from mien_models.layers.pretrained import load_trunk


class FrameEncoder(nn.Module):
    """Features of each frame, by itself."""

    def __init__(self, config: ClpConfig) -> None:
        super().__init__()
        self.trunk_name = config.trunk.name
        self.pixels = PixelInput(config.input_scale, border_px=config.border_px)
        self.trunk = build_trunk(config.trunk, config.image_size_px - 2 * config.border_px)
        self.num_features = int(self.trunk.num_features)  # type: ignore[arg-type]

    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Tensor:
        """uint8 [B, T, 3, H, W] to features [B, T, D]."""
        frames_BTCHW = self.pixels(video_BTCHW, has_face_BT)
        features_ND: Tensor = self.trunk(frames_BTCHW.flatten(0, 1))
        features_BTD: Tensor = features_ND.unflatten(0, (-1, frames_BTCHW.shape[1]))
        return features_BTD

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights under timm's names into the trunk; its own classifier is left out.

        Raises:
            WeightsMismatchError: lists what does not fit.
        """
        load_trunk(self.trunk, tensors, self.trunk_name)


class EmbeddingNetwork(nn.Module):
    """The encoder and, where there is one, the projector that only pretraining needs.

    Args:
        config: sizes.
    """

    def __init__(self, config: ClpConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config)
        self.embedding_dim = width = self.encoder.num_features
        self.projector: nn.Module | None = None
        if config.pretrain is not None and config.pretrain.projector:
            self.embedding_dim = config.pretrain.dim
            self.projector = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.embedding_dim)
            )

    def forward(self, video_BTCHW: Tensor, has_face_BT: Tensor) -> Tensor:
        """What the losses compare, [B, T, E]."""
        features_BTD: Tensor = self.encoder(video_BTCHW, has_face_BT)
        return features_BTD if self.projector is None else self.projector(features_BTD)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadoutOutput:
    """What is read out of a batch of clips."""

    class_logits_BK: Tensor
    unit_logits_BTU: Tensor | None
    intensity_BTU: Tensor | None
    """0 to 5."""
    clip_BD: Tensor
    """Mean features over the frames with a face."""


class Readout(nn.Module):
    """Batch norm over the features, then a linear map for each question: the linear probe.

    Units are read from each frame, classes from the mean over the frames with a face.

    Args:
        num_features: D.
        num_classes: K.
        num_units: U.
        with_intensity: whether intensities are read out too.
    """

    def __init__(
        self, num_features: int, *, num_classes: int, num_units: int, with_intensity: bool
    ) -> None:
        super().__init__()
        self.norm = MergedBatchNorm2d(num_features)
        self.classes = nn.Linear(num_features, num_classes)
        self.units = nn.Linear(num_features, num_units) if num_units else None
        self.intensity = nn.Linear(num_features, num_units) if with_intensity else None

    def forward(self, features_BTD: Tensor, has_face_BT: Tensor) -> ReadoutOutput:
        """Reads out of features [B, T, D]; frames without a face don't count for the clip."""
        num_frames = features_BTD.shape[1]
        normed_ND = self.norm(features_BTD.flatten(0, 1)[:, :, None, None]).flatten(1)
        normed_BTD = normed_ND.unflatten(0, (-1, num_frames))
        intensity_BTU = None
        if self.intensity is not None:
            intensity_BTU = 5.0 * self.intensity(normed_BTD).sigmoid()
        return ReadoutOutput(
            class_logits_BK=self.classes(mean_of_faces(normed_BTD, has_face_BT)),
            unit_logits_BTU=None if self.units is None else self.units(normed_BTD),
            intensity_BTU=intensity_BTU,
            clip_BD=mean_of_faces(features_BTD, has_face_BT),
        )


def mean_of_faces(values_BTD: Tensor, has_face_BT: Tensor) -> Tensor:
    """Mean over the frames with a face, [B, D]; 0 where there is none."""
    weight_BT = has_face_BT.to(values_BTD.dtype)
    weight_BT = weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (values_BTD * weight_BT[..., None]).sum(dim=1)
