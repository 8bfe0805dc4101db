"""Regions of an aligned crop in which action units show, from the landmarks' fixed places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mien.media.faces.align import DEFAULT_MARGIN, landmark_places

REGIONS: dict[str, str] = {
    "brows and eyes": "AU1 AU2 AU4 AU5 AU6 AU7 AU43",
    "nose": "AU9 AU11",
    "mouth and chin": "AU10 AU12 AU15 AU17 AU20 AU23 AU24 AU25 AU26",
}
"""Name: the units that move it."""


def face_regions(size_px: int, margin: float = DEFAULT_MARGIN) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks [size_px, size_px] of :data:`REGIONS` on a crop as `align` cuts it.

    Bands around the eyes, the nose tip and the mouth corners; their borders lie halfway between
    the landmarks, half a mouth below the mouth and half the distance of the eyes above them.
    """
    places = landmark_places(size_px, margin)
    eyes_y, nose_y, mouth_y = places[:2, 1].mean(), places[2, 1], places[3:, 1].mean()
    apart = places[1, 0] - places[0, 0]
    left, right = places[0, 0] - 0.5 * apart, places[1, 0] + 0.5 * apart
    bands = {
        "brows and eyes": (eyes_y - 0.5 * apart, (eyes_y + nose_y) / 2),
        "nose": ((eyes_y + nose_y) / 2, (nose_y + mouth_y) / 2),
        "mouth and chin": ((nose_y + mouth_y) / 2, mouth_y + 0.5 * apart),
    }
    rows, columns = np.mgrid[:size_px, :size_px] + 0.5
    across = (columns >= left) & (columns < right)
    return {name: across & (rows >= top) & (rows < low) for name, (top, low) in bands.items()}
