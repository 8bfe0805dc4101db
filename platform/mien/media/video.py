"""Decoding the wanted frames of a video file, and nothing else where that is possible.

The fast way sends the decoder only what the wanted frames depend on: of each group of pictures the
packets up to the last wanted one, and of the others none; frames that no other frame refers to are
skipped unless wanted. The sequential way decodes everything, and is taken where packets do not tell
the frames' times, or where the decoder did not give out what the packets promised.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt

from mien.media.containers import open_media
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
from mien.media.packets import ClipPackets, Stamp, read_packets, reread_video, video_stream

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
        turns = quarter_turns(frame)
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that make a frame upright, 0 to 3."""
    rotation_deg: float = frame.rotation
    return round(rotation_deg / 90) % 4


def shrunk_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """Width and height with the long side at most ``max_side_px``, same shape, never enlarged."""
    if max_side_px is None or max(width, height) <= max_side_px:
        return width, height
    scale = max_side_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(slots=True)
class Damage:
    """Counts packets that the decoder refused."""

    refused: int = 0


def set_threads(stream: Any, num_threads: int) -> None:
    """Bound the decoder's threads."""
    stream.codec_context.thread_count = num_threads
    # Frame threads would each have their own idea of which frames are skipped.
    stream.codec_context.thread_type = "SLICE"


def decode_fast(
    container: Any, stream: Any, packets: ClipPackets, location: str, wanted: Wanted
) -> DecodedVideo | None:
    """The wanted frames only, or None if the packets do not tell the truth about the frames.

    Raises:
        ClipError: the clip has no frame between its start and its end.
    """
    times = stated_times(container, stream, packets)
    if times is None:
        return None
    times = times.window(wanted.start_s, wanted.end_s)
    indices = wanted.choose(len(times.ticks), location)
    number_of = {int(times.ticks[index]): int(index) for index in indices}
    damage = Damage()
    form = PictureFormat(max_side_px=wanted.max_side_px)
    runs = needed_runs(packets.stamps, number_of.keys())
    feed = packets_of_runs(packets, runs, location)
    pictures = decode_runs(stream, feed, number_of.keys(), form, damage)
    if len(pictures) < len(number_of):
        return None
    return DecodedVideo(
        times=times,
        indices=indices,
        shown=indices,
        pictures={number_of[tick]: picture for tick, picture in pictures.items()},
        refused=damage.refused,
    )


def needed_runs(stamps: Sequence[Stamp], wanted: Collection[int]) -> list[tuple[int, int]]:
    """Runs [start, stop) of packets that the wanted frames depend on, in decoding order.

    Each run begins at a key frame, unless its group is the file's first. A frame that is shown
    before the key frame which it follows in the file (an open group of pictures) also depends on
    the whole group before.
    """
    starts = [number for number, stamp in enumerate(stamps) if stamp.is_keyframe or number == 0]
    runs: list[tuple[int, int]] = []
    is_whole = False
    for start, stop in reversed(list(itertools.pairwise([*starts, len(stamps)]))):
        shown = (number for number in range(start, stop) if stamps[number].pts in wanted)
        last = stop - 1 if is_whole else max(shown, default=None)
        if last is None:
            continue
        runs.append((start, last + 1))
        key_time = stamps[start].pts or 0
        is_whole = any((stamp.pts or 0) < key_time for stamp in stamps[start : last + 1])
    return runs[::-1]


def packets_of_runs(
    packets: ClipPackets, runs: Sequence[tuple[int, int]], location: str
) -> Iterator[tuple[Any, bool]]:
    """Packets of the runs, each with whether packets were left out just before it."""
    numbers = itertools.chain.from_iterable(range(start, stop) for start, stop in runs)
    kept = packets.video
    if kept is None:
        found: Iterable[Any] = reread_video(location, packets, runs)
    else:
        found = (kept[number] for start, stop in runs for number in range(start, stop))
    previous = None
    for number, packet in zip(numbers, found, strict=False):
        yield packet, previous is not None and number != previous + 1
        previous = number


