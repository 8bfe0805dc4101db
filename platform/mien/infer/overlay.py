"""A film with what was found drawn into it: boxes, track numbers, labels, probabilities."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from mien.infer.rows import FrameRow, best
from mien.media.film import Film, FilmFrame
from mien.media.mp4 import Mp4Writer, even
from mien.media.pictures import Picture, write_words

_LONGEST_SIDE_PX = 1280
_SHORTEST_LONG_SIDE_PX = 480
_WHITE = (255, 255, 255)


class OverlayWriter(Mp4Writer):
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
        super().__init__(location)
        self._classes = tuple(classes)
        self._frames = Film(source, with_sound=False).frames()

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
        size = (even(width * scale), even(height * scale))
        picture = cv2.resize(frame.picture_HWC, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([size[0] / width, size[1] / height] * 2)
        for row in people:
            draw_person(picture, row, ratio, self._classes)
        write_words(picture, f"{frame.time_s:.2f} s", (8, size[1] - 8), _WHITE)
        self.add(picture, frame.time_s)


def draw_person(picture: Picture, row: FrameRow, ratio: np.ndarray, classes: Sequence[str]) -> None:
    """Draws a row into a picture that is larger than its frame by ``ratio`` (x, y, x, y)."""
    label, probability = best(row.probabilities, classes)
    words = [] if row.track is None else [f"#{row.track}"]
    words += ["no label" if label is None else f"{label} {probability:.2f}"]
    if row.box is None:
        if row.has_face is None:
            write_words(picture, " ".join(words), (8, 24), _WHITE)
        return
    colour = colour_of(row.track or 0)
    x0, y0, x1, y1 = (np.array(row.box) * ratio).round().astype(int).tolist()
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2)
    place = (max(2, x0), y0 - 7 if y0 > 26 else min(y1 + 18, picture.shape[0] - 6))
    write_words(picture, " ".join(words), place, colour)


def colour_of(track: int) -> tuple[int, int, int]:
    """The colour of a track, RGB; neighbours in number differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + track * 0.382) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
