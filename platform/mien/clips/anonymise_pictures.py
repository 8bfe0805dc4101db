"""Pictures in which nobody but one person can be seen. Shapes: T frames, H W pixels, C channels.

What is hidden becomes a mosaic of a few large cells with few colours, so that there is nothing to
be sharpened: a face that fills the whole picture is eight cells wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from mien.media.faces import Face, alignment

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MOSAIC_CELLS = 8
"""Cells along the longer side of a hidden picture."""
_COLOUR_STEP = 16
_SHOWN_MARGIN = 0.02
"""Share of the crop that is shown around it: landmarks that are found anew are a little off."""
_HIDDEN_MARGIN = 0.35
"""Share of another person's box that is hidden around it: hair, ears and chin."""


def hide(picture_HWC: Frame) -> Frame:
    """The picture as a mosaic of `MOSAIC_CELLS` cells on its longer side."""
    height, width = picture_HWC.shape[:2]
    cell = max(height, width) / MOSAIC_CELLS
    cells = (max(1, round(width / cell)), max(1, round(height / cell)))
    small = cv2.resize(picture_HWC, cells, interpolation=cv2.INTER_AREA)
    coarse = small // _COLOUR_STEP * _COLOUR_STEP + _COLOUR_STEP // 2
    mosaic: Frame = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    return mosaic


def show_only(picture_HWC: Frame, person: Face | None, others: Sequence[Face]) -> Frame:
    """The picture with everything hidden but the face of one person.

    What is shown is what a crop by `mien.media.faces.align` would show. Where another person's face
    reaches into it, it is hidden.

    Args:
        picture_HWC: RGB.
        person: The face to be shown; None: the whole picture is hidden.
        others: All other faces of the picture.
    """
    hidden = hide(picture_HWC)
    if person is None:
        return hidden
    is_shown = crop_area(person, *picture_HWC.shape[:2]) & ~faces_area(others, picture_HWC)
    return np.where(is_shown[..., None], picture_HWC, hidden)


def without(picture_HWC: Frame, others: Sequence[Face]) -> Frame:
    """The picture with some people's faces hidden."""
    if not others:
        return picture_HWC
    return np.where(faces_area(others, picture_HWC)[..., None], hide(picture_HWC), picture_HWC)


def crop_area(person: Face, height: int, width: int) -> Mask:
    """The pixels [H, W] that an aligned crop of a face shows."""
    to_crop = np.vstack([alignment(person.landmarks, 1), [0, 0, 1]])
    low, high = -_SHOWN_MARGIN, 1 + _SHOWN_MARGIN
    corners = np.array([[low, high, high, low], [low, low, high, high], [1, 1, 1, 1]])
    places = np.linalg.solve(to_crop, corners)[:2].T
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillConvexPoly(mask, np.round(places).astype(np.int32), 1)
    return mask.astype(np.bool_)


def faces_area(faces: Sequence[Face], picture_HWC: Frame) -> Mask:
    """The pixels [H, W] of faces and what is around them."""
    mask = np.zeros(picture_HWC.shape[:2], dtype=np.bool_)
    for face in faces:
        x0, y0, x1, y1 = face.box
        dx, dy = _HIDDEN_MARGIN * (x1 - x0), _HIDDEN_MARGIN * (y1 - y0)
        left, top = max(0, round(float(x0 - dx))), max(0, round(float(y0 - dy)))
        mask[top : max(0, round(float(y1 + dy))), left : max(0, round(float(x1 + dx)))] = True
    return mask
