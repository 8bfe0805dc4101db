"""Clips that are folders of pictures, one file a frame, in natural order of their names; a single
picture is a clip of one frame.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, ImageOps

from mien.media.containers import PICTURE_SUFFIXES as PICTURE_SUFFIXES
from mien.media.containers import PictureOrder
from mien.media.errors import ClipError
from mien.media.frame_times import DecodedVideo, FrameTimes, Wanted
from mien.media.pictures import Picture, shrunk_size
from mien.media.storage import (
    explained,
    file_system,
    is_folder,
    is_remote,
    join,
    read_bytes,
)

DEFAULT_FPS = 25
"""Frames a second of a folder, which itself does not say."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def list_pictures(folder: str, order: PictureOrder = "natural") -> list[str]:
    """Locations of a folder's pictures in order; of a picture, its own.

    Raises:
        ClipError: the folder holds no picture.
        StorageError: it cannot be listed.
    """
    if folder.lower().endswith(PICTURE_SUFFIXES) and not is_folder(folder):
        return [folder]
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
    return [
        join(folder, name)
        for name in sorted(pictures, key=natural_key if order == "natural" else None)
    ]


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


def first_readable(files: Sequence[str]) -> Picture:
    """The first picture that can be read.

    Raises:
        ClipError: none can.
    """
    reader = _PictureReader(files, None)
    number = reader.nearest(0)
    if number < 0:
        raise ClipError(
            "truncated", f"none of the pictures beside {files[0]} can be read; copy them again."
        )
    return reader.pictures[number]


def decode_folder(folder: str, wanted: Wanted, order: PictureOrder = "natural") -> DecodedVideo:
    """The wanted pictures; a damaged one is stood in for by the nearest that can be read.

    Raises:
        ClipError: the folder has no frame between start and end, or too few that can be read.
        StorageError: it cannot be listed or a file cannot be fetched.
    """
    files = list_pictures(folder, order)
    times = folder_times(len(files)).window(wanted.start_s, wanted.end_s)
    indices = wanted.choose(len(times.ticks), folder)
    reader = _PictureReader([files[tick] for tick in times.ticks], wanted.max_side_px)
    shown = np.array([reader.nearest(int(index)) for index in indices], dtype=np.int64)
    wanted.check_decodable(len(reader.pictures), len(reader.pictures) + len(reader.damaged), folder)
    return DecodedVideo(
        times=times,
        indices=indices,
        shown=shown,
        frames_THWC=np.stack([reader.pictures[int(number)] for number in shown]),
        refused=len(reader.damaged),
    )


class _PictureReader:
    """Reads each picture of a folder at most once; the first one sets the size for all."""

    def __init__(self, files: Sequence[str], max_side_px: int | None) -> None:
        self._files = files
        self._max_side_px = max_side_px
        self.pictures: dict[int, Picture] = {}
        self.damaged: set[int] = set()

    def nearest(self, wanted: int) -> int:
        """The number nearest to a wanted one of a picture that can be read, or -1."""
        for number in sorted(range(len(self._files)), key=lambda number: abs(number - wanted)):
            if self._read(number):
                return number
        return -1

    def _read(self, number: int) -> bool:
        if number in self.pictures or number in self.damaged:
            return number in self.pictures
        try:
            picture = read_picture(self._files[number], self._max_side_px)
        except (OSError, SyntaxError):  # Pillow's two ways to say that a file is damaged
            self.damaged.add(number)
            return False
        first = next(iter(self.pictures.values()), picture)
        if picture.shape != first.shape:
            size = (first.shape[1], first.shape[0])
            picture = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        self.pictures[number] = picture
        return True
