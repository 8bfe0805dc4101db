"""Decoding everything, where the wanted frames cannot be had otherwise.

AVI and raw streams do not say when their frames are shown, files that begin in the middle of a
group of pictures do not say which of them are, and damaged files promise frames that cannot be
decoded: only a decode tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.media.containers import MediaFile
from mien.media.errors import ClipError
from mien.media.frame_times import (
    DecodedVideo,
    FrameTimes,
    Ticks,
    Wanted,
    has_times,
    stated_times,
    times_of,
)
from mien.media.packets import ClipPackets, read_packets, video_stream
from mien.media.pictures import PictureStack
from mien.media.video import Damage, decode_in_order, first_video_packets, set_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDecode:
    """What a decode of everything gave out."""

    times: FrameTimes
    """Of the frames that the clip should have."""
    ticks: Ticks
    """Times of the frames that were given out, in order."""
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Wanted frames among those that a decode gives out."""

    times: FrameTimes
    indices: Ticks
    shown: Ticks
    ordinals: Ticks
    """[T] the wanted frames, counted as the decoder gives them out."""

    def stack(self, max_side_px: int | None) -> tuple[PictureStack, dict[int, int]]:
        """An empty array for the pictures, and each frame's place in it by its ordinal."""
        place_of = {
            ordinal: place for place, ordinal in enumerate(np.unique(self.ordinals).tolist())
        }
        return PictureStack(len(place_of), max_side_px), place_of


def decode_sequentially(media: MediaFile, wanted: Wanted, num_threads: int) -> DecodedVideo:
    """The wanted frames from a full decode.

    Where every packet holds one frame, as nearly always, the wanted ones are known beforehand and
    taken as they come; else the film is decoded once to count and once more to take them. In a
    damaged clip, whose packets tell of frames that the decoder does not give out, the nearest frame
    stands in.

    Raises:
        ClipError: the clip has no frame between its start and its end, or too few that decode.
    """
    with media.open() as container:
        stream = video_stream(container, media.location)
        set_threads(stream, num_threads)
        packets = read_packets(
            container, stream, None, media, start_s=wanted.start_s, end_s=wanted.end_s
        )
        choice = _expected(container, stream, packets, wanted, media.location)
        stack, place_of = choice.stack(wanted.max_side_px) if choice else (None, {})
        full = _decode_all(container, stream, packets, media, (stack, place_of))
    if choice is None or not _is_as_expected(choice, full, wanted):
        choice = _choose(full.times, full.ticks, wanted, media.location)
        stack = _decode_again(media, choice, wanted, num_threads)
    assert stack is not None
    return DecodedVideo(
        times=choice.times,
        indices=choice.indices,
        shown=choice.shown,
        frames_THWC=stack.pictures_THWC()[np.unique(choice.ordinals, return_inverse=True)[1]],
        refused=full.refused,
    )


def _expected(
    container: Any, stream: Any, packets: ClipPackets, wanted: Wanted, location: str
) -> _Choice | None:
    """The choice if every packet is a frame of a film without times; None of other films."""
    if has_times(container) or not packets.stamps:
        return None
    times = times_of(stream, _counted_ticks(stream, packets, len(packets.stamps)))
    return _choose(times, times.ticks, wanted, location)


def _is_as_expected(choice: _Choice, full: FullDecode, wanted: Wanted) -> bool:
    """Whether every frame came, at the expected time."""
    times = full.times.window(wanted.start_s, wanted.end_s)
    return (
        np.array_equal(full.times.ticks, full.ticks)
        and np.array_equal(times.ticks, choice.times.ticks)
        and (times.zero, times.end) == (choice.times.zero, choice.times.end)
    )


def _choose(times: FrameTimes, ticks: Ticks, wanted: Wanted, location: str) -> _Choice:
    times = times.window(wanted.start_s, wanted.end_s)
    ordinals = np.flatnonzero(np.isin(ticks, times.ticks))
    wanted.check_decodable(len(ordinals), len(times.ticks), location)
    indices = wanted.choose(len(times.ticks), location)
    numbers = np.searchsorted(times.ticks, ticks[ordinals])
    nearest = [int(np.argmin(np.abs(numbers - index))) for index in indices]
    return _Choice(times=times, indices=indices, shown=numbers[nearest], ordinals=ordinals[nearest])


def _decode_again(
    media: MediaFile, choice: _Choice, wanted: Wanted, num_threads: int
) -> PictureStack:
    stack, place_of = choice.stack(wanted.max_side_px)
    with media.open() as container:
        stream = video_stream(container, media.location)
        set_threads(stream, num_threads)
        packets = read_packets(
            container, stream, None, media, start_s=wanted.start_s, end_s=wanted.end_s
        )
        feed = first_video_packets(packets, media)
        for ordinal, frame in enumerate(decode_in_order(stream, feed, Damage())):
            if ordinal in place_of:
                stack.put(place_of[ordinal], frame)
                if stack.is_full():
                    break
    return stack


def decode_everything(media: MediaFile) -> FullDecode:
    """Decode everything and keep nothing but the frames' times.

    Raises:
        ClipError: no frame can be decoded.
    """
    with media.open() as container:
        stream = video_stream(container, media.location)
        set_threads(stream, 1)
        packets = read_packets(container, stream, None, media)
        return _decode_all(container, stream, packets, media, (None, {}))


def _decode_all(
    container: Any,
    stream: Any,
    packets: ClipPackets,
    media: MediaFile,
    taken: tuple[PictureStack | None, Mapping[int, int]],
) -> FullDecode:
    """Decode everything, take some of the frames by their ordinals, and tell all frames' times."""
    damage = Damage()
    stack, place_of = taken
    ticks = []
    for ordinal, frame in enumerate(
        decode_in_order(stream, first_video_packets(packets, media), damage)
    ):
        ticks.append(frame.pts)
        if stack is not None and ordinal in place_of:
            stack.put(place_of[ordinal], frame)
    if not ticks:
        raise nothing_decodable(media.location, stream)
    stated = stated_times(container, stream, packets)
    if damage.refused and stated is not None and set(ticks) <= set(stated.ticks.tolist()):
        times = stated
    else:
        zero = packets.zero
        if not has_times(container) or not _is_increasing(ticks):
            # Reading began at the file's beginning: only containers with times are sought in.
            ticks, zero = _counted_ticks(stream, packets, len(ticks)), None
        times = times_of(stream, ticks, zero=zero)
    return FullDecode(times=times, ticks=np.asarray(ticks, dtype=np.int64), refused=damage.refused)


def _is_increasing(ticks: Sequence[int | None]) -> bool:
    return all(a is not None and b is not None and a < b for a, b in itertools.pairwise(ticks))


def _counted_ticks(stream: Any, packets: ClipPackets, num_frames: int) -> list[int]:
    """Times of frames whose container gives none: one frame for each slot of the file."""
    slots = sorted({stamp.dts for stamp in packets.stamps if stamp.dts is not None})
    if len(slots) == num_frames:
        return slots
    rate = stream.average_rate or stream.guessed_rate or 25
    return [round(index / rate / stream.time_base) for index in range(num_frames)]


def nothing_decodable(location: str, stream: Any) -> ClipError:
    """The error for a file that opens but gives out no picture."""
    return ClipError(
        "truncated",
        f"no frame of {location} can be decoded ({stream.codec_context.name}); the file is damaged "
        "or cut off. Copy or download it again.",
    )
