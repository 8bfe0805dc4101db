"""Decoded frames as RGB arrays. T frames, H W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


class PictureStack:
    """Frames as RGB in one array, upright; the first one sets the size for all."""

    def __init__(self, length: int, max_side_px: int | None) -> None:
        self._length = length
        self._max_side_px = max_side_px
        self._size: tuple[int, int] | None = None
        self._filled: set[int] = set()
        self._pictures_THWC: npt.NDArray[np.uint8] | None = None

    def put(self, place: int, frame: Any) -> None:
        """Convert a decoded frame into a place of the array."""
        if self._size is None:
            self._size = shrunk_size(frame.width, frame.height, self._max_side_px)
        width, height = self._size
        # threads=1: swscale would otherwise start threads of its own for every frame.
        converted = frame.reformat(width=width, height=height, format="rgb24", threads=1)
        turns = quarter_turns(frame)
        if self._pictures_THWC is None:
            sides = (width, height) if turns % 2 else (height, width)
            self._pictures_THWC = np.empty((self._length, *sides, 3), dtype=np.uint8)
        self._pictures_THWC[place] = np.rot90(_pixels(converted), turns)
        self._filled.add(place)

    def is_full(self) -> bool:
        """Whether every place has its frame."""
        return len(self._filled) == self._length

    def pictures_THWC(self) -> npt.NDArray[np.uint8]:
        """The array, without a copy. Only of a full stack."""
        assert self._pictures_THWC is not None
        assert self.is_full()
        return self._pictures_THWC


def _pixels(frame: Any) -> Picture:
    """A view on the pixels of an RGB frame, [H, W, 3]."""
    plane = frame.planes[0]
    shape, strides = (frame.height, frame.width, 3), (plane.line_size, 3, 1)
    return np.ndarray(shape, np.uint8, plane, strides=strides)


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that make a frame upright, 0 to 3."""
    rotation_deg: float = frame.rotation
    return round(rotation_deg / 90) % 4


def shrunk_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """Width and height with the long side at most ``max_side_px``, same shape, never enlarged."""
    if max_side_px is None or max(width, height) <= max_side_px:
        return width, height
    scale = max_side_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def write_words(picture: Picture, text: str, place: tuple[int, int], colour: Sequence[int]) -> None:
    """Letters on a ground of the colour, from the left lower corner on; changes the picture."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    plain = text.encode("ascii", "replace").decode()  # OpenCV's letters
    (width, height), below = cv2.getTextSize(plain, font, size, 1)
    x, y = place
    corners = (x - 2, y - height - 3), (x + width + 2, y + below)
    cv2.rectangle(picture, *corners, tuple(colour), cv2.FILLED)
    cv2.putText(picture, plain, place, font, size, (0, 0, 0), 1, cv2.LINE_AA)
