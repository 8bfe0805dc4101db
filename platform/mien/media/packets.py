"""Demuxing: which frames a clip has, from its packets alone, before anything is decoded.

Times are in ticks of the stream's time base until they leave `DecodedClip`. Time zero of a file is
its first presentable frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av.error

from mien.media.containers import open_media
from mien.media.errors import ClipError

MAX_KEPT_BYTES = 64 * 2**20
"""Packets of larger clips are read a second time rather than held in memory."""

_HEAD_PACKETS = 64
_SEEK_FROM_S = 4.0
# Far enough before the clip that an audio decoder is in its stride when the clip begins.
_BACK_OFF_S = (1.0, 4.0, 16.0, 64.0)
_STOP_AFTER_S = 1.0
# Containers with an index of key frames by time; in others FFmpeg guesses its way.
_FORMATS_WITH_INDEX = frozenset({"mov", "matroska"})
# Their headers state a duration; in others FFmpeg reads it off the file's end or estimates it.
_FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "avi", "asf"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a video packet says of its frame."""

    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool
    is_shown: bool
    """False for frames outside of an edit list and for frames that are only referred to."""


@dataclass(slots=True, kw_only=True)
class ClipPackets:
    """The packets of a clip's video and sound, in the order of the file."""

    stamps: list[Stamp] = field(default_factory=list)
    """Of the video packets."""
    video: list[Any] | None = field(default_factory=list)
    """The video packets; None where they are too large to be kept."""
    audio: list[Any] = field(default_factory=list)
    zero: int | None = None
    """First presentable frame of the file in ticks, where that is not in `stamps`."""
    seek_to: int | None = None
    """Where reading began, in ticks; None is the file's beginning."""
    refused: int = 0
    """Places at which the demuxer met damage."""
    video_end_s: float = 0.0
    end_s: float = 0.0
    """Where the last packet of any stream ends, on the container's clock."""


def video_stream(container: Any, location: str) -> Any:
    """The first video stream that is a film (not a cover picture) and can be decoded.

    Raises:
        ClipError: there is none.
    """
    for stream in container.streams.video:
        if stream.codec_context is not None and not _is_cover(stream):
            return stream
    others = ", ".join(stream.type for stream in container.streams) or "nothing at all"
    raise ClipError(
        "no_video_stream",
        f"{location} holds no film that can be decoded (it holds: {others}); expected a video "
        "stream. Check how it was exported, or take its row out of the manifest.",
    )


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def audio_stream(container: Any) -> Any | None:
    """The first sound stream that can be decoded, or None."""
    usable = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(usable, None)


def has_format(container: Any, names: frozenset[str]) -> bool:
    """Whether a container is one of the named kinds."""
    return bool(names & set(container.format.name.split(",")))


def demux(container: Any, streams: Sequence[Any], packets: ClipPackets) -> Iterator[Any]:
    """Packets with content of the given streams, as far as the file can be read."""
    demuxed = container.demux(*streams)
    while True:
        try:
            packet = next(demuxed, None)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):  # the disk or the network, not the file
                raise
            packets.refused += 1
            return
        except IndexError:
            # PyAV stumbles over packets of a stream that begins inside of the file; they are not
            # ours, and reading goes on after them.
            demuxed = container.demux(*streams)
            continue
        if packet is None:
            return
        if packet.size:  # 0: end of stream, or AVI's "show the last frame again"
            yield packet


