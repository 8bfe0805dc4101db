"""The sound of a clip as one mono waveform on the clip's own clock. N samples, C channels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    samples: Waveform


def decode_waveform(
    stream: Any,
    packets: Sequence[Any],
    *,
    start_s: float,
    duration_s: float,
    is_open_ended: bool,
    sample_rate_hz: int,
) -> tuple[Waveform | None, int]:
    """Decode, mix down, trim and resample one sound stream.

    Channels are mixed as their mean (FFmpeg's own downmix would be 3 dB louder and can clip).
    Sample 0 is at ``start_s``: sound that begins later is preceded by zeros, gaps are zeros.

    Args:
        stream: An open audio stream.
        packets: Its packets.
        start_s: Start of the clip on the stream's clock.
        duration_s: Length of the clip, that is, of its pictures.
        is_open_ended: Keep sound that goes on after the pictures, instead of the clip's length.
        sample_rate_hz: Of the result.

    Returns:
        The waveform [N] float32, about -1 to 1, or None if no sound could be decoded, and the
        number of packets that the decoder refused.
    """
    pieces, rate_hz, refused = _decode_pieces(stream, packets)
    if not pieces:
        return None, refused
    start, length = round(start_s * rate_hz), round(duration_s * rate_hz)
    if is_open_ended:
        sound_end = max(piece.start + len(piece.samples) for piece in pieces)
        sound_length = sum(len(piece.samples) for piece in pieces)
        # The bound is for damaged times: one wrong number must not become hours of silence.
        length = max(0, min(sound_end - start, max(length, sound_length)))
    stop = start + length
    waveform = np.zeros(stop - start, dtype=np.float32)
    for piece in pieces:
        first, last = max(piece.start, start), min(piece.start + len(piece.samples), stop)
        if first < last:
            waveform[first - start : last - start] = piece.samples[
                first - piece.start : last - piece.start
            ]
    return resample(waveform, rate_hz, sample_rate_hz), refused


def _decode_pieces(stream: Any, packets: Sequence[Any]) -> tuple[list[_Piece], int, int]:
    """Mono sound at its own rate, each piece with its first sample's number on the stream's clock.

    A stream that changes its rate on the way is brought to its first rate.
    """
    pieces: list[_Piece] = []
    rate_hz = refused = 0
    cursor: int | None = None
    for packet in [*packets, None]:
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            refused += 1
            continue
        for frame in frames:
            if not is_readable(frame):
                refused += 1
                continue
            rate_hz = rate_hz or frame.sample_rate
            samples = resample(mono(frame), frame.sample_rate, rate_hz)
            start = cursor or 0
            if frame.pts is not None:
                stated = round(frame.pts * float(frame.time_base) * rate_hz)
                if cursor is None or abs(stated - cursor) > _JITTER_S * rate_hz:
                    start = stated
            pieces.append(_Piece(start, samples))
            cursor = start + len(samples)
    return pieces, rate_hz, refused


def is_readable(frame: Any) -> bool:
    """Whether a frame's samples can be looked at safely."""
    # PyAV 18.1 reads past the end of the list of planes of frames with more than 8 channels and
    # can crash the process. Hardly any film has them, but damaged AAC packets claim to.
    channels, rate_hz = int(frame.layout.nb_channels), int(frame.sample_rate)
    return channels > 0 and rate_hz > 0 and (channels <= 8 or not frame.format.is_planar)


def mono(frame: Any) -> Waveform:
    """The mean over the channels of an audio frame, [N] float32 in [-1, 1]."""
    channels = frame.layout.nb_channels
    samples = frame.to_ndarray()
    samples_CN = samples if frame.format.is_planar else samples.reshape(-1, channels).T
    scaled_CN = _to_float(samples_CN)
    # np.mean is three times as slow on pieces of sound as small as these.
    return np.asarray(np.add.reduce(scaled_CN) / np.float32(channels), dtype=np.float32)


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
    uri: str, *, start_s: float, duration_s: float, is_open_ended: bool, sample_rate_hz: int
) -> tuple[Waveform | None, int]:
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
        waveform, refused = decode_waveform(
            sound,
            packets.audio,
            start_s=zero_s + start_s,
            duration_s=duration_s,
            is_open_ended=is_open_ended,
            sample_rate_hz=sample_rate_hz,
        )
    return waveform, refused + packets.refused
