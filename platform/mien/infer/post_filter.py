"""The temporal post-filter: class probabilities of frames, smoothed over time as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mien.infer.rows import FrameRow


class PostFilter:
    """The mean of each frame's class probabilities with those of the frames around it.

    Each person is filtered by its own. At a film's ends the window is cut, not padded; frames in
    which the person has no probabilities take no part, and get none. Rows come out in order, half
    a window late; what is held is one window.

    Args:
        num_frames: of the mean, odd; 1 changes nothing.

    Raises:
        ValueError: an even number, or less than 1.
    """

    def __init__(self, num_frames: int) -> None:
        if num_frames < 1 or num_frames % 2 == 0:
            raise ValueError(
                f"a post-filter of {num_frames} frames: expected an odd number, so that there are "
                "as many before a frame as after it"
            )
        self._num_frames = num_frames
        self._held: deque[Sequence[FrameRow]] = deque()
        self._num_after = 0
        """Held frames that have not come out."""

    def push(self, rows: Sequence[FrameRow]) -> Iterator[FrameRow]:
        """Takes the rows of the film's next frame and gives those of the one that is due."""
        if self._num_frames == 1:
            yield from rows
            return
        reach = self._num_frames // 2
        self._held.append(rows)
        self._num_after += 1
        if len(self._held) > self._num_frames:
            self._held.popleft()
        if self._num_after > reach:
            yield from self._come_out()

    def finish(self) -> Iterator[FrameRow]:
        """Gives the rows of the last half window."""
        while self._num_after:
            if len(self._held) - self._num_after > self._num_frames // 2:
                self._held.popleft()
            yield from self._come_out()

    def _come_out(self) -> Iterator[FrameRow]:
        for row in self._held[len(self._held) - self._num_after]:
            if not row.probabilities:
                yield row
                continue
            around = [
                other.probabilities
                for rows in self._held
                for other in rows
                if other.track == row.track and other.probabilities
            ]
            filtered = tuple(np.mean(around, axis=0).tolist())
            yield replace(row, probabilities=filtered, raw_probabilities=row.probabilities)
        self._num_after -= 1
