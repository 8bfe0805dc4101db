"""One clip to crops and sound: the costly part of loading, the same for every epoch and method.

What comes out is what streams draw their views from, and what the clip cache keeps.
Shapes: N frames, S side of a crop, C colour channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional

from mien.clips.manifest import ClipRef
from mien.media.containers import PictureOrder
from mien.media.decode import DecodedClip, decode_clip
from mien.media.faces import FaceDetector, FaceRule, align_clip

SAMPLE_RATE_HZ = 16_000
PREPARE_VERSION = 2
"""To be raised with every change to what comes out of here: caches are then made anew."""

ChooseFrames = Callable[[int], Sequence[int]]
"""Number of frames of a clip to the wanted ones, non-decreasing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSettings:
    """What of a clip is prepared."""

    image_size_px: int
    align_faces: bool
    """Aligned face crops; False: the whole picture, resized."""
    face_rule: FaceRule
    with_audio: bool
    native_sound: bool = False
    """Sound at its own rate and of its first channel, instead of `SAMPLE_RATE_HZ` and the mean."""
    picture_order: PictureOrder = "natural"
    """Of clips that are folders of pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedClip:
    """The wanted frames of a clip, cropped, and its sound."""

    frames_NSSC: npt.NDArray[np.uint8]
    """RGB."""
    frame_numbers_N: npt.NDArray[np.int64]
    """The frames that were asked for."""
    frame_times_N: npt.NDArray[np.float64]
    """Seconds since the clip's start."""
    has_face_N: npt.NDArray[np.bool_]
    """A face was found; always True where faces aren't looked for."""
    audio: npt.NDArray[np.float32] | None
    """Mono samples; None where there is no sound, or none is wanted."""
    audio_rate_hz: int
    """0 where there is no sound."""
    num_frames: int
    """Frames that could be asked for."""


def prepare_clip(ref: ClipRef, settings: CropSettings, choose_frames: ChooseFrames) -> PreparedClip:
    """Decodes the wanted frames of a clip and its sound, and cuts out the face.

    Raises:
        ClipError: the clip cannot be decoded; says why.
        ValueError: the face rule needs a face box, and the clip has none.
    """
    return prepared(decode(ref, settings, choose_frames), ref, settings)


def decode(ref: ClipRef, settings: CropSettings, choose_frames: ChooseFrames) -> DecodedClip:
    """The wanted frames of a clip as they are, and its sound.

    Raises:
        ClipError: the clip cannot be decoded; says why.
    """
    return decode_clip(
        ref.uri,
        choose_frames=choose_frames,
        start_s=ref.start_s,
        end_s=ref.end_s,
        audio_uri=ref.audio_uri,
        with_audio=settings.with_audio,
        sample_rate_hz=None if settings.native_sound else SAMPLE_RATE_HZ,
        picture_order=settings.picture_order,
    )


def prepared(clip: DecodedClip, ref: ClipRef, settings: CropSettings) -> PreparedClip:
    """A decoded clip with its frames cropped."""
    frames_NSSC, has_face_N = _crops(clip.frames_THWC, ref, settings)
    return PreparedClip(
        frames_NSSC=frames_NSSC,
        frame_numbers_N=clip.frame_indices,
        frame_times_N=clip.frame_times_s,
        has_face_N=has_face_N,
        audio=clip.audio,
        audio_rate_hz=clip.sample_rate_hz,
        num_frames=clip.num_source_frames,
    )


def _crops(
    frames_NHWC: npt.NDArray[np.uint8], ref: ClipRef, settings: CropSettings
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    size = settings.image_size_px
    if settings.align_faces:
        aligned = align_clip(
            frames_NHWC,
            size_px=size,
            detector=face_detector(),
            rule=settings.face_rule,
            given_box=face_box(ref, settings.face_rule),
        )
        return aligned.crops_TSSC, aligned.has_face_T
    frames_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2)
    resized = functional.resize(frames_NCHW, [size, size], antialias=True)
    frames_NSSC = np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
    return frames_NSSC, np.ones(len(frames_NHWC), dtype=np.bool_)


def face_box(ref: ClipRef, rule: FaceRule) -> Sequence[float] | None:
    """The box for a rule that looks at one.

    Raises:
        ValueError: the rule needs a box, and the clip has none.
    """
    if rule != "given_box":
        return None
    if ref.face_box is None:
        raise ValueError(
            f"clip {ref.clip_id} has no face_box, which data.face_rule=given_box needs: fill the "
            "manifest's column face_box, or use --set data.face_rule=largest"
        )
    return ref.face_box


@lru_cache(maxsize=1)
def face_detector() -> FaceDetector:
    """This process's face detector; loading its weights is checked by hash."""
    return FaceDetector()
