"""Pictures with times into an H.264 film that every browser plays."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import av
import cv2

from mien.media.pictures import Picture
from mien.media.storage import write_file_atomically

_TICKS_A_SECOND = 90_000


class Mp4Writer:
    """A film without sound, whose pictures stay until the next one. A context manager.

    Args:
        location: A path or URI that ends in .mp4; the file appears there when it is whole, and not
            at all when an error passes or no picture came.

    Raises:
        ValueError: another ending.
    """

    def __init__(self, location: str) -> None:
        if not location.lower().endswith(".mp4"):
            raise ValueError(f"{location}: expected a name that ends in .mp4")
        self._location = location
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last_ticks = -1

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mien-film-"))
        self._partial = os.path.join(folder, "film.mp4")
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

    def add(self, picture: Picture, time_s: float) -> None:
        """Appends a picture; the first one gives the film its size, rounded to even sides."""
        height, width = picture.shape[:2]
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=25, options={"crf": "20"})
            self._stream.width, self._stream.height = even(width), even(height)
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _TICKS_A_SECOND)
        size = (self._stream.width, self._stream.height)
        if size != (width, height):
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        encoded = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last_ticks = max(self._last_ticks + 1, round(time_s * _TICKS_A_SECOND))
        encoded.pts, encoded.time_base = self._last_ticks, Fraction(1, _TICKS_A_SECOND)
        self._container.mux(self._stream.encode(encoded))


def even(side: float) -> int:
    """The nearest even number of pixels, at least 2; H.264 halves the colours."""
    return max(2, round(side / 2) * 2)
