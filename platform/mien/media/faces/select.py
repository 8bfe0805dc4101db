"""Which of several people a clip is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from mien.media.faces.tracks import FaceTrack, overlap
from mien.media.faces.yunet import Floats

FaceRule = Literal["largest", "longest_track", "given_box"]
"""``largest``: who covers the most of the picture, summed over the clip's frames, so that neither
a short look past the camera nor one large frame decides. ``longest_track``: who is found in most
frames, of equals the larger. ``given_box``: who is in a box that the user states."""


def choose_track(
    tracks: Sequence[FaceTrack], rule: FaceRule, given_box: Floats | None = None
) -> FaceTrack | None:
    """The person whom a rule chooses, or None if there is none.

    Args:
        tracks: Everybody in the clip.
        rule: See `FaceRule`.
        given_box: For the rule of that name: x0, y0, x1, y1 in pixels of the frames. The first
            frame in which a face overlaps it decides, and there the face that overlaps it most.
    """
    if rule == "given_box":
        assert given_box is not None
        return _in_box(tracks, given_box)
    if rule == "longest_track":
        return max(tracks, key=lambda track: (len(track.frames), track.area_px), default=None)
    return max(tracks, key=lambda track: track.area_px, default=None)


def _in_box(tracks: Sequence[FaceTrack], box: Floats) -> FaceTrack | None:
    candidates = [
        (frame, -overlap(face.box, box), index)
        for index, track in enumerate(tracks)
        for frame, face in zip(track.frames, track.faces, strict=True)
        if _is_in(face.box, box)
    ]
    return tracks[min(candidates)[2]] if candidates else None


def _is_in(face: Floats, box: Floats) -> bool:
    """Whether a face is meant by a box: most of the face, or of the box, is in the other.

    A loose box around head and shoulders means its face; a neighbour's ear in it does not count.
    """
    shared = np.maximum(np.minimum(face[2:], box[2:]) - np.maximum(face[:2], box[:2]), 0)
    smaller = min(float(np.prod(one[2:] - one[:2])) for one in (face, box))
    return float(np.prod(shared)) > 0.5 * smaller


def check_rule(rule: str, given_box: Sequence[float] | None) -> None:
    """Raise unless the rule is known and has the box that it needs; others look at no box.

    Raises:
        ValueError: an unknown rule, or a box that is missing or none.
    """
    rules = get_args(FaceRule)
    if rule not in rules:
        raise ValueError(f"face rule {rule!r} is not one of {', '.join(rules)}")
    if rule != "given_box":
        return
    if given_box is None:
        raise ValueError("the face rule given_box needs a box x0, y0, x1, y1 for every clip")
    numbers = [float(number) for number in given_box]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"a face box has four numbers x0, y0, x1, y1, not {list(given_box)}")
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0 or x1 <= 0 or y1 <= 0:
        raise ValueError(
            f"the face box {numbers} is empty: expected x0 < x1 and y0 < y1, in pixels from the "
            "left and upper border, or as shares of the picture if all are at most 1"
        )


def box_in_px(given_box: Sequence[float], height: int, width: int) -> Floats:
    """A box in pixels: one whose numbers are all at most 1 is in shares of the frame."""
    box = np.array(given_box, dtype=np.float32)
    sides = np.array([width, height, width, height], dtype=np.float32)
    return box * sides if box.max() <= 1 else box
