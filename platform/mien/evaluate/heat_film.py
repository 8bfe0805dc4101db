"""One clip's heat as a film: the frames that a network looked at, and how much each one counts."""

from __future__ import annotations

import cv2
import numpy as np

from mien.evaluate.heat_sheet import HeatRow, overlay
from mien.media.mp4 import Mp4Writer
from mien.media.pictures import Picture, write_words

_SIDE_PX = 448
_STRIP_PX = 64
_GROUND, _BAR, _NOW = (24, 24, 27), (113, 113, 122), (250, 204, 21)
_LAST_FRAME_S = 0.5


def write_heat_film(row: HeatRow, location: str) -> None:
    """Writes an mp4 of the looked-at frames at their times, each until the next.

    Below them stands a bar for each frame, as high as its share of the network's attention, or of
    the clip's heat where the network tells of no shares.

    Raises:
        ValueError: the location does not end in .mp4.
    """
    order_S = np.argsort(row.times_S, kind="stable")
    shares_S = row.heat_SHW.sum(axis=(1, 2)) if row.share_S is None else row.share_S
    with Mp4Writer(location) as film:
        for index in order_S:
            film.add(_picture(row, int(index), shares_S), float(row.times_S[index]))
        # A picture that nothing follows would not be seen.
        film.add(
            _picture(row, int(order_S[-1]), shares_S), float(row.times_S.max()) + _LAST_FRAME_S
        )


def _picture(row: HeatRow, index: int, shares_S: np.ndarray) -> Picture:
    heated = overlay(row.frames_SHWC[index], row.heat_SHW[index])
    size = (_SIDE_PX, _SIDE_PX)
    large = cv2.resize(heated, size, interpolation=cv2.INTER_CUBIC)
    picture = np.concatenate([large, _strip(row.times_S, shares_S, index)])
    write_words(picture, row.title, (8, 20), _NOW)
    write_words(picture, f"{row.times_S[index]:.2f} s", (8, _SIDE_PX - 8), (255, 255, 255))
    return picture


def _strip(times_S: np.ndarray, shares_S: np.ndarray, index: int) -> Picture:
    """A bar for each frame at its time, the current one in colour."""
    strip = np.full((_STRIP_PX, _SIDE_PX, 3), _GROUND, dtype=np.uint8)
    span_s = max(float(np.ptp(times_S)), 1e-6)
    width = max(3, _SIDE_PX // (2 * len(times_S)))
    order = [number for number in range(len(times_S)) if number != index] + [index]
    for number in order:
        left = round((times_S[number] - times_S.min()) / span_s * (_SIDE_PX - width))
        height = round(shares_S[number] / max(float(shares_S.max()), 1e-12) * (_STRIP_PX - 6))
        colour = _NOW if number == index else _BAR
        strip[_STRIP_PX - max(2, height) :, left : left + width] = colour
    return strip
