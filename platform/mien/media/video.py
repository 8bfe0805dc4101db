"""Decoding the wanted frames of a video stream, and nothing else where that is possible.

The fast way sends the decoder only what the wanted frames depend on: of each group of pictures the
packets up to the last wanted one, and of the others none; frames that no other frame refers to are
skipped unless wanted. The sequential way decodes everything, and is taken where packets do not tell
the frames' times, or where the decoder did not give out what the packets promised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt

from mien.media.packets import groups_of_pictures

Picture = npt.NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class PictureFormat:
    """How decoded frames become RGB arrays; the first one sets the size for all."""

    max_side_px: int | None
    size: tuple[int, int] | None = None
    """Width and height before rotation."""

    def picture(self, frame: Any) -> Picture:
        """The frame as RGB [H, W, 3], upright."""
        if self.size is None:
            self.size = shrunk_size(frame.width, frame.height, self.max_side_px)
        width, height = self.size
        # threads=1: swscale would otherwise start threads of its own for every frame.
        converted = frame.reformat(width=width, height=height, format="rgb24", threads=1)
        picture: Picture = converted.to_ndarray()
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def shrunk_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """Width and height with the long side at most ``max_side_px``, same shape, never enlarged."""
    if max_side_px is None or max(width, height) <= max_side_px:
        return width, height
    scale = max_side_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(slots=True)
class Damage:
    """Packets that the decoder refused."""

    refused: int = 0


def decode_wanted(
    stream: Any, packets: list[Any], wanted: Collection[int], form: PictureFormat, damage: Damage
) -> dict[int, Picture]:
    """Pictures by presentation time, for those wanted times that the decoder gives out."""
    decoder = stream.codec_context
    pictures: dict[int, Picture] = {}
    position = 0
    for start, stop in needed_runs(packets, wanted):
        if start != position and position:
            _collect(_frames(decoder, None, damage), wanted, form, pictures)
            decoder.flush_buffers()
        for packet in packets[start:stop]:
            decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            _collect(_frames(decoder, packet, damage), wanted, form, pictures)
        position = stop
    _collect(_frames(decoder, None, damage), wanted, form, pictures)
    return pictures


def needed_runs(packets: list[Any], wanted: Collection[int]) -> list[tuple[int, int]]:
    """Runs [start, stop) of packets that the wanted frames depend on, in decoding order.

    A frame shown before the key frame that it follows in the file (an open group) also depends on
    the whole group before.
    """
    runs: list[tuple[int, int]] = []
    needs_whole = False
    for start, stop in reversed(list(groups_of_pictures(packets))):
        last = max(
            (index for index in range(start, stop) if packets[index].pts in wanted), default=None
        )
        if needs_whole:
            last = stop - 1
        if last is None:
            continue
        runs.append((start, last + 1))
        key_time = packets[start].pts
        needs_whole = any(packet.pts < key_time for packet in packets[start : last + 1])
    return runs[::-1]


def decode_in_order(stream: Any, packets: list[Any], damage: Damage) -> Iterator[Any]:
    """Every frame in presentation order."""
    decoder = stream.codec_context
    decoder.skip_frame = "DEFAULT"
    for packet in [*packets, None]:
        yield from _frames(decoder, packet, damage)


def _frames(decoder: Any, packet: Any | None, damage: Damage) -> list[Any]:
    try:
        frames: list[Any] = decoder.decode(packet)
    except av.error.FFmpegError:
        damage.refused += 1
        return []
    return frames


def _collect(
    frames: list[Any],
    wanted: Collection[int],
    form: PictureFormat,
    pictures: dict[int, Picture],
) -> None:
    for frame in frames:
        if frame.pts in wanted:
            pictures[frame.pts] = form.picture(frame)