def decode_runs(
    stream: Any,
    feed: Iterable[tuple[Any, bool]],
    wanted: Collection[int],
    form: PictureFormat,
    damage: Damage,
) -> dict[int, Picture]:
    """Pictures by presentation time, for those wanted times that the decoder gives out."""
    decoder = stream.codec_context
    pictures: dict[int, Picture] = {}

    def collect(packet: Any | None) -> None:
        for frame in _frames(decoder, packet, damage):
            if frame.pts in wanted:
                pictures[frame.pts] = form.picture(frame)

    for packet, is_after_gap in feed:
        if is_after_gap:
            collect(None)
            decoder.flush_buffers()
        decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        collect(packet)
    collect(None)
    return pictures


def decode_in_order(stream: Any, feed: Iterable[Any], damage: Damage) -> Iterator[Any]:
    """Every frame in presentation order."""
    for packet in itertools.chain(feed, [None]):
        yield from _frames(stream.codec_context, packet, damage)


def _frames(decoder: Any, packet: Any | None, damage: Damage) -> list[Any]:
    try:
        frames: list[Any] = decoder.decode(packet)
    except av.error.FFmpegError:
        damage.refused += 1
        return []
    return frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDecode:
    """What a decode of everything gave out."""

    times: FrameTimes
    """Of the frames that the clip should have."""
    ticks: Ticks
    """Times of the frames that were given out, in order."""
    refused: int


def decode_sequentially(location: str, wanted: Wanted, num_threads: int) -> DecodedVideo:
    """The wanted frames from a full decode: once to count, once to convert.

    In a damaged clip, whose packets tell of frames that the decoder does not give out, the nearest
    frame stands in.

    Raises:
        ClipError: the clip has no frame between its start and its end, or too few that decode.
    """
    full = decode_everything(location, wanted.start_s, wanted.end_s, num_threads)
    times = full.times.window(wanted.start_s, wanted.end_s)
    ordinals = np.flatnonzero(np.isin(full.ticks, times.ticks))
    wanted.check_decodable(len(ordinals), len(times.ticks), location)
    indices = wanted.choose(len(times.ticks), location)
    numbers = np.searchsorted(times.ticks, full.ticks[ordinals])
    nearest = [int(np.argmin(np.abs(numbers - index))) for index in indices]
    shown = numbers[nearest]
    number_of = dict(zip(ordinals[nearest].tolist(), shown.tolist(), strict=True))
    return DecodedVideo(
        times=times,
        indices=indices,
        shown=shown,
        pictures=_pictures_by_ordinal(location, number_of, wanted, num_threads),
        refused=full.refused,
    )


def _pictures_by_ordinal(
    location: str, number_of: dict[int, int], wanted: Wanted, num_threads: int
) -> dict[int, Picture]:
    form = PictureFormat(max_side_px=wanted.max_side_px)
    pictures: dict[int, Picture] = {}
    with open_media(location) as container:
        stream = video_stream(container, location)
        set_threads(stream, num_threads)
        packets = read_packets(
            container, stream, None, location, start_s=wanted.start_s, end_s=wanted.end_s
        )
        feed = all_video_packets(packets, location)
        for ordinal, frame in enumerate(decode_in_order(stream, feed, Damage())):
            if ordinal in number_of:
                pictures[number_of[ordinal]] = form.picture(frame)
                if len(pictures) == len(number_of):
                    break
    return pictures


def all_video_packets(packets: ClipPackets, location: str) -> Iterable[Any]:
    """Every video packet that was read, from memory or once more from the file."""
    if packets.video is not None:
        return packets.video
    return reread_video(location, packets, [(0, len(packets.stamps))])


def decode_everything(
    location: str, start_s: float | None, end_s: float | None, num_threads: int
) -> FullDecode:
    """Decode everything and keep nothing but the frames' times.

    Raises:
        ClipError: no frame can be decoded.
    """
    damage = Damage()
    with open_media(location) as container:
        stream = video_stream(container, location)
        set_threads(stream, num_threads)
        packets = read_packets(container, stream, None, location, start_s=start_s, end_s=end_s)
        feed = all_video_packets(packets, location)
        ticks = [frame.pts for frame in decode_in_order(stream, feed, damage)]
        if not ticks:
            raise nothing_decodable(location, stream)
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
