"""Every frame of a clip in memory that does not grow with its length.

Clips of up to `ONE_PIECE` frames are decoded at once. Longer ones are decoded twice, piece by
piece: to follow the face over the whole clip, and to cut it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from mien.clips.manifest import ClipRef
from mien.media.decode import DecodedClip
from mien.media.faces import Face, choose_track, detect_faces
from mien.media.faces.align import alignment, centre_square, square_of, warp
from mien.media.faces.select import box_in_px
from mien.media.faces.tracks import link_faces
from mien.stream.prepare import (
    ChooseFrames,
    CropSettings,
    PreparedClip,
    decode,
    face_box,
    face_detector,
    prepare_clip,
    prepared,
)

ONE_PIECE = 128
PIECE_BYTES = 128 << 20
"""Decoded frames of the later pieces of a clip."""

Decoded = Callable[[], Iterator[DecodedClip]]
Transforms = list[npt.NDArray[np.float32]]


def prepare_pieces(
    ref: ClipRef, settings: CropSettings, keep: ChooseFrames
) -> Iterator[PreparedClip]:
    """A clip in one or more consecutive pieces; the sound is in the first.

    Args:
        ref: the clip.
        settings: what is cut out.
        keep: gets the clip's number of frames, returns the numbers of those that are kept.

    Raises:
        ClipError: the clip cannot be decoded; says why.
        ValueError: the face rule needs a face box, and the clip has none.
    """
    num_kept = 0

    def choose(num_frames: int) -> Sequence[int]:
        nonlocal num_kept
        kept = keep(num_frames)
        num_kept = len(kept)
        return kept[:ONE_PIECE]

    first = prepare_clip(ref, settings, choose)
    if num_kept <= ONE_PIECE:
        yield first
        return
    decoded = partial(_decode, ref, replace(settings, with_audio=False), keep, num_kept)
    cut = _cut_faces if settings.align_faces else _resize
    for index, piece in enumerate(cut(decoded, ref, settings)):
        yield (
            piece if index else replace(piece, audio=first.audio, audio_rate_hz=first.audio_rate_hz)
        )


def _decode(
    ref: ClipRef, settings: CropSettings, keep: ChooseFrames, num_kept: int
) -> Iterator[DecodedClip]:
    start, length = 0, ONE_PIECE
    while start < num_kept:
        clip = decode(ref, settings, partial(_part_of, keep, start, start + length))
        yield clip
        start += len(clip.frames_THWC)
        length = max(ONE_PIECE // 4, PIECE_BYTES // clip.frames_THWC[0].nbytes)


def _part_of(keep: ChooseFrames, start: int, stop: int, num_frames: int) -> Sequence[int]:
    return keep(num_frames)[start:stop]


def _resize(decoded: Decoded, ref: ClipRef, settings: CropSettings) -> Iterator[PreparedClip]:
    for clip in decoded():
        yield prepared(clip, ref, settings)


def _cut_faces(decoded: Decoded, ref: ClipRef, settings: CropSettings) -> Iterator[PreparedClip]:
    transforms, found_T = _follow(decoded, ref, settings)
    start = 0
    for clip in decoded():
        part = slice(start, start + len(clip.frames_THWC))
        crops = [
            warp(frame, transform, settings.image_size_px)
            for frame, transform in zip(clip.frames_THWC, transforms[part], strict=True)
        ]
        yield PreparedClip(
            frames_NSSC=np.stack(crops),
            frame_numbers_N=clip.frame_indices,
            frame_times_N=clip.frame_times_s,
            has_face_N=found_T[part],
            audio=None,
            audio_rate_hz=0,
            num_frames=clip.num_source_frames,
        )
        start = part.stop


def _follow(
    decoded: Decoded, ref: ClipRef, settings: CropSettings
) -> tuple[Transforms, npt.NDArray[np.bool_]]:
    """Where the crop of each frame is taken, as `align_clip` does it, and whether a face is there.

    Nothing of the frames is kept but their faces.
    """
    size, rule = settings.image_size_px, settings.face_rule
    faces_T: list[list[Face]] = []
    for clip in decoded():
        faces_T += detect_faces(clip.frames_THWC, face_detector())
        frame = clip.frames_THWC[0]
    given = face_box(ref, rule)
    box = None if given is None else box_in_px(given, *frame.shape[:2])
    person = choose_track(link_faces(faces_T), rule, box)
    shown = person.in_frames(len(faces_T)) if person else [None] * len(faces_T)
    found_T = np.array([face is not None for face in shown], dtype=np.bool_)
    if person is None:
        here = centre_square(frame, size) if box is None else square_of(box.tolist(), size)
        return [here] * len(faces_T), found_T
    where = np.flatnonzero(found_T)
    nearest = [where[np.argmin(np.abs(where - index))] for index in range(len(shown))]
    at = {index: alignment(face.landmarks, size) for index, face in enumerate(shown) if face}
    return [at[int(index)] for index in nearest], found_T
