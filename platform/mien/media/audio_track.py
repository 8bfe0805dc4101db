"""The sound of a clip as one mono waveform on the clip's own clock. N samples, C channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from mien.media.containers import open_media
from mien.media.errors import ClipError
from mien.media.packets import audio_stream, read_audio_packets

Waveform = npt.NDArray[np.float32]

# Packets' times are rounded to ticks (1 ms in Matroska) and encoders' are jittery: a smaller step
# than this between two pieces of sound is not a gap.
_JITTER_S = 0.02
# Small enough for the processor's cache and for memory that is used again and again.
_CHUNK = 2**14
# Sound that runs so far ahead of a film's pictures is not kept: memory has to be bounded.
_FARTHEST_AHEAD_S = 120.0
# More than half of the length of swresample's filter, in samples of the lower rate.
_FILTER_REACH = 64


@dataclass(frozen=True, slots=True)
class Sound:
    """One channel of sound."""

    samples: Waveform
    """[N] float32, about -1 to 1."""
    rate_hz: int


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    samples: Waveform


def decode_waveform(
    stream: Any,
    packets: Sequence[Any],
    *,
    zero_s: float,
    start_s: float,
    duration_s: float,
    is_open_ended: bool,
    sample_rate_hz: int | None,
) -> tuple[Sound | None, int]:
    """Decode, mix down, trim and resample one sound stream.

    Channels are mixed as their mean (FFmpeg's own downmix would be 3 dB louder and can clip).
    Sound that begins late is preceded by zeros, gaps are zeros. A clip inside of a film has the
    very samples that the whole film has there.

    Args:
        stream: An open audio stream.
        packets: Its packets.
        zero_s: The file's first frame on the stream's clock.
        start_s: Start of the clip since then: sample 0 is there.
        duration_s: Length of the clip, that is, of its pictures.
        is_open_ended: Keep sound that goes on after the pictures, instead of the clip's length.
        sample_rate_hz: Of the result; None: the stream's own rate, and its first channel alone.

    Returns:
        The sound, or None if none could be decoded, and the number of packets that the decoder
        refused.
    """
    track = _Track(first_channel if sample_rate_hz is None else mono)
    for packet in [*packets, None]:
        track.decode(stream, packet)
    pieces = track.finished()
    if not pieces:
        return None, track.refused
    rate_hz = track.rate_hz
    zero, length = round(zero_s * rate_hz), round(duration_s * rate_hz)
    if is_open_ended:
        start = zero + round(start_s * rate_hz)
        sound_end = max(piece.start + len(piece.samples) for piece in pieces)
        sound_length = sum(len(piece.samples) for piece in pieces)
        # The bound is for damaged times: one wrong number must not become hours of silence.
        length = max(0, min(sound_end - start, max(length, sound_length)))
    to_hz = sample_rate_hz or rate_hz
    first = round(start_s * to_hz)
    last = first + round(length * to_hz / rate_hz)
    samples = _resampled_part(pieces, zero, (rate_hz, to_hz), first, last)
    return Sound(samples, to_hz), track.refused


def _resampled_part(
    pieces: Sequence[_Piece], zero: int, rates_hz: tuple[int, int], first: int, last: int
) -> Waveform:
    """Samples [first, last) of the film's whole sound after resampling it from its zero on."""
    from_hz, to_hz = rates_hz
    if from_hz == to_hz:
        return _joined(pieces, zero + first, zero + last)
    # Both grids meet every `step_out` samples: resampling may begin at any such place, early
    # enough that the filter's reach is over.
    common = math.gcd(from_hz, to_hz)
    step_in, step_out = from_hz // common, to_hz // common
    margin = math.ceil(_FILTER_REACH * max(1.0, from_hz / to_hz) / step_in)
    begin, end = first // step_out - margin, -(-last // step_out) + margin
    sound = resample(_joined(pieces, zero + begin * step_in, zero + end * step_in), from_hz, to_hz)
    return sound[first - begin * step_out : last - begin * step_out].copy()


def _joined(pieces: Sequence[_Piece], start: int, stop: int) -> Waveform:
    """Samples [start, stop) of a stream's clock; zeros where there is no sound."""
    waveform = np.zeros(stop - start, dtype=np.float32)
    for piece in pieces:
        first, last = max(piece.start, start), min(piece.start + len(piece.samples), stop)
        if first < last:
            waveform[first - start : last - start] = piece.samples[
                first - piece.start : last - piece.start
            ]
    return waveform


class FilmSound:
    """The sound of a film that is decoded as it comes; what was let go is not kept.

    Any part of it has the very samples that the whole film has there.

    Args:
        stream: An open audio stream.
        sample_rate_hz: Of what `samples` gives; None: the stream's own rate, and its first channel
            alone.
    """

    def __init__(self, stream: Any, sample_rate_hz: int | None) -> None:
        self.zero_s = 0.0
        """The film's first frame on the stream's clock."""
        self._stream = stream
        self._sample_rate_hz = sample_rate_hz
        self._track = _Track(first_channel if sample_rate_hz is None else mono)
        self._let_go_s = -math.inf

    @property
    def refused(self) -> int:
        """Packets that the decoder refused, or that lay too far from the pictures."""
        return self._track.refused

    @property
    def end_s(self) -> float:
        """How far the sound is decoded, on the stream's clock; -inf before the first sample."""
        return self._track.end_s

    def decode(self, packet: Any | None) -> None:
        """Decode a packet; None is the end."""
        kept_from_s = self._let_go_s if math.isfinite(self._let_go_s) else self.zero_s
        if packet is not None and self.end_s > kept_from_s + _FARTHEST_AHEAD_S:
            self._track.refused += 1
            return
        self._track.decode(self._stream, packet)

    def let_go_before(self, time_s: float) -> None:
        """Forget what lies before a time, counted from the film's first frame."""
        self._let_go_s = time_s + self.zero_s
        reach_s = _FILTER_REACH / max(1, min(self._track.rate_hz, 8000)) + 1.0
        self._track.drop_before(self._let_go_s - reach_s)

    def samples(self, start_s: float, end_s: float, *, is_last: bool = False) -> Sound | None:
        """The sound from a time to another, or to its end; None if there is none.

        Args:
            start_s: From the film's first frame on; not before what was let go.
            end_s: Where the pictures end.
            is_last: Keep sound that goes on after ``end_s``.
        """
        rate_hz = self._track.rate_hz
        to_hz = self._sample_rate_hz or rate_hz
        zero = round(self.zero_s * rate_hz)
        pieces = self._track.finished()
        ends = [piece.start + len(piece.samples) for piece in pieces]
        start, stop = zero + start_s * rate_hz, zero + end_s * rate_hz
        if not any(
            end > start and (is_last or piece.start < stop)
            for piece, end in zip(pieces, ends, strict=True)
        ):
            return None
        length = round((end_s - start_s) * rate_hz)
        if is_last:
            length = max(0, max(ends) - zero - round(start_s * rate_hz))
        first = round(start_s * to_hz)
        last = first + round(length * to_hz / rate_hz)
        return Sound(_resampled_part(pieces, zero, (rate_hz, to_hz), first, last), to_hz)


class _Track:
    """Decoded sound as mono pieces at the stream's first rate.

    Frames that follow one another are gathered and mixed together: one at a time costs as much as
    decoding them.
    """

    def __init__(self, one_channel: Callable[[Any], Waveform]) -> None:
        self.refused = 0
        self._one_channel = one_channel
        self.rate_hz = 0
        self._pieces: list[_Piece] = []
        self._gathered = av.AudioFifo()
        self._kind: tuple[str, int, int] | None = None
        self._start = 0

    def decode(self, stream: Any, packet: Any | None) -> None:
        """Decode a packet; None is the end."""
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            self.refused += 1
            return
        for frame in frames:
            if is_readable(frame):
                self._add(frame)
            else:
                self.refused += 1

    @property
    def end_s(self) -> float:
        """Where the sound so far ends, on the stream's clock."""
        end = self._end()
        return -math.inf if end is None else end / self.rate_hz

    def drop_before(self, time_s: float) -> None:
        """Forget the pieces that end before a time on the stream's clock."""
        limit = time_s * self.rate_hz
        self._pieces = [
            piece for piece in self._pieces if piece.start + len(piece.samples) >= limit
        ]

    def finished(self) -> list[_Piece]:
        """The pieces, each with its first sample's number on the stream's clock."""
        self._close_piece()
        return self._pieces

    def _add(self, frame: Any) -> None:
        kind = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
        self.rate_hz = self.rate_hz or frame.sample_rate
        end = self._end()
        start = end or 0
        if frame.pts is not None:
            stated = round(frame.pts * float(frame.time_base) * self.rate_hz)
            if end is None or abs(stated - end) > _JITTER_S * self.rate_hz:
                start = stated
        if kind != self._kind or start != end or self._gathered.samples > _CHUNK:
            self._close_piece()
            self._kind, self._start = kind, start
        frame.pts = None  # the queue would refuse jitter
        self._gathered.write(frame)

    def _end(self) -> int | None:
        """Where the sound so far ends."""
        if self._kind is None:
            return None
        gathered = int(self._gathered.samples)
        return self._start + round(gathered * self.rate_hz / self._kind[2])

    def _close_piece(self) -> None:
        if self._gathered.samples:
            frame = self._gathered.read()
            samples = resample(self._one_channel(frame), frame.sample_rate, self.rate_hz)
            self._pieces.append(_Piece(self._start, samples))
            self._start += len(samples)
        self._gathered = av.AudioFifo()


def is_readable(frame: Any) -> bool:
    """Whether a frame's samples can be looked at safely."""
    # PyAV 18.1 reads past the end of the list of planes of frames with more than 8 channels and
    # can crash the process. Hardly any film has them, but damaged AAC packets claim to.
    channels, rate_hz = int(frame.layout.nb_channels), int(frame.sample_rate)
    return channels > 0 and rate_hz > 0 and (channels <= 8 or not frame.format.is_planar)


def mono(frame: Any) -> Waveform:
    """The mean over the channels of an audio frame, [N] float32 in [-1, 1]."""
    scaled_CN = _to_float(_channels(frame))
    # np.mean is three times as slow on pieces of sound as small as these.
    return np.asarray(np.add.reduce(scaled_CN) / np.float32(len(scaled_CN)), dtype=np.float32)


def first_channel(frame: Any) -> Waveform:
    """The first channel of an audio frame, [N] float32 in [-1, 1]."""
    return _to_float(_channels(frame)[0]).copy()


def _channels(frame: Any) -> npt.NDArray[Any]:
    """[C, N]."""
    samples: npt.NDArray[Any] = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _to_float(samples: npt.NDArray[Any]) -> Waveform:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return np.asarray((samples.astype(np.float32) - 128) / 128, dtype=np.float32)
    full_scale = float(2 ** (8 * samples.dtype.itemsize - 1))
    return np.asarray(samples / full_scale, dtype=np.float32)


def resample(waveform: Waveform, from_hz: int, to_hz: int) -> Waveform:
    """Band-limited resampling (FFmpeg's swresample) of a mono waveform [N]."""
    if from_hz == to_hz or len(waveform) == 0:
        return waveform
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_hz)
    resampled = np.zeros(round(len(waveform) * to_hz / from_hz), dtype=np.float32)
    position = 0
    chunks = (waveform[at : at + _CHUNK] for at in range(0, len(waveform), _CHUNK))
    for chunk in itertools.chain(chunks, [None]):
        for part in resampler.resample(None if chunk is None else _mono_frame(chunk, from_hz)):
            samples = part.to_ndarray()[0][: len(resampled) - position]
            resampled[position : position + len(samples)] = samples
            position += len(samples)
    return resampled


def _mono_frame(samples: Waveform, rate_hz: int) -> Any:
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    return frame


def decode_audio_file(
    uri: str, *, start_s: float, duration_s: float, is_open_ended: bool, sample_rate_hz: int | None
) -> tuple[Sound | None, int]:
    """The sound of a clip in a file of its own, as `decode_waveform` gives it.

    Raises:
        ClipError: the file cannot be read or holds no sound.
    """
    with open_media(uri) as container:
        sound = audio_stream(container)
        if sound is None:
            raise ClipError(
                "bad_audio",
                f"{uri} holds no sound that can be decoded; correct audio_uri in the manifest or "
                "leave it empty.",
            )
        packets = read_audio_packets(container, sound)
        zero_s = (container.start_time or 0) / 1e6
        decoded, refused = decode_waveform(
            sound,
            packets.audio,
            zero_s=zero_s,
            start_s=start_s,
            duration_s=duration_s,
            is_open_ended=is_open_ended,
            sample_rate_hz=sample_rate_hz,
        )
    return decoded, refused + packets.refused
