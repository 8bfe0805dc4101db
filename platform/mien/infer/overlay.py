"""A film with what was found drawn into it: boxes, track numbers, labels, probabilities."""

from __future__ import annotations

import colorsys
import itertools
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from mien.infer.rows import FrameRow, best
from mien.media.film import Film, FilmFrame
from mien.media.pictures import Picture
from mien.media.storage import write_file_atomically

_TICKS_A_SECOND = 90_000
_LONGEST_SIDE_PX = 1280
_SHORTEST_LONG_SIDE_PX = 480
_WHITE = (255, 255, 255)


class OverlayWriter:
    """Writes a film anew, with rows of frames drawn into it as they come.

    The film is decoded a second time, a frame for each row's frame, so that no picture waits for
    its rows. Times are kept; there is no sound.

    Args:
        source: The film.
        location: A path or URI that ends in .mp4; the file appears there when it is whole.
        classes: Names in the order of the probabilities.

    Raises:
        ValueError: another ending.
    """

    def __init__(self, source: str, location: str, classes: Sequence[str]) -> None:
        if not location.lower().endswith(".mp4"):
            raise ValueError(f"{location}: expected a name that ends in .mp4")
        self._location = location
        self._classes = tuple(classes)
        self._frames = Film(source, with_sound=False).frames()
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last_ticks = -1

    def __enter__(self) -> OverlayWriter:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mien-overlay-"))
        self._partial = os.path.join(folder, "overlay.mp4")
        self._container = self._stack.enter_context(av.open(self._partial, "w"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
                self._container.close()
                write_file_atomically(self._location, self._partial)

    def draw(self, rows: Sequence[FrameRow]) -> None:
        """Takes the rows of frames, in order."""
        for index, people in itertools.groupby(rows, key=lambda row: row.frame):
            frame = next(found for found in self._frames if found.index == index)
            self._encode(frame, list(people))

    def _encode(self, frame: FilmFrame, people: Sequence[FrameRow]) -> None:
        height, width = frame.picture_HWC.shape[:2]
        scale = min(1.0, _LONGEST_SIDE_PX / max(height, width))
        # Small films are enlarged, so that letters can be read.
        scale = max(scale, _SHORTEST_LONG_SIDE_PX / max(height, width))
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=25, options={"crf": "20"})
            self._stream.width, self._stream.height = _even(width * scale), _even(height * scale)
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _TICKS_A_SECOND)
        size = (self._stream.width, self._stream.height)
        picture = cv2.resize(frame.picture_HWC, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([size[0] / width, size[1] / height] * 2)
        for row in people:
            draw_person(picture, row, ratio, self._classes)
        _write(picture, f"{frame.time_s:.2f} s", (8, size[1] - 8), _WHITE)
        encoded = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last_ticks = max(self._last_ticks + 1, round(frame.time_s * _TICKS_A_SECOND))
        encoded.pts, encoded.time_base = self._last_ticks, Fraction(1, _TICKS_A_SECOND)
        self._container.mux(self._stream.encode(encoded))


def draw_person(picture: Picture, row: FrameRow, ratio: np.ndarray, classes: Sequence[str]) -> None:
    """Draws a row into a picture that is larger than its frame by ``ratio`` (x, y, x, y)."""
    label, probability = best(row.probabilities, classes)
    words = [] if row.track is None else [f"#{row.track}"]
    words += ["no label" if label is None else f"{label} {probability:.2f}"]
    if row.box is None:
        if row.has_face is None:
            _write(picture, " ".join(words), (8, 24), _WHITE)
        return
    colour = colour_of(row.track or 0)
    x0, y0, x1, y1 = (np.array(row.box) * ratio).round().astype(int).tolist()
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2)
    place = (max(2, x0), y0 - 7 if y0 > 26 else min(y1 + 18, picture.shape[0] - 6))
    _write(picture, " ".join(words), place, colour)


def colour_of(track: int) -> tuple[int, int, int]:
    """The colour of a track, RGB; neighbours in number differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + track * 0.382) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _write(picture: Picture, text: str, place: tuple[int, int], colour: Sequence[int]) -> None:
    """Letters on a ground of the colour, from the left lower corner on."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    plain = text.encode("ascii", "replace").decode()  # OpenCV's letters
    (width, height), below = cv2.getTextSize(plain, font, size, 1)
    x, y = place
    corners = (x - 2, y - height - 3), (x + width + 2, y + below)
    cv2.rectangle(picture, *corners, tuple(colour), cv2.FILLED)
    cv2.putText(picture, plain, place, font, size, (0, 0, 0), 1, cv2.LINE_AA)


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)
