"""One clip reference to the arrays of one row of a batch: prepare, augment, log-mel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.media.audio import fit_length, hop_of_whole_ms, log_mel
from mien.media.sampling import uniform_segments, uniform_segments_paper
from mien.seeds import derive_seed
from mien.stream.augment import augment_audio, augment_video
from mien.stream.batches import Row
from mien.stream.plan import DEFAULT, LoadPlan
from mien.stream.prepare import PreparedClip
from mien_models.contract import UNLABELLED, StreamSpec, ViewSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRequest:
    """One clip as a stream wants it."""

    ref: ClipRef
    spec: StreamSpec
    label_set: LabelSet
    subject: int
    seed: int
    """hash(run seed, epoch, clip id)."""
    action_units: Mapping[str, Sequence[float]] | None = None
    """Intensities of each frame of the clip, by unit."""
    true_label: int = UNLABELLED
    """Index of what the manifest's column ``true_label`` knows."""
    plan: LoadPlan = DEFAULT


def load_clip(request: ClipRequest) -> Row:
    """Makes the row of a batch from a clip, decoded here or read from the plan's cache.

    Raises:
        ClipError: the clip cannot be decoded; says why.
        LabelError: its label is not in the label set.
    """
    chosen: list[npt.NDArray[np.int64]] = []

    def choose_frames(num_frames: int) -> Sequence[int]:
        chosen[:] = choose_views(request.spec.views, num_frames, request.seed)
        wanted: list[int] = np.unique(np.concatenate(chosen)).tolist()
        return wanted

    clip = request.plan.prepare(request.ref, request.spec, choose_frames)
    row = _labels(request)
    row |= _views(request, clip, chosen)
    row |= _audio(request, clip)
    if request.spec.action_units:
        row["action_units"] = _action_units(request, chosen[0], clip.num_frames)
    if request.spec.with_true_label:
        row["true_label"] = request.true_label
    return row


def choose_views(
    views: Sequence[ViewSpec], num_source: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Frame numbers of each view, non-decreasing, for a clip of ``num_source`` frames."""
    chosen: list[npt.NDArray[np.int64]] = []
    for index, view in enumerate(views):
        if view.same_frames_as is not None:
            chosen.append(chosen[view.same_frames_as])
            continue
        rng = np.random.Generator(np.random.Philox(derive_seed(seed, "frames", index)))
        if view.sampling == "segments":
            frames = uniform_segments(num_source, view.num_frames)
        elif view.sampling == "random_segments":
            frames = uniform_segments(num_source, view.num_frames, rng)
        elif view.sampling == "paper_train":
            frames = uniform_segments_paper(num_source, view.num_frames, rng)
        else:
            frames = _window(num_source, view, rng)
        chosen.append(np.asarray(frames, dtype=np.int64))
    return chosen


def _window(num_source: int, view: ViewSpec, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Frames a fixed stride apart from a random start; the last one repeats in short clips."""
    length = (view.num_frames - 1) * view.stride_frames + 1
    start = int(rng.integers(max(1, num_source - length + 1)))
    frames = start + view.stride_frames * np.arange(view.num_frames)
    return np.minimum(frames, num_source - 1)


def _labels(request: ClipRequest) -> Row:
    ref, classes = request.ref, request.label_set
    soft = np.zeros(len(classes), dtype=np.float32)
    label = UNLABELLED if ref.label is None else classes.index(ref.label)
    if ref.soft_label:
        for name, share in ref.soft_label.items():
            soft[classes.index(name)] = share
    elif label != UNLABELLED:
        soft[label] = 1.0
    return {
        "clip_id": ref.clip_id,
        "label": label,
        "soft_label": soft,
        "subject": request.subject,
        "seed": request.seed,
    }


def _views(
    request: ClipRequest, clip: PreparedClip, chosen: Sequence[npt.NDArray[np.int64]]
) -> Row:
    video_NCHW = torch.from_numpy(clip.frames_NSSC).permute(0, 3, 1, 2)
    row: Row = {}
    for index, (view, frames) in enumerate(zip(request.spec.views, chosen, strict=True)):
        rows = np.searchsorted(clip.frame_numbers_N, frames)
        video_TCHW = video_NCHW[torch.from_numpy(rows)]
        if view.augmentation is not None:
            seed = derive_seed(request.seed, "video", index)
            video_TCHW = augment_video(video_TCHW, view.augmentation, seed=seed)
        row[f"view{index}/video"] = video_TCHW.numpy()
        row[f"view{index}/times"] = clip.frame_times_N[rows].astype(np.float32)
        row[f"view{index}/has_face"] = clip.has_face_N[rows]
    return row


def _audio(request: ClipRequest, clip: PreparedClip) -> Row:
    audio = request.spec.audio
    if audio is None:
        return {"audio_frames": 0, "has_audio": False}
    if clip.audio is None:
        silence = np.zeros((audio.num_frames, audio.num_mels), dtype=np.float32)
        return {"audio": silence, "audio_frames": 0, "has_audio": False}
    hop_ms = audio.hop_ms
    if audio.span == "whole":
        hop_ms = hop_of_whole_ms(
            len(clip.audio), audio.num_frames, sample_rate_hz=clip.audio_rate_hz, hop_ms=hop_ms
        )
    features = log_mel(
        clip.audio, sample_rate_hz=clip.audio_rate_hz, num_mels=audio.num_mels, hop_ms=hop_ms
    )
    log_mel_FM, valid = fit_length(features, audio.num_frames, mean=audio.mean, std=audio.std)
    augmentation = request.spec.views[0].augmentation
    if augmentation is not None:
        seed = derive_seed(request.seed, "audio")
        log_mel_FM = augment_audio(log_mel_FM, valid, augmentation, audio, seed=seed)
    return {"audio": log_mel_FM.numpy(), "audio_frames": valid, "has_audio": True}


def _action_units(
    request: ClipRequest, frames: npt.NDArray[np.int64], num_source: int
) -> npt.NDArray[np.float32]:
    """Intensities [T, U] at the chosen frames; NaN for units that were not coded."""
    units = request.spec.action_units
    result = np.full((len(frames), len(units)), np.nan, dtype=np.float32)
    for column, unit in enumerate(units):
        values = (request.action_units or {}).get(unit)
        if values is None:
            continue
        curve = np.asarray(values, dtype=np.float32)
        positions = np.minimum(frames * len(curve) // max(1, num_source), len(curve) - 1)
        result[:, column] = curve[positions]
    return result
