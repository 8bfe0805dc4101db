"""A clip of one person's aligned face. Shapes: T frames, H W pixels, C channels, S crop side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mien.media.faces.align import (
    DEFAULT_MARGIN,
    Floats,
    Frame,
    alignment,
    centre_square,
    square_of,
    warp,
)
from mien.media.faces.detect import Face, FaceDetector, detect_faces
from mien.media.faces.select import FaceRule, box_in_px, check_rule, choose_track
from mien.media.faces.tracks import link_faces


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedClip:
    """The same person's face in every frame of a clip."""

    crops_TSSC: Frame
    has_face_T: npt.NDArray[np.bool_]
    """False where the crop was placed without a detection in that frame."""
    boxes_T4: Floats
    """x0, y0, x1, y1 in the frame; NaN where no face was found."""
    landmarks_T52: Floats
    """As `Face.landmarks`; NaN where no face was found."""


def align_clip(
    frames_THWC: Frame,
    *,
    size_px: int,
    detector: FaceDetector,
    margin: float = DEFAULT_MARGIN,
    rule: FaceRule = "largest",
    given_box: Sequence[float] | None = None,
    num_threads: int = 1,
) -> AlignedClip:
    """One person's aligned face in every frame.

    Everybody's faces are followed over the clip, and the rule says who it is about. A frame in
    which that person is not found keeps its row: ``has_face`` is False and the crop is taken where
    the face stands in the nearest frame in which it was found (the earlier one of two). If the
    person is in no frame at all, the crop shows the given box, or the centre square.

    Args:
        frames_THWC: RGB, uint8, in order of time.
        size_px: Side of the crops.
        detector: Finds the faces.
        margin: See `DEFAULT_MARGIN`.
        rule: See `FaceRule`.
        given_box: For the rule ``given_box``, others don't look at it: x0, y0, x1, y1 in pixels of
            the frames, or in shares of their width and height if all four are at most 1.
        num_threads: Cores that detection uses.

    Raises:
        ValueError: an unknown rule, or a box that is missing or empty.
    """
    check_rule(rule, given_box)
    box = None
    if rule == "given_box" and given_box is not None:
        box = box_in_px(given_box, *frames_THWC.shape[1:3])
    tracks = link_faces(list(detect_faces(frames_THWC, detector, num_threads=num_threads)))
    person = choose_track(tracks, rule, box)
    num_frames = len(frames_THWC)
    faces = person.in_frames(num_frames) if person else [None] * num_frames
    return _cut_out(frames_THWC, faces, size_px, margin, box)


def _cut_out(
    frames_THWC: Frame,
    faces: Sequence[Face | None],
    size_px: int,
    margin: float,
    box: Floats | None,
) -> AlignedClip:
    """The crops of a face that was found in some frames; a box is shown if in none."""
    num_frames = len(frames_THWC)
    boxes_T4 = np.full((num_frames, 4), np.nan, dtype=np.float32)
    landmarks_T52 = np.full((num_frames, 5, 2), np.nan, dtype=np.float32)
    for index, face in enumerate(faces):
        if face is not None:
            boxes_T4[index], landmarks_T52[index] = face.box, face.landmarks
    found_T = np.array([face is not None for face in faces], dtype=np.bool_)
    where = np.flatnonzero(found_T)
    crops_TSSC = np.empty((num_frames, size_px, size_px, 3), dtype=np.uint8)
    for index, frame in enumerate(frames_THWC):
        if len(where):
            nearest = where[np.argmin(np.abs(where - index))]
            transform = alignment(landmarks_T52[nearest], size_px, margin)
        elif box is not None:
            transform = square_of(box.tolist(), size_px)
        else:
            transform = centre_square(frame, size_px)
        crops_TSSC[index] = warp(frame, transform, size_px)
    return AlignedClip(
        crops_TSSC=crops_TSSC, has_face_T=found_T, boxes_T4=boxes_T4, landmarks_T52=landmarks_T52
    )
