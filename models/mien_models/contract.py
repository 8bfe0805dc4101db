"""What a method is: data needs and maths.

A method sees batches and ``torch.distributed`` collectives, nothing else: no optimiser, no device
code, no files. The loop in ``mien.train.loop`` asks it for stages, streams what they name, wraps
the module once per stage in DDP and calls it, so that every gradient goes through the wrapper::

    for index in count():
        stage = method.stage(index)              # None: done
        method.begin_stage(index)                # may change the network (a wider head)
        ... optimiser and DDP are built here ...
        for epoch in range(stage.epochs):
            for batches in streams:
                output = method(batches, progress)      # forward and losses
                ... backward, step ...
                method.after_step()                     # teachers, queues
            method.end_epoch(scan)                      # thresholds, agreement
        method.end_stage(scan)                          # exemplars

``docs/contract.md`` writes the five methods' stages and streams down against this contract.

Shape suffixes used here and in the methods: B clips of a batch, V views, T video frames, C colour
channels, H W pixels, F audio frames, M mel bands, K classes, U action units, D features, N tokens.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

UNLABELLED = -1
"""The value of ``ClipBatch.label_B`` where a clip has no label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSpec:
    """The log-mel spectrogram that a method wants of each clip: ``[num_frames, num_mels]``.

    Kaldi filter bank of the clip's sound at 16 kHz, one channel. Shorter sound is padded at the
    end with zeros *after* normalisation and the padding is marked by ``ClipBatch.audio_frames_B``.
    """

    num_frames: int = 512
    """Frames of ``hop_ms`` each."""
    span: Literal["start", "whole"] = "start"
    """``start``: later sound is cut. ``whole``: sound that is longer is looked at in larger steps,
    so that all of it is there."""
    num_mels: int = 128
    hop_ms: float = 10.0
    mean: float = -4.2677393
    """Subtracted from the log energies (AudioSet's mean, as published with AudioMAE)."""
    std: float = 4.5689974
    """Log energies are divided by twice this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random changes to one view, drawn once a clip, the same for all its frames."""

    min_crop_area: float = 1.0
    """Random resized crop keeps at least this share of the picture; 1 switches it off."""
    flip_probability: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    rotation_deg: float = 0.0
    rand_augment_ops: int = 0
    rand_augment_magnitude: int = 5
    frame_shift: float = 0.0
    """Independent shift of every frame, as a share of the side, against crop-jitter shortcuts."""
    audio_gain_db: float = 0.0
    """Random gain of the sound, uniform in +- this many decibels."""
    spec_time_mask: int = 0
    """SpecAugment: longest masked run of audio frames."""
    spec_freq_mask: int = 0
    """SpecAugment: widest masked band, in mels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSpec:
    """One look at a clip: which frames, and how they are changed."""

    num_frames: int = 16
    sampling: Literal["segments", "random_segments", "paper_train", "window"] = "segments"
    """``segments``: centre of each of ``num_frames`` equal parts of the clip (deterministic).
    ``random_segments``: a random frame of each part. ``paper_train``: MMA-DFER's published rule,
    which never sees the tail. ``window``: ``num_frames`` frames ``stride_frames`` apart from a
    random start."""
    stride_frames: int = 1
    same_frames_as: int | None = None
    """Index of an earlier view whose frames this one shows again (with its own augmentation)."""
    augmentation: Augmentation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamSpec:
    """Which clips a method wants, in what order, and how they look when they arrive."""

    split: Literal["train", "val", "test", "all"] = "train"
    labelled: bool | None = True
    """True: only clips with a label; False: only clips without; None: all."""
    labels: tuple[str, ...] | None = None
    """Only clips of these classes (names)."""
    clip_ids: tuple[str, ...] | None = None
    """Only these clips (replay exemplars); the other filters still hold."""
    sampler: Literal["plain", "class_uniform"] = "plain"
    """``plain``: a permutation an epoch. ``class_uniform``: a class uniformly, then a clip."""
    subject_cap: int | None = None
    """At most this many clips of one subject an epoch."""
    clips_per_source: int = 1
    """So many clips of one source (column ``source``: a film, a recording) stand side by side in a
    batch, on the same worker."""
    batch_size: int = 8
    """Clips of one optimiser step over *all* workers."""
    views: tuple[ViewSpec, ...] = (ViewSpec(),)
    image_size_px: int = 224
    align_faces: bool = True
    """Aligned face crops (YuNet, five points); False: the whole picture, resized."""
    audio: AudioSpec | None = None
    action_units: tuple[str, ...] = ()
    """Units (``"AU12"``) whose intensities are wanted at the first view's frames."""

    def __post_init__(self) -> None:
        for index, view in enumerate(self.views):
            other = view.same_frames_as
            if other is not None and not 0 <= other < index:
                raise ValueError(f"views[{index}].same_frames_as={other} must name an earlier view")
        if self.batch_size < 1 or self.image_size_px < 1 or not self.views:
            raise ValueError("a stream needs batch_size >= 1, image_size_px >= 1 and a view")
        self._check_clips_per_source()

    def _check_clips_per_source(self) -> None:
        number = self.clips_per_source
        if number < 1 or self.batch_size % number:
            raise ValueError(
                f"clips_per_source={number} must be at least 1 and divide "
                f"batch_size={self.batch_size}"
            )
        if number > 1 and (self.sampler != "plain" or self.subject_cap is not None):
            raise ValueError(
                f"clips_per_source={number} goes with sampler='plain' and without subject_cap"
            )

    def for_prediction(self, split: Literal["train", "val", "test", "all"]) -> StreamSpec:
        """The same clips looked at plainly: one deterministic view, no augmentation, each once."""
        view = dataclasses.replace(
            self.views[0], sampling="segments", same_frames_as=None, augmentation=None
        )
        return dataclasses.replace(
            self, split=split, views=(view,), sampler="plain", subject_cap=None, clips_per_source=1
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """The frames of one view of a batch of clips."""

    video_BTCHW: Tensor
    """uint8 [B, T, 3, H, W], RGB."""
    frame_times_BT: Tensor
    """float32 [B, T], seconds from the start of the clip."""
    has_face_BT: Tensor
    """bool [B, T]: a face was found in this frame (always True when faces aren't looked for)."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """A batch of clips on the device. Rows of all tensors belong to ``clip_ids``, in order."""

    clip_ids: tuple[str, ...]
    views: tuple[View, ...]
    audio_BFM: Tensor | None
    """float32 [B, F, M] normalised log-mel; None when the stream asks for no audio. Rows of clips
    without sound are zero and marked by ``has_audio_B``."""
    audio_frames_B: Tensor
    """int64 [B]: audio frames before the padding."""
    has_audio_B: Tensor
    """bool [B]: False where the clip has no sound track."""
    label_B: Tensor
    """int64 [B]: index into the label set, ``UNLABELLED`` where there is none."""
    soft_label_BK: Tensor
    """float32 [B, K]: the label distribution; one-hot where only a label is given, zero rows where
    nothing is."""
    subject_B: Tensor
    """int64 [B]: the same number for the same person, -1 where unknown."""
    seed_B: Tensor
    """int64 [B]: hash(run seed, epoch, clip id): randomness that belongs to a clip and does not
    depend on the number of workers."""
    action_units_BTU: Tensor | None = None
    """float32 [B, T, U]: intensities of the first view's frames, NaN where not coded."""

    @property
    def video_BTCHW(self) -> Tensor:
        """The first view's frames, uint8 [B, T, 3, H, W]."""
        return self.views[0].video_BTCHW

    def __len__(self) -> int:
        # Not the number of ids: torch.export would take that for a constant.
        return self.views[0].video_BTCHW.shape[0]

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        """A batch with ``function`` applied to every tensor."""
        return _map_tensors(self, function)  # type: ignore[no-any-return]

    def to(self, device: torch.device, *, non_blocking: bool = True) -> ClipBatch:
        """The batch on another device."""
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def rows(self, start: int, stop: int) -> ClipBatch:
        """Clips ``start`` to ``stop`` (exclusive) as a batch of their own."""
        part = self.map_tensors(lambda tensor: tensor[start:stop])
        return dataclasses.replace(part, clip_ids=self.clip_ids[start:stop])


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and value and isinstance(value[0], View):
        return tuple(_map_tensors(view, function) for view in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            item.name: _map_tensors(getattr(value, item.name), function)
            for item in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimPlan:
    """How the trainable parameters of a stage are updated."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-4
    """Highest learning rate, reached after the warm-up."""
    min_lr: float = 0.0
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas; the first is SGD's momentum."""
    schedule: Literal["cosine", "epoch_cosine", "constant"] = "cosine"
    """``cosine``: every step, after the warm-up. ``epoch_cosine``: constant within an epoch."""
    warmup_fraction: float = 0.0
    """Share of the stage's steps over which the learning rate rises linearly from 0."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; None switches clipping off."""
    accumulate: int = 1
    """Micro-batches that a worker's share of a batch is cut into."""
    ema_decay: float | None = None
    """Decay of the averaged weights that are evaluated and shipped; None: the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One part of a training: its streams, length, optimiser and what is trainable."""

    name: str
    streams: Mapping[str, StreamSpec]
    """The batches that ``forward`` gets, by name. The first one's length is the epoch's."""
    epochs: int
    optim: OptimPlan = field(default_factory=OptimPlan)
    trainable: tuple[str, ...] = ("*",)
    """Shell patterns over parameter names; every pattern must match something."""
    no_decay: tuple[str, ...] = ()
    """Shell patterns of trainable parameters without weight decay."""
    steps_per_epoch: int | None = None
    """A fixed number instead of one pass over the first stream."""
    evaluate: bool = True
    """Whether ``predict`` makes sense after each epoch (not while an encoder is pretrained)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a step lies in its stage."""

    stage: int
    epoch: int
    step: int
    """Optimiser steps done in this stage."""
    total_steps: int

    @property
    def fraction(self) -> float:
        """Share of the stage done, in [0, 1)."""
        return self.step / max(1, self.total_steps)


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What one forward pass gives the loop."""

    loss: Tensor
    """Scalar, a mean over the clips of this worker's share."""
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars for the curves, detached; the loop averages them over workers."""


@dataclass(frozen=True, kw_only=True)
class EpochNotes:
    """What a method has to say of an epoch that ended; of all workers' clips, on every worker."""

    logs: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the curves."""
    warnings: tuple[str, ...] = ()
    """Lines for whoever watches the run."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a method says about a batch of clips."""

    logits_BK: Tensor
    features_BD: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What is worth trying for one setting."""

    kind: Literal["uniform", "log_uniform", "int", "choice"]
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()


Scan = Callable[[StreamSpec], Iterable[ClipBatch]]
"""Iterates this worker's share of a stream once, without augmentation or gradient."""

JsonState = dict[str, Any]


class Method(nn.Module, ABC):
    """A method: an ``nn.Module`` whose ``forward`` is the training step.

    State lives in parameters and buffers, or in :meth:`json_state` when it is keyed by clip id;
    both are in the checkpoint. Sub-classes take ``(config, classes)``.

    Attributes:
        classes: names of the classes in the order of the logits.
    """

    classes: tuple[str, ...]

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

    def end_stage(self, scan: Scan) -> None:
        """Called on every worker after a stage (exemplars)."""

    @abstractmethod
    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits and features of a batch, in evaluation mode; first view only."""

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

    @classmethod
    @abstractmethod
    def search_space(cls) -> Mapping[str, Range]:
        """Settings worth tuning, by dotted name inside the method's configuration."""

    def json_state(self) -> JsonState:
        """State that is not a tensor, as JSON values (keyed by clip id, never by position)."""
        return {}

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`; called before the stages are begun again."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no JSON state but got {sorted(state)}")


def without_audio(batch: ClipBatch) -> ClipBatch:
    """The batch as if no clip had sound."""
    audio = None if batch.audio_BFM is None else torch.zeros_like(batch.audio_BFM)
    return dataclasses.replace(
        batch,
        audio_BFM=audio,
        audio_frames_B=torch.zeros_like(batch.audio_frames_B),
        has_audio_B=torch.zeros_like(batch.has_audio_B),
    )


def without_video(batch: ClipBatch) -> ClipBatch:
    """The batch as if no frame showed a face."""
    view = batch.views[0]
    blank = dataclasses.replace(
        view,
        video_BTCHW=torch.zeros_like(view.video_BTCHW),
        has_face_BT=torch.zeros_like(view.has_face_BT),
    )
    return dataclasses.replace(batch, views=(blank, *batch.views[1:]))


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


def plain_batch(
    video_BTCHW: Tensor,
    audio_BFM: Tensor | None = None,
    audio_frames_B: Tensor | None = None,
    has_audio_B: Tensor | None = None,
    *,
    clip_ids: Sequence[str] | None = None,
) -> ClipBatch:
    """An unlabelled batch of one view from plain tensors (without audio: marked as missing).

    The clips have no names unless ``clip_ids`` gives them.
    """
    size, frames = video_BTCHW.shape[:2]
    device = video_BTCHW.device
    ones = torch.ones(size, dtype=torch.int64, device=device)
    absent = torch.zeros(size, dtype=torch.bool, device=device)
    if has_audio_B is None:
        has_audio_B = absent if audio_BFM is None else ~absent
    if audio_frames_B is None:
        audio_frames_B = ones * (0 if audio_BFM is None else audio_BFM.shape[1])
    view = View(
        video_BTCHW=video_BTCHW,
        frame_times_BT=torch.zeros(size, frames, device=device),
        has_face_BT=torch.ones(size, frames, dtype=torch.bool, device=device),
    )
    return ClipBatch(
        clip_ids=tuple(clip_ids or ()),
        views=(view,),
        audio_BFM=audio_BFM,
        audio_frames_B=audio_frames_B,
        has_audio_B=has_audio_B,
        label_B=-ones,
        soft_label_BK=torch.zeros(size, 0, device=device),
        subject_B=-ones,
        seed_B=0 * ones,
    )
