"""Frames to compressed pictures and back. Shapes: N frames, S side, C channels (RGB)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

ImageFormat = Literal["jpeg", "png"]
"""``jpeg``: quality 95 with whole colour, mean error about one grey level of 255. ``png``: without
loss, five times the size and three times the time to read."""

Frames = npt.NDArray[np.uint8]

_ENCODINGS: dict[ImageFormat, tuple[str, list[int]]] = {
    "jpeg": (
        ".jpg",
        [
            cv2.IMWRITE_JPEG_QUALITY,
            95,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
    ),
    "png": (".png", []),
}
ENCODER_VERSION = 1
"""To be raised with every change to `_ENCODINGS`."""


def encode_frames(frames_NSSC: Frames, image_format: ImageFormat) -> list[bytes]:
    """One compressed picture a frame."""
    suffix, options = _ENCODINGS[image_format]
    encoded = []
    for frame in frames_NSSC:
        is_encoded, data = cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
        assert is_encoded
        encoded.append(data.tobytes())
    return encoded


def decode_frames(pictures: Sequence[memoryview | bytes]) -> Frames:
    """uint8 [N, S, S, 3].

    Raises:
        ValueError: one is no picture.
    """
    frames = []
    for picture in pictures:
        frame = cv2.imdecode(np.frombuffer(picture, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise ValueError(f"{len(picture)} bytes that are no picture")
        frames.append(frame)
    return np.stack(frames)
