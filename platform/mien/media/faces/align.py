"""Crops in which the five landmarks have fixed places. Shapes: H W pixels, C channels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

# Eyes, nose tip, mouth corners on a 112 px crop, from the image's left: the layout that ArcFace
# (Deng et al., CVPR 2019) made usual.
_TEMPLATE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
DEFAULT_MARGIN = 0.08
"""Share of the side added around that layout, so that brows, chin and cheeks are in the crop."""


def landmark_places(size_px: int, margin: float = DEFAULT_MARGIN) -> npt.NDArray[np.float64]:
    """Where the five landmarks lie in a crop, [5, 2] in pixels."""
    places: npt.NDArray[np.float64] = (_TEMPLATE_112 / 112 * (1 - 2 * margin) + margin) * size_px
    return places


def alignment(landmarks: Floats, size_px: int, margin: float = DEFAULT_MARGIN) -> Floats:
    """The similarity transform [2, 3] that brings landmarks to their places in a crop.

    Least squares over rotation, one scale and shift. With points as complex numbers it is
    ``z -> a z + b``, ``a = sum(conj(z - mean) (w - mean)) / sum |z - mean|^2``: no reflection.
    """
    template = landmark_places(size_px, margin)
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1].astype(np.float64)
    target = template[:, 0] + 1j * template[:, 1]
    centred = source - source.mean()
    spread = np.sum(np.abs(centred) ** 2)
    if spread < 1e-6:
        raise ValueError("the five landmarks are one point: not a face")
    factor = np.sum(np.conj(centred) * (target - target.mean())) / spread
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]],
        dtype=np.float32,
    )


def align(
    frame_HWC: Frame, landmarks: Floats, size_px: int, margin: float = DEFAULT_MARGIN
) -> Frame:
    """The face as a square crop [size_px, size_px, 3] in which the landmarks have fixed places.

    Beyond the frame's border its outermost pixels are repeated.
    """
    return warp(frame_HWC, alignment(landmarks, size_px, margin), size_px)


def square_of(box: Sequence[float], size_px: int) -> Floats:
    """The transform [2, 3] that shows a box x0, y0, x1, y1 in a crop of `size_px`.

    The square around the box's centre with the box's longer side.
    """
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    scale = size_px / side
    left_top = np.array([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2])
    # Pixel centres lie at +0.5: the crop's and the square's outer borders coincide.
    shift = -scale * left_top + (scale - 1) / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=np.float32)


def centre_square(frame_HWC: Frame, size_px: int) -> Floats:
    """The transform that shows the largest square in the middle of a frame."""
    height, width = frame_HWC.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return square_of((left, top, left + side, top + side), size_px)


def warp(frame_HWC: Frame, transform: Floats, size_px: int) -> Frame:
    """Applies a similarity; strong shrinking averages first, so that it does not alias."""
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale < 0.5:
        height, width = frame_HWC.shape[:2]
        size = (max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale)))
        frame_HWC = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([width / size[0], height / size[1]])
        inner = transform[:, :2] * ratio
        # x_full = ratio * (x_small + 0.5) - 0.5
        offset = transform[:, 2] + transform[:, :2] @ (0.5 * ratio - 0.5)
        transform = np.concatenate([inner, offset[:, None]], axis=1).astype(np.float32)
    warped: Frame = cv2.warpAffine(
        frame_HWC,
        transform,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return warped
