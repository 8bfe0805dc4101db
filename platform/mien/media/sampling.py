"""Which frames of a clip to look at: one frame a segment, evenly or at random."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def uniform_segments(
    num_source: int, num_frames: int, rng: np.random.Generator | None = None
) -> Indices:
    """One frame from each of ``num_frames`` equal segments of the whole clip, non-decreasing.

    Without a generator it is the middle of each segment, ``floor(n (2k + 1) / 2T)``; with one it is
    a uniform draw inside each segment. Segments have fractional borders and cover the clip to its
    last frame. A clip of fewer frames than segments shows frames several times, evenly spread.

    Args:
        num_source: Frames that the clip has, n.
        num_frames: Frames wanted, T.
        rng: Draws the place inside each segment; None takes the middle.

    Returns:
        Frame numbers, [T] int64.

    Raises:
        ValueError: either number is below 1.
    """
    _check(num_source, num_frames)
    segments = np.arange(num_frames, dtype=np.int64)
    if rng is None:
        return num_source * (2 * segments + 1) // (2 * num_frames)
    places = (segments + rng.random(num_frames)) * (num_source / num_frames)
    return np.minimum(places.astype(np.int64), num_source - 1)


def uniform_segments_paper(
    num_source: int, num_frames: int, rng: np.random.Generator | None = None
) -> Indices:
    """Segment sampling exactly as published with MMA-DFER (and other DFER work).

    It differs from `uniform_segments` in two ways: training draws from segments of
    ``floor(n / T)`` frames, so that the last ``n mod T`` frames are never seen; and clips of fewer
    than T frames are followed by repeats of their last frame.

    Args:
        num_source: Frames that the clip has, n.
        num_frames: Frames wanted, T.
        rng: Training draws from it; None is the test variant, ``int(tick / 2 + tick k)`` with
            ``tick = n / T``.

    Returns:
        Frame numbers, [T] int64, non-decreasing.

    Raises:
        ValueError: either number is below 1.
    """
    _check(num_source, num_frames)
    segments = np.arange(num_frames, dtype=np.int64)
    if num_source < num_frames:
        return np.minimum(segments, num_source - 1)
    if rng is None:
        tick = num_source / num_frames
        return (tick / 2 + tick * segments).astype(np.int64)
    length = num_source // num_frames
    return segments * length + rng.integers(length, size=num_frames)


def _check(num_source: int, num_frames: int) -> None:
    if num_source < 1 or num_frames < 1:
        raise ValueError(
            f"cannot choose {num_frames} frames of a clip of {num_source}: both must be at least 1"
        )