def read_packets(
    container: Any,
    video: Any,
    audio: Any | None,
    location: str,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> ClipPackets:
    """The packets on which a clip depends.

    A clip that begins well inside a long file is reached through the container's index if it has
    one; reading stops a little after the clip's end.
    """
    packets = ClipPackets()
    if (
        start_s is not None
        and start_s > _SEEK_FROM_S
        and has_format(container, _FORMATS_WITH_INDEX)
    ):
        packets.zero, packets.seek_to = entry_point(location, start_s)
        if packets.seek_to is not None:
            container.seek(packets.seek_to, stream=video, backward=True)
    streams = [stream for stream in (video, audio) if stream is not None]
    going_on = {stream.index for stream in streams}
    ends = _Ends(streams)
    kept_bytes = 0
    for packet in demux(container, streams, packets):
        is_video = packet.stream_index == video.index
        ends.note(packet)
        if is_video:
            packets.stamps.append(stamp(packet, video))
            kept_bytes += packet.size
            packets.video = _kept(packets.video, packet, kept_bytes)
        else:
            packets.audio.append(packet)
        if end_s is not None and _is_past(packet, packets, video, end_s):
            going_on.discard(packet.stream_index)
            if not going_on:
                break
    packets.video_end_s, packets.end_s = ends.of(video), ends.last
    return packets


def _kept(kept: list[Any] | None, packet: Any, kept_bytes: int) -> list[Any] | None:
    if kept is None or kept_bytes > MAX_KEPT_BYTES:
        return None
    kept.append(packet)
    return kept


def read_audio_packets(container: Any, audio: Any) -> ClipPackets:
    """All packets of a sound stream."""
    packets = ClipPackets()
    packets.audio.extend(demux(container, [audio], packets))
    return packets


def reread_video(
    location: str, packets: ClipPackets, runs: Sequence[tuple[int, int]]
) -> Iterator[Any]:
    """The video packets of the given runs, numbered as in ``packets.stamps``, from the file."""
    with open_media(location) as container:
        stream = video_stream(container, location)
        if packets.seek_to is not None:
            container.seek(packets.seek_to, stream=stream, backward=True)
        remaining = iter(runs)
        start, stop = next(remaining, (0, 0))
        for number, packet in enumerate(demux(container, [stream], ClipPackets())):
            if number >= stop:
                start, stop = next(remaining, (0, 0))
                if not stop:
                    return
            if start <= number < stop:
                yield packet


def stamp(packet: Any, stream: Any) -> Stamp:
    """What a packet says of its frame."""
    is_shown = not packet.is_discard
    if stream.codec_context.name.startswith(("vp8", "libvpx")) and is_shown:
        # RFC 6386, 9.1: bit 4 of a VP8 frame is show_frame; WebM holds hidden frames as packets.
        is_shown = bool(memoryview(packet)[0] & 0x10)
    return Stamp(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, is_shown)


def entry_point(location: str, start_s: float) -> tuple[int | None, int | None]:
    """Where to begin to read for a clip inside of a long file.

    Returns:
        The tick of the file's first frame, and a tick to seek to from which on everything that the
        clip depends on is read; None where only reading from the beginning is safe.
    """
    with open_media(location) as container:
        stream = video_stream(container, location)
        head: list[int] = []
        for packet in demux(container, [stream], ClipPackets()):
            if packet.pts is None:
                return None, None
            if not packet.is_discard:
                head.append(packet.pts)
            if len(head) == _HEAD_PACKETS:
                break
        if not head:
            return None, None
        zero = min(head)
        for back_off_s in _BACK_OFF_S:
            if back_off_s >= start_s:
                break
            seek_to = zero + int((start_s - back_off_s) / stream.time_base)
            container.seek(seek_to, stream=stream, backward=True)
            packet = next(demux(container, [stream], ClipPackets()), None)
            # Frames before a key frame in the file are shown before it: none of ours is missed.
            if packet is not None and packet.is_keyframe and (packet.pts or 0) <= seek_to:
                return zero, seek_to
        return zero, None


class _Ends:
    """Where the last packet of each stream ends, on the container's clock."""

    def __init__(self, streams: Sequence[Any]) -> None:
        # As floats: arithmetic of fractions is a tenth of the time of decoding a small clip.
        self._tick_s = {stream.index: float(stream.time_base) for stream in streams}
        self._ends_s = {stream.index: 0.0 for stream in streams}

    def note(self, packet: Any) -> None:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            index = packet.stream_index
            end_s = (time + (packet.duration or 0)) * self._tick_s[index]
            self._ends_s[index] = max(self._ends_s[index], end_s)

    def of(self, stream: Any) -> float:
        """Where one stream ends."""
        return self._ends_s[stream.index]

    @property
    def last(self) -> float:
        """Where the last of all streams ends."""
        return max(self._ends_s.values())


def _is_past(packet: Any, packets: ClipPackets, video: Any, end_s: float) -> bool:
    """Whether nothing after this packet of its stream can belong to the clip."""
    if packet.dts is None:
        return False
    if packets.zero is None:
        if len(packets.stamps) < _HEAD_PACKETS:
            return False
        shown = [stamp.pts for stamp in packets.stamps if stamp.is_shown and stamp.pts is not None]
        packets.zero = min(shown, default=None)
        if packets.zero is None:
            return False
    zero_s = float(packets.zero * video.time_base)
    return float(packet.dts * packet.time_base) > zero_s + end_s + _STOP_AFTER_S


def stated_duration_s(container: Any, stream: Any) -> tuple[float | None, bool]:
    """How long the header says that the clip is, and whether it says so of the video itself.

    None where it does not say.
    """
    if not has_format(container, _FORMATS_WITH_DURATION):
        return None, False
    if stream.duration:
        return float(stream.duration * stream.time_base), True
    return (container.duration / 1e6 if container.duration else None), False
