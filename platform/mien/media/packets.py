"""Demuxing: which frames a clip has, from its packets alone, before anything is decoded.

Times are in ticks of the stream's time base until they leave `DecodedClip`. Time zero of a file is
its first presentable frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import av.error

from mien.media.containers import MediaFile
from mien.media.errors import ClipError
from mien.media.remote import Range
from mien.media.skipping import UntrueIndexError, key_frame_places, may_skip, place_of

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
    """The video packets; None where they are too large to be kept, or still have to be fetched."""
    audio: list[Any] = field(default_factory=list)
    """The sound packets; where they still have to be fetched, only their times are right."""
    places: list[Range] | None = None
    """Where the video packets lie, if they still have to be fetched."""
    key_places: frozenset[int] | None = None
    """Where key frames lie, in that case."""
    zero: int | None = None
    """First presentable frame of the file in ticks, where that is not in `stamps`."""
    seek_to: int | None = None
    """Where reading began, in ticks; None is the file's beginning."""
    refused: int = 0
    """Places at which the demuxer met damage."""
    video_end_s: float = 0.0
    end_s: float = 0.0
    """Where the last packet of any stream ends, on the container's clock."""

    def note_video(self, packet: Any, stream: Any, *, is_kept: bool) -> None:
        """Note what a video packet says, and keep it or its place."""
        self.stamps.append(stamp(packet, stream))
        if self.places is not None:
            if self.places or self.seek_to is not None:  # else it was read when opening the file
                is_keyframe = _is_keyframe(packet, self.key_places)
                self.stamps[-1] = replace(self.stamps[-1], is_keyframe=is_keyframe)
            self.places.append(place_of(packet))
        elif self.video is not None and is_kept:
            self.video.append(packet)
        else:
            self.video = None


def video_stream(container: Any, location: str) -> Any:
    """The film of a container, chosen as players do: see `_rank`.

    Cover pictures are no films.

    Raises:
        ClipError: there is none that can be decoded.
    """
    films = [stream for stream in container.streams.video if not _has(stream, "attached_pic")]
    usable = [stream for stream in films if stream.codec_context is not None]
    if usable:
        return max(usable, key=_rank)
    others = ", ".join(stream.type for stream in container.streams) or "nothing at all"
    raise ClipError(
        "no_video_stream",
        f"{location} holds no film that can be decoded (it holds: {others}); expected a video "
        "stream. Check how it was exported, or take its row out of the manifest.",
    )


def _rank(stream: Any) -> tuple[bool, int]:
    """Streams that the file marks as its default go first, then larger ones, then earlier ones."""
    return _has(stream, "default"), stream.codec_context.width * stream.codec_context.height


def _has(stream: Any, disposition: str) -> bool:
    return bool(stream.disposition & type(stream.disposition)[disposition])


def audio_stream(container: Any) -> Any | None:
    """The sound stream that the file marks as its default, else the first; None without sound."""
    usable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return max(usable, key=lambda stream: _has(stream, "default"), default=None)


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
    media: MediaFile,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> ClipPackets:
    """The packets on which a clip depends.

    A clip that begins well inside a long file is reached through the container's index if it has
    one; reading stops a little after the clip's end.
    """
    packets = ClipPackets()
    streams = [stream for stream in (video, audio) if stream is not None]
    if may_skip(container, media, streams):
        assert media.remote is not None
        media.remote.is_hollow = True
        packets.video, packets.places, packets.key_places = None, [], key_frame_places(video)
    if (
        start_s is not None
        and start_s > _SEEK_FROM_S
        and has_format(container, _FORMATS_WITH_INDEX)
    ):
        packets.zero, packets.seek_to = entry_point(media, start_s, packets.key_places)
        if packets.seek_to is not None:
            container.seek(packets.seek_to, stream=video, backward=True)
    going_on = {stream.index for stream in streams}
    ends = _Ends(streams)
    kept_bytes = 0
    for packet in demux(container, streams, packets):
        ends.note(packet)
        if packet.stream_index == video.index:
            kept_bytes += packet.size
            packets.note_video(packet, video, is_kept=kept_bytes <= MAX_KEPT_BYTES)
        else:
            packets.audio.append(packet)
        if end_s is not None and _is_past(packet, packets, video, end_s):
            going_on.discard(packet.stream_index)
            if not going_on:
                break
    packets.video_end_s, packets.end_s = ends.of(video), ends.last
    return packets


def read_audio_packets(container: Any, audio: Any) -> ClipPackets:
    """All packets of a sound stream."""
    packets = ClipPackets()
    packets.audio.extend(demux(container, [audio], packets))
    return packets


def reread_video(
    media: MediaFile, packets: ClipPackets, runs: Sequence[tuple[int, int]]
) -> Iterator[Any]:
    """The video packets of the given runs, numbered as in ``packets.stamps``, from the file."""
    _fetch(media, packets, runs)
    with media.open() as container:
        stream = video_stream(container, media.location)
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
                if packets.places is not None:
                    _compare(stamp(packet, stream), packets.stamps[number], number == start)
                yield packet


def _compare(found: Stamp, promised: Stamp, is_start: bool) -> None:
    """Raise if a packet is not what the index said; only at starts it has to be a key frame."""
    times = (found.pts, found.dts, found.duration, found.is_shown)
    if times != (promised.pts, promised.dts, promised.duration, promised.is_shown) or (
        is_start and not found.is_keyframe
    ):
        raise UntrueIndexError


def fetched_audio(media: MediaFile, packets: ClipPackets) -> list[Any]:
    """The sound packets with their content."""
    if packets.places is None or not packets.audio:
        return packets.audio
    _fetch(media, packets, [])
    wanted = {packet.pos for packet in packets.audio}
    with media.open() as container:
        stream = audio_stream(container)
        if packets.seek_to is not None:
            film = video_stream(container, media.location)
            container.seek(packets.seek_to, stream=film, backward=True)
        found = demux(container, [stream], ClipPackets())
        ours = (packet for packet in found if packet.pos in wanted)
        return list(itertools.islice(ours, len(wanted)))


def _fetch(media: MediaFile, packets: ClipPackets, runs: Sequence[tuple[int, int]]) -> None:
    """Fetch the content of the given runs of video packets and of the sound, all at once."""
    if packets.places is None:
        return
    assert media.remote is not None
    film = (packets.places[number] for start, stop in runs for number in range(start, stop))
    ranges = [*film, *map(place_of, packets.audio)]
    media.remote.is_hollow = media.remote.fetch(ranges)


def stamp(packet: Any, stream: Any) -> Stamp:
    """What a packet says of its frame."""
    is_shown = not packet.is_discard
    if stream.codec_context.name.startswith(("vp8", "libvpx")) and is_shown:
        # RFC 6386, 9.1: bit 4 of a VP8 frame is show_frame; WebM holds hidden frames as packets.
        is_shown = bool(memoryview(packet)[0] & 0x10)
    return Stamp(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, is_shown)


def _is_keyframe(packet: Any, key_places: frozenset[int] | None) -> bool:
    return packet.is_keyframe if key_places is None else packet.pos in key_places


def entry_point(
    media: MediaFile, start_s: float, key_places: frozenset[int] | None
) -> tuple[int | None, int | None]:
    """Where to begin to read for a clip inside of a long file.

    Key frames are where ``key_places`` says, if it is given, else where FFmpeg says.

    Returns:
        The tick of the file's first frame, and a tick to seek to from which on everything that the
        clip depends on is read; None where only reading from the beginning is safe.
    """
    with media.open() as container:
        stream = video_stream(container, media.location)
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
            if packet is None or (packet.pts or 0) > seek_to:
                continue
            if _is_keyframe(packet, key_places):
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
