"""Faces at the moments that matter, small enough to lie in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from mien.clips.manifest import ClipRef
from mien.media.errors import ClipError
from mien.media.faces import FaceRule
from mien.stream.prepare import CropSettings, prepare_clip

EVEN = 4
"""Moments shown of a clip for which nobody says which ones matter."""
_JPEG_QUALITY = 82


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPictures:
    """What is shown of a clip."""

    faces_NSSC: npt.NDArray[np.uint8]
    times_s: tuple[float, ...]
    problem: str = ""
    """Why there are none, or what is wrong with them."""


def clip_pictures(
    ref: ClipRef, moments: Sequence[float], *, face_px: int, face_rule: FaceRule = "largest"
) -> ClipPictures:
    """Aligned faces at some moments of a clip; a clip that can't be decoded shows its problem.

    Args:
        ref: the clip.
        moments: each from 0 (the clip's start) to 1 (its end); none: evenly over it.
        face_px: side of a face.
        face_rule: whose face, where there are several.
    """
    places_J = np.asarray(sorted(moments) or np.linspace(0.0, 1.0, EVEN))
    crops = CropSettings(
        image_size_px=face_px, align_faces=True, face_rule=face_rule, with_audio=False
    )

    def choose(num_frames: int) -> list[int]:
        frames_J = (places_J.clip(0.0, 1.0) * (num_frames - 1)).round().astype(int)
        return sorted(set(frames_J.tolist()))

    try:
        clip = prepare_clip(ref, crops, choose)
    except ClipError as error:
        empty = np.zeros((0, face_px, face_px, 3), dtype=np.uint8)
        return ClipPictures(faces_NSSC=empty, times_s=(), problem=error.reason.replace("_", " "))
    return ClipPictures(
        faces_NSSC=clip.frames_NSSC,
        times_s=tuple(float(time) for time in clip.frame_times_N),
        problem="" if clip.has_face_N.any() else "no face found",
    )


def as_data_uri(face_SSC: npt.NDArray[np.uint8]) -> str:
    """A picture that needs no file: ``data:image/jpeg;base64,...``."""
    buffer = io.BytesIO()
    Image.fromarray(face_SSC).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(pictures: ClipPictures) -> str:
    """All faces of a clip beside each other, as one data URI; empty where there is none."""
    if not len(pictures.faces_NSSC):
        return ""
    return as_data_uri(np.concatenate(list(pictures.faces_NSSC), axis=1))
