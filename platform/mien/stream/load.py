"""One clip reference to the arrays of one row of a batch: decode, align, augment, log-mel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.media.audio import fit_length, log_mel
from mien.media.decode import DecodedClip, decode_clip
from mien.media.faces import FaceDetector, align_clip
from mien.media.sampling import uniform_segments, uniform_segments_paper
from mien.seeds import derive_seed
from mien.stream.augment import augment_audio, augment_video
from mien.stream.batches import Row
from mien.stream.plan import DEFAULT, LoadPlan
from mien_models.contract import UNLABELLED, StreamSpec, ViewSpec

SAMPLE_RATE_HZ = 16_000


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
    plan: LoadPlan = DEFAULT


def load_clip(request: ClipRequest) -> Row:
    """Decodes a clip and makes the row of a batch from it.

    Raises:
        ClipError: the clip cannot be decoded; says why.
        LabelError: its label is not in the label set.
    """
    chosen: list[npt.NDArray[np.int64]] = []

    def choose_frames(num_source: int) -> Sequence[int]:
        chosen[:] = choose_views(request.spec.views, num_source, request.seed)
        wanted: list[int] = np.unique(np.concatenate(chosen)).tolist()
        return wanted

    clip = decode_clip(
        request.ref.uri,
        choose_frames=choose_frames,
        start_s=request.ref.start_s,
        end_s=request.ref.end_s,
        audio_uri=request.ref.audio_uri,
        with_audio=request.spec.audio is not None,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )
    row = _labels(request)
    row |= _views(request, clip, chosen)
    row |= _audio(request, clip)
    if request.spec.action_units:
        row["action_units"] = _action_units(request, chosen[0], clip.num_source_frames)
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


def _views(request: ClipRequest, clip: DecodedClip, chosen: Sequence[npt.NDArray[np.int64]]) -> Row:
    video_NCHW, has_face_N = _crops(clip.frames_THWC, request)
    row: Row = {}
    for index, (view, frames) in enumerate(zip(request.spec.views, chosen, strict=True)):
        rows = np.searchsorted(clip.frame_indices, frames)
        video_TCHW = video_NCHW[torch.from_numpy(rows)]
        if view.augmentation is not None:
            seed = derive_seed(request.seed, "video", index)
            video_TCHW = augment_video(video_TCHW, view.augmentation, seed=seed)
        row[f"view{index}/video"] = video_TCHW.numpy()
        row[f"view{index}/times"] = clip.frame_times_s[rows].astype(np.float32)
        row[f"view{index}/has_face"] = has_face_N[rows]
    return row


def _crops(
    frames_NHWC: npt.NDArray[np.uint8], request: ClipRequest
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Decoded frames at the stream's size, and where a face was found."""
    size = request.spec.image_size_px
    if request.spec.align_faces:
        aligned = align_clip(
            frames_NHWC,
            size_px=size,
            detector=face_detector(),
            rule=request.plan.face_rule,
            given_box=request.ref.face_box,
        )
        return torch.from_numpy(aligned.crops_TSSC).permute(0, 3, 1, 2), aligned.has_face_T
    frames_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2)
    resized = functional.resize(frames_NCHW, [size, size], antialias=True)
    return resized, np.ones(len(frames_NHWC), dtype=np.bool_)


@lru_cache(maxsize=1)
def face_detector() -> FaceDetector:
    """This process's face detector; loading its weights is checked by hash."""
    return FaceDetector()


def _audio(request: ClipRequest, clip: DecodedClip) -> Row:
    audio = request.spec.audio
    if audio is None:
        return {"audio_frames": 0, "has_audio": False}
    if clip.audio is None:
        silence = np.zeros((audio.num_frames, audio.num_mels), dtype=np.float32)
        return {"audio": silence, "audio_frames": 0, "has_audio": False}
    features = log_mel(
        clip.audio,
        sample_rate_hz=clip.sample_rate_hz,
        num_mels=audio.num_mels,
        hop_ms=audio.hop_ms,
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
