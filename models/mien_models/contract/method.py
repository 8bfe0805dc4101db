"""A method: an ``nn.Module`` whose ``forward`` is the training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mien_models.contract.batch import ClipBatch, plain_batch
from mien_models.contract.stages import (
    EpochNotes,
    Progress,
    Range,
    Stage,
    StageReport,
    StepOutput,
)
from mien_models.contract.streams import StreamSpec


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a method says about a batch of clips."""

    logits_BK: Tensor
    features_BD: Tensor
    frame_features_BTD: Tensor | None = None
    """float32 [B, T, D]: features of the first view's frames, of methods that have them."""
    action_unit_logits_BTU: Tensor | None = None
    """float32 [B, T, U]: logits that a unit is present in a frame of the first view; the sigmoid
    is the probability. The columns are ``Method.action_units``."""
    action_unit_intensity_BTU: Tensor | None = None
    """float32 [B, T, U]: intensities in FACS steps, 0 to 5, where the method was asked for them."""


@dataclass(frozen=True, kw_only=True)
class PictureLayer:
    """The last layer of a network that still knows places in the picture; Grad-CAM reads it.

    ``layer`` gives [X, D, R, C] (features, rows, columns), or with ``token_grid`` [X, N, D] tokens.
    X are the looked-at frames of the first view, clip by clip.
    """

    layer: nn.Module
    token_grid: tuple[int, int] | None = None
    """Rows and columns of the patches among the tokens."""
    first_patch: int = 0
    """Number of the first patch among the tokens."""
    frames: Callable[[ClipBatch], Tensor] | None = None
    """int64 [B, S]: which of the view's frames the layer sees; None: every one."""
    border_px: int = 0
    """Of the pictures, cut off on every side before the network."""


@dataclass(frozen=True, kw_only=True)
class InnerWeights:
    """How a network itself weighed what it saw. Cheap to read, and no proof of a cause: what a
    decision rests on is told by :mod:`mien_models.explain`."""

    frame_share_BT: Tensor | None = None
    """[B, T]: of the first view's frames in the network's view of the clip; a row sums to 1."""
    attention_BTRC: Tensor | None = None
    """[B, T, R, C]: of the places in each frame; a frame's values sum to at most 1."""
    key_frames_BJ: Tensor | None = None
    """[B, J]: positions among the first view's frames that the network chose to look at."""
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    """[B] each: further readings by name, such as what passed a gate."""


Scan = Callable[[StreamSpec], Iterable[ClipBatch]]
"""Iterates this worker's share of a stream once, without augmentation or gradient."""


JsonState = dict[str, Any]


class Method(nn.Module, ABC):
    """A method: an ``nn.Module`` whose ``forward`` is the training step.

    State lives in parameters and buffers, or in :meth:`json_state` when it is keyed by clip id;
    both are in the checkpoint. Sub-classes take ``(config, classes)``.

    Attributes:
        classes: names of the classes in the order of the logits.
        action_units: names (``"AU12"``) of the units that ``predict`` tells of, in order; none for
            most methods.
        units_present_from: the coded intensity from which on training took a unit for present.
        action_unit_calibration: what the units' probabilities say of how often a unit is present,
            in words that users read.
        features_only: with these settings features are learnt and nothing is read out of them, so
            that logits mean nothing (pretraining alone).
    """

    classes: tuple[str, ...]
    action_units: tuple[str, ...] = ()
    units_present_from: float = 1.0
    action_unit_calibration: str = ""
    features_only: bool = False

    @abstractmethod
    def stage(self, index: int) -> Stage | None:
        """The stage with this index, asked for when it starts; None when there is none."""

    def begin_stage(self, index: int) -> None:
        """Changes the network before optimiser and DDP are built (a wider head)."""

    @abstractmethod
    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Forward pass and losses of the current stage."""

    def after_step(self) -> None:
        """Called after each optimiser step (EMA teachers, queues)."""

    def end_epoch(self, scan: Scan) -> EpochNotes | None:
        """Called on every worker after each epoch (thresholds, agreement); may use collectives."""
        return None

    def end_stage(self, scan: Scan) -> EpochNotes | None:
        """Called on every worker after a stage (exemplars); may use collectives."""
        return None

    def finish(self) -> None:
        """Called after the last stage, before the model is shipped: lets go what nobody needs who
        uses it."""

    @abstractmethod
    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits and features of a batch, in evaluation mode; first view only."""

    def picture_layer(self) -> PictureLayer | None:
        """Where :mod:`mien_models.explain` looks for what a prediction rests on; None: nowhere."""
        return None

    def inner_weights(self, batch: ClipBatch) -> InnerWeights:
        """What the network shows of its own weighing in evaluation mode; nothing for many."""
        return InnerWeights()

    @abstractmethod
    def prediction_stream(self) -> StreamSpec:
        """How a clip has to look for :meth:`predict`: size, frames, audio. Filters are ignored."""

    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts of the network that training takes as given: it needs weights for each of them."""
        return ()

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights that others trained, under the names they published, into a part.

        Raises:
            ValueError: there is no such part, or the weights don't fit (lists what doesn't).
        """
        raise ValueError(f"{type(self).__name__} takes no pretrained weights, got some for {part}")

    def part_tensors(self, part: str) -> Mapping[str, Tensor]:
        """A part's weights, as :meth:`load_pretrained` takes them, for trainings that start there.

        Raises:
            ValueError: there is no such part.
        """
        raise ValueError(f"{type(self).__name__} gives no part away, asked for {part!r}")

    @classmethod
    @abstractmethod
    def search_space(cls) -> Mapping[str, Range]:
        """Settings worth tuning, by dotted name inside the method's configuration."""

    def stage_reports(self) -> tuple[StageReport, ...]:
        """Of each stage that ended, for methods that learn classes one after another."""
        return ()

    def json_state(self) -> JsonState:
        """State that is not a tensor, as JSON values (keyed by clip id, never by position)."""
        return {}

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`; called before the stages are begun again."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no JSON state but got {sorted(state)}")


class TensorPredictor(nn.Module):
    """A method's prediction as a function of plain tensors, for export and serving.

    Inputs: ``video_BTCHW`` uint8, and for methods with audio ``audio_BFM`` float32,
    ``audio_frames_B`` int64 and ``has_audio_B`` bool. Output: ``logits_BK``.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(
        self,
        video_BTCHW: Tensor,
        audio_BFM: Tensor | None = None,
        audio_frames_B: Tensor | None = None,
        has_audio_B: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, K] of a batch of clips."""
        batch = plain_batch(video_BTCHW, audio_BFM, audio_frames_B, has_audio_B)
        return self.method.predict(batch).logits_BK


@torch.no_grad()
def effect_of(
    method: Method,
    batch: ClipBatch,
    without: Callable[[ClipBatch], ClipBatch],
    *,
    logits_BK: Tensor,
    class_B: Tensor,
) -> Tensor:
    """float32 [B]: by how much a class's log-probability falls when something is taken away.

    Args:
        method: In evaluation mode.
        batch: As it is.
        without: :func:`~mien_models.contract.without_audio` or its like.
        logits_BK: What the method predicts of the batch as it is.
        class_B: The class of each clip that is looked at.
    """
    fallen_BK = logits_BK.detach().float().log_softmax(dim=1) - method.predict(
        without(batch)
    ).logits_BK.float().log_softmax(dim=1)
    return fallen_BK.gather(1, class_B[:, None])[:, 0]
