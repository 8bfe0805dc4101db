"""Demuxing: which frames a clip has, from its packets alone, before anything is decoded.

Times are in ticks of the stream's time base until they leave `DecodedClip`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt

from mien.media.errors import ClipError

Ticks = npt.NDArray[np.int64]

# AVI stores no presentation times; FFmpeg's guesses are wrong with B-frames.
_FORMATS_WITHOUT_TIMES = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo", "obu"})

# Their headers state a duration; in others FFmpeg reads it off the file's end or guesses.
_FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "avi", "asf"})


@dataclass(slots=True, kw_only=True)
class ClipPackets:
    """The packets of a clip's video and sound, in the order of the file."""

    video: list[Any] = field(default_factory=list)
    audio: list[Any] = field(default_factory=list)
    refused: int = 0
    """Places at which the demuxer met damage."""
    end_s: float = 0.0
    """Where the last packet of any stream ends."""


def video_stream(container: Any, location: str) -> Any:
    """The first video stream that is a film and can be decoded.

    Raises:
        ClipError: there is none.
    """
    streams = container.streams.video
    films = [stream for stream in streams if not _is_cover(stream)]
    usable = [stream for stream in films if stream.codec_context is not None]
    if usable:
        return usable[0]
    others = ", ".join(stream.type for stream in container.streams) or "no stream at all"
    raise ClipError(
        "no_video_stream",
        f"{location} holds no video that can be decoded (it holds {others}); expected a film with "
        "pictures. Check the export, or take the row out of the manifest.",
    )


def _is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & int(stream.disposition.attached_pic))


def audio_stream(container: Any) -> Any | None:
    """The first sound stream that can be decoded, or None."""
    usable = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(usable, None)


def read_packets(container: Any, video: Any | None, audio: Any | None) -> ClipPackets:
    """All packets of the given streams, as far as the file can be read."""
    packets = ClipPackets()
    wanted = [stream for stream in (video, audio) if stream is not None]
    demuxed = container.demux(*wanted)
    while True:
        try:
            packet = next(demuxed, None)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            packets.refused += 1
            break
        if packet is None:
            break
        if packet.size == 0:  # end of stream, or AVI's "show the last frame again"
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            end = (time + (packet.duration or 0)) * packet.time_base
            packets.end_s = max(packets.end_s, float(end))
        is_video = video is not None and packet.stream_index == video.index
        (packets.video if is_video else packets.audio).append(packet)
    return packets


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """Presentation times of a clip's frames, sorted, in ticks."""

    ticks: Ticks
    """[T], strictly increasing."""
    time_base: Fraction
    zero: int
    """The file's time zero: its first presentable frame."""
    end: int
    """Where the last frame of the file ends."""

    def seconds(self, ticks: Ticks) -> npt.NDArray[np.float64]:
        """Seconds since the file's first frame."""
        seconds: npt.NDArray[np.float64] = (ticks - self.zero) * float(self.time_base)
        return seconds

    def window(self, start_s: float | None, end_s: float | None) -> FrameTimes:
        """The frames that begin in [start_s, end_s); zero and end remain the file's."""
        # Containers round times to ticks: 50/29.97 s is stored as 1.668 in Matroska.
        slack_s = min(0.5 * float(self.time_base), 1e-3) + 1e-6
        seconds = self.seconds(self.ticks)
        keep = np.ones(len(seconds), dtype=np.bool_)
        if start_s is not None:
            keep &= seconds >= start_s - slack_s
        if end_s is not None:
            keep &= seconds < end_s - slack_s
        return FrameTimes(
            ticks=self.ticks[keep], time_base=self.time_base, zero=self.zero, end=self.end
        )


def frame_times(container: Any, stream: Any, packets: list[Any]) -> FrameTimes | None:
    """The frames' times as the packets tell them, or None where they cannot be trusted."""
    names = set(container.format.name.split(","))
    ticks = [packet.pts for packet in packets if not packet.is_discard]
    if not ticks or names & _FORMATS_WITHOUT_TIMES or None in ticks:
        return None
    if len(set(ticks)) != len(ticks):
        return None
    return times_of(stream, sorted(ticks), {p.pts: p.duration or 0 for p in packets})


def times_of(stream: Any, ticks: list[int], durations: dict[int, int]) -> FrameTimes:
    """Frame times from sorted ticks; the last frame lasts as long as it says, or as the mean."""
    last = durations.get(ticks[-1], 0)
    if last <= 0 and len(ticks) > 1:
        last = round((ticks[-1] - ticks[0]) / (len(ticks) - 1))
    return FrameTimes(
        ticks=np.asarray(ticks, dtype=np.int64),
        time_base=stream.time_base,
        zero=ticks[0],
        end=ticks[-1] + max(1, last),
    )


def stated_duration_s(container: Any, stream: Any) -> float | None:
    """How long the container's header says that the clip is; None where it does not say."""
    if not set(container.format.name.split(",")) & _FORMATS_WITH_DURATION:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def groups_of_pictures(packets: list[Any]) -> Iterator[tuple[int, int]]:
    """Runs [start, stop) of packets in decoding order, each beginning at a key frame."""
    starts = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    if not starts or starts[0] != 0:
        starts.insert(0, 0)
    yield from zip(starts, [*starts[1:], len(packets)], strict=True)
