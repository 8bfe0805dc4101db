"""A film read once from beginning to end: every frame in order, and the sound beside it.

What `mien.media.decode` does for a clip of which a few frames are wanted, this does for a film of
any length of which all are: nothing is kept but what the reader has not let go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.media.audio_track import FilmSound
from mien.media.containers import MediaFile, PictureOrder, clip_errors
from mien.media.decode import is_pictures
from mien.media.image_folder import DEFAULT_FPS, list_pictures, read_picture
from mien.media.packets import (
    MAX_KEPT_BYTES,
    ClipPackets,
    audio_stream,
    demux,
    stated_duration_s,
    video_stream,
)
from mien.media.pictures import Picture, quarter_turns
from mien.media.sequential import nothing_decodable
from mien.media.storage import absolute
from mien.media.video import Damage, decode_in_order, set_threads

_SOUND_LEAD_S = 1.0
"""So much of the sound behind a frame is decoded before the frame is given out."""
_MOST_WAITING = 512
"""Packets of pictures that wait for their sound; a film whose sound ends early waits no longer."""
_TOLERATED_SHARE, _TOLERATED_S = 0.05, 1.0
"""Headers round; a film that is shorter than its header says by more was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFrame:
    """A frame of a film."""

    index: int
    time_s: float
    """Since the film's first frame, from presentation times; increasing."""
    picture_HWC: Picture
    """RGB, uint8, upright."""


class Film:
    """A media file or folder of pictures, read once in bounded memory.

    Args:
        location: A path or URI.
        with_sound: Whether sound is decoded, where there is any.
        sample_rate_hz: See `FilmSound`.
        picture_order: Of the pictures of a folder.
    """

    def __init__(
        self,
        location: str,
        *,
        with_sound: bool = True,
        sample_rate_hz: int | None = 16_000,
        picture_order: PictureOrder = "natural",
    ) -> None:
        self.location = absolute(location)
        self.sound: FilmSound | None = None
        """The sound beside the frames that were given out; None where there is none."""
        self.frame_rate = float(DEFAULT_FPS)
        """Frames a second, as the file says."""
        self.duration_s = 0.0
        """Where the last frame that was given out ends."""
        self.refused = 0
        """Damaged places that demuxer and decoders refused; known when all frames were read."""
        self.missing_s = 0.0
        """By how much the film is shorter than its header says; 0 within what headers round."""
        self._with_sound = with_sound
        self._sample_rate_hz = sample_rate_hz
        self._picture_order = picture_order

    def frames(self) -> Iterator[FilmFrame]:
        """Every frame, in order of presentation.

        Raises:
            ClipError: the file can't be used, or no frame of it can be decoded.
        """
        with clip_errors(self.location):
            yield from self._pictures() if is_pictures(self.location) else self._film()

    def _pictures(self) -> Iterator[FilmFrame]:
        last: Picture | None = None
        for index, name in enumerate(list_pictures(self.location, self._picture_order)):
            try:
                last = read_picture(name)
            except (OSError, SyntaxError):  # Pillow's two ways to say that a file is damaged
                self.refused += 1
                if last is None:
                    raise
            self.duration_s = (index + 1) / DEFAULT_FPS
            yield FilmFrame(index=index, time_s=index / DEFAULT_FPS, picture_HWC=last)

    def _film(self) -> Iterator[FilmFrame]:
        with MediaFile(self.location).open() as container:
            stream = video_stream(container, self.location)
            set_threads(stream, 1)
            heard = audio_stream(container) if self._with_sound else None
            self.sound = None if heard is None else FilmSound(heard, self._sample_rate_hz)
            packets, damage, clock = ClipPackets(), Damage(), _Clock(stream)
            self.frame_rate = clock.frame_rate
            feed = self._fed(container, stream, heard, packets)
            index = -1
            for index, frame in enumerate(decode_in_order(stream, feed, damage)):
                time_s = clock.time_s(frame)
                if self.sound is not None:
                    self.sound.zero_s = clock.zero_s
                self.duration_s = clock.end_s
                yield FilmFrame(index=index, time_s=time_s, picture_HWC=upright(frame))
            if index < 0:
                raise nothing_decodable(self.location, stream)
            self.refused = packets.refused + damage.refused
            self.refused += 0 if self.sound is None else self.sound.refused
            self.missing_s = _missing_s(container, stream, packets)

    def _fed(self, container: Any, film: Any, heard: Any, packets: ClipPackets) -> Iterator[Any]:
        """The film's packets, each when the sound beside it is decoded."""
        waiting: deque[Any] = deque()
        waiting_bytes = 0
        for packet in demux(container, [film] if heard is None else [film, heard], packets):
            _note_end(packets, packet, film)
            if packet.stream_index == film.index:
                waiting.append(packet)
                waiting_bytes += packet.size
            elif self.sound is not None:
                self.sound.decode(packet)
            while waiting and (
                self._is_heard(waiting[0])
                or len(waiting) > _MOST_WAITING
                or waiting_bytes > MAX_KEPT_BYTES
            ):
                waiting_bytes -= waiting[0].size
                yield waiting.popleft()
        if self.sound is not None:
            self.sound.decode(None)
        yield from waiting

    def _is_heard(self, packet: Any) -> bool:
        """Whether the sound is decoded as far as a packet's frame, and a little further."""
        if self.sound is None:
            return True
        time = packet.pts if packet.pts is not None else packet.dts
        return time is None or self.sound.end_s >= float(time * packet.time_base) + _SOUND_LEAD_S


