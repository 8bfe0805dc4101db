"""Decoding the wanted frames of a video file, and nothing else.

The decoder is sent only what the wanted frames depend on: of each group of pictures the packets up
to the last wanted one, and of the others none; frames that no other frame refers to are skipped
unless wanted. Where packets do not tell the frames' times, or where the decoder does not give out
what the packets promised, everything has to be decoded (`mien.media.sequential`).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np

from mien.media.containers import MediaFile
from mien.media.frame_times import DecodedVideo, Wanted, stated_times
from mien.media.packets import ClipPackets, Stamp, reread_video
from mien.media.pictures import PictureStack


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
    container: Any, stream: Any, packets: ClipPackets, media: MediaFile, wanted: Wanted
) -> DecodedVideo | None:
    """The wanted frames only, or None if the packets do not tell the truth about the frames.

    Raises:
        ClipError: the clip has no frame between its start and its end.
    """
    times = stated_times(container, stream, packets)
    if times is None:
        return None
    times = times.window(wanted.start_s, wanted.end_s)
    indices = wanted.choose(len(times.ticks), media.location)
    numbers, places = np.unique(indices, return_inverse=True)
    place_of = {tick: place for place, tick in enumerate(times.ticks[numbers].tolist())}
    damage = Damage()
    stack = PictureStack(len(numbers), wanted.max_side_px)
    runs = needed_runs(packets.stamps, place_of)
    decode_runs(stream, packets_of_runs(packets, runs, media), place_of, stack, damage)
    if not stack.is_full():
        return None
    pictures = stack.pictures_THWC()
    return DecodedVideo(
        times=times,
        indices=indices,
        shown=indices,
        frames_THWC=pictures if len(numbers) == len(indices) else pictures[places],
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
    packets: ClipPackets, runs: Sequence[tuple[int, int]], media: MediaFile
) -> Iterator[tuple[Any, bool]]:
    """Packets of the runs, each with whether packets were left out just before it."""
    numbers = itertools.chain.from_iterable(range(start, stop) for start, stop in runs)
    kept = packets.video
    if kept is None:
        found: Iterable[Any] = reread_video(media, packets, runs)
    else:
        found = (kept[number] for start, stop in runs for number in range(start, stop))
    previous = None
    for number, packet in zip(numbers, found, strict=False):
        yield packet, previous is not None and number != previous + 1
        previous = number


def first_video_packets(
    packets: ClipPackets, media: MediaFile, count: int | None = None
) -> Iterable[Any]:
    """The first video packets that were read, or all, from memory or once more from the file."""
    if packets.video is not None:
        return packets.video[:count]
    return reread_video(media, packets, [(0, len(packets.stamps[:count]))])


def decode_runs(
    stream: Any,
    feed: Iterable[tuple[Any, bool]],
    place_of: Mapping[int, int],
    stack: PictureStack,
    damage: Damage,
) -> None:
    """Put those frames that the decoder gives out at wanted times into their places."""
    decoder = stream.codec_context

    def collect(packet: Any | None) -> None:
        for frame in _frames(decoder, packet, damage):
            if frame.pts in place_of:
                stack.put(place_of[frame.pts], frame)

    for packet, is_after_gap in feed:
        if is_after_gap:
            collect(None)
            decoder.flush_buffers()
        decoder.skip_frame = "DEFAULT" if packet.pts in place_of else "NONREF"
        collect(packet)
    collect(None)


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
