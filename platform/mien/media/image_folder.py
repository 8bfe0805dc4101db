"""Clips that are folders of pictures, one file a frame, in natural order of their names."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mien.media.errors import ClipError
from mien.media.packets import FrameTimes
from mien.media.storage import explained, file_system, is_remote, join, read_bytes
from mien.media.video import Picture, shrunk_size

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 25
"""Frames a second of a folder, which itself does not say."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def list_pictures(folder: str) -> list[str]:
    """Locations of a folder's pictures in natural order.

    Raises:
        ClipError: the folder holds no picture.
        StorageError: it cannot be listed.
    """
    with explained(folder):
        if is_remote(folder):
            fs, path = file_system(folder)
            names = [entry.rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)]
        else:
            names = os.listdir(folder)
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    if not pictures:
        raise ClipError(
            "too_few_frames",
            f"the folder {folder} holds no pictures; expected one file a frame "
            f"({', '.join(PICTURE_SUFFIXES)}).",
        )
    return [join(folder, name) for name in sorted(pictures, key=natural_key)]


def read_picture(location: str, max_side_px: int | None = None) -> Picture:
    """A picture as RGB [H, W, 3], turned upright as its EXIF tag says.

    Raises:
        OSError: it is damaged or no picture.
        StorageError: it cannot be read.
    """
    with Image.open(io.BytesIO(read_bytes(location))) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    size = shrunk_size(*upright.size, max_side_px)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.BILINEAR)
    return np.array(upright)


def folder_times(num_frames: int) -> FrameTimes:
    """Times of a folder's frames at `DEFAULT_FPS`."""
    return FrameTimes(
        ticks=np.arange(num_frames),
        time_base=Fraction(1, DEFAULT_FPS),
        zero=0,
        end=num_frames,
    )


def read_nearest(
    pictures: Sequence[str], indices: npt.NDArray[np.int64], max_side_px: int | None
) -> tuple[npt.NDArray[np.int64], dict[int, Picture], int]:
    """Read the wanted pictures; a damaged one is stood in for by the nearest that can be read.

    Returns:
        The numbers of the pictures that are shown for ``indices``, these pictures by number, and
        how many were damaged.

    Raises:
        ClipError: none can be read.
    """
    decoded: dict[int, Picture] = {}
    damaged: set[int] = set()
    shown = np.empty_like(indices)
    for place, index in enumerate(indices.tolist()):
        for number in sorted(range(len(pictures)), key=lambda number: abs(number - index)):
            if number not in decoded and number not in damaged:
                try:
                    decoded[number] = read_picture(pictures[number], max_side_px)
                except (OSError, SyntaxError):  # Pillow's two ways to say that a file is damaged
                    damaged.add(number)
            if number in decoded:
                shown[place] = number
                break
        else:
            raise ClipError(
                "truncated",
                f"no picture of the folder of {pictures[0]} can be read; copy the folder again.",
            )
    return shown, decoded, len(damaged)