class _Clock:
    """Times of frames as they come."""

    def __init__(self, stream: Any) -> None:
        self.frame_rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        self.zero_s = 0.0
        self.end_s = 0.0
        self._tick_s = float(stream.time_base)
        self._zero: int | None = None
        self._last_s: float | None = None

    def time_s(self, frame: Any) -> float:
        """Seconds from the first frame to this one."""
        last_s = self._last_s
        time_s = 0.0 if last_s is None else last_s + 1 / self.frame_rate
        if frame.pts is not None:
            if self._zero is None:
                self._zero, self.zero_s = frame.pts, frame.pts * self._tick_s
            stated_s = (frame.pts - self._zero) * self._tick_s
            # AVI and damaged files give times that stand still or run backwards.
            if last_s is None or stated_s > last_s:
                time_s = stated_s
        lasts_s = (frame.duration or 0) * self._tick_s or 1 / self.frame_rate
        self._last_s, self.end_s = time_s, time_s + lasts_s
        return time_s


def _note_end(packets: ClipPackets, packet: Any, film: Any) -> None:
    """Where the packets of the film, and of all streams, end."""
    time = packet.pts if packet.pts is not None else packet.dts
    if time is not None:
        end_s = float((time + (packet.duration or 0)) * packet.time_base)
        packets.end_s = max(packets.end_s, end_s)
        if packet.stream_index == film.index:
            packets.video_end_s = max(packets.video_end_s, end_s)


def _missing_s(container: Any, stream: Any, packets: ClipPackets) -> float:
    promised_s, is_of_video = stated_duration_s(container, stream)
    if promised_s is None:
        return 0.0
    if container.duration:
        promised_s = min(promised_s, container.duration / 1e6)
    begin = stream.start_time * stream.time_base if is_of_video and stream.start_time else 0.0
    read_s = (packets.video_end_s if is_of_video else packets.end_s) - float(begin)
    missing_s = promised_s - read_s
    return missing_s if missing_s > _TOLERATED_SHARE * promised_s + _TOLERATED_S else 0.0


def upright(frame: Any) -> Picture:
    """A decoded frame as RGB [H, W, 3], turned as the file says."""
    # threads=1: swscale would otherwise start threads of its own for every frame.
    picture: Picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
    turns = quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture
