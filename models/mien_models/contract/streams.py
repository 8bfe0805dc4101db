"""What a method wants of its clips: which ones, in what order, and how they look.

Sizes are in pixels, frames and mel bands; shape suffixes as in :mod:`mien_models.contract`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSpec:
    """The log-mel spectrogram that a method wants of each clip: ``[num_frames, num_mels]``.

    Kaldi filter bank of the clip's sound, one channel. Shorter sound is padded at the
    end with zeros *after* normalisation and the padding is marked by ``ClipBatch.audio_frames_B``.
    """

    num_frames: int = 512
    """Frames of ``hop_ms`` each."""
    span: Literal["start", "whole"] = "start"
    """``start``: later sound is cut. ``whole``: sound that is longer is looked at in larger steps,
    so that all of it is there."""
    sound: Literal["mono_16k", "native"] = "mono_16k"
    """``mono_16k``: the mean of the channels at 16 kHz. ``native``: the first channel at the
    recording's own rate, as MMA-DFER is published; mel bands reach up to half that rate, so they
    mean other frequencies in other recordings."""
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
    hue: float = 0.0
    """Of the colour circle, up to 0.5."""
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
    coded: bool = False
    """Only clips with coded action units."""
    clip_ids: tuple[str, ...] | None = None
    """Only these clips (replay exemplars); the other filters still hold."""
    clip_share: float = 1.0
    """Only so large a share of what passes the other filters (at least one clip), chosen by a hash
    of the clip id: a smaller share is part of a larger one."""
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
    picture_order: Literal["natural", "text"] = "natural"
    """Of clips that are folders of pictures. ``text``: names compared as text (``frame10`` before
    ``frame2``), as the released MMA-DFER reads MAFW."""
    image_size_px: int = 224
    align_faces: bool = True
    """Aligned face crops (YuNet, five points); False: the whole picture, resized."""
    audio: AudioSpec | None = None
    action_units: tuple[str, ...] = ()
    """Units (``"AU12"``) whose intensities are wanted at the first view's frames."""
    with_true_label: bool = False
    """Whether ``ClipBatch.true_label_B`` is wanted (the manifest's column ``true_label``)."""

    def __post_init__(self) -> None:
        for index, view in enumerate(self.views):
            other = view.same_frames_as
            if other is not None and not 0 <= other < index:
                raise ValueError(f"views[{index}].same_frames_as={other} must name an earlier view")
        if self.batch_size < 1 or self.image_size_px < 1 or not self.views:
            raise ValueError("a stream needs batch_size >= 1, image_size_px >= 1 and a view")
        if not 0.0 < self.clip_share <= 1.0:
            raise ValueError(f"clip_share={self.clip_share} must lie in (0, 1]")
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
