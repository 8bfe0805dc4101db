"""PyAV: which FFmpeg it carries, and whether each codec really works.

Where the matching encoder is in the build, a codec is checked by encoding a known picture or tone
into memory and decoding it again; a decoder without an encoder is only looked up.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import av
import numpy as np
from av.codec import Codec

from mien_jobs.checks.result import Check, fail, ok, warn

_ADVICE = "pip install --force-reinstall -c constraints.txt av"
_SAMPLE_RATE_HZ = 48_000
_TONE_HZ = 440.0
_NUM_FRAMES = 8
_MIN_PSNR_DB = 28.0
_TONE_TOLERANCE_HZ = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trip:
    """How to write a codec's file."""

    encoder: str
    container: str
    options: Mapping[str, str] = field(default_factory=dict)


VIDEO: Mapping[str, _Trip] = {
    "h264": _Trip(encoder="libx264", container="mp4"),
    "hevc": _Trip(encoder="libx265", container="mp4", options={"x265-params": "log-level=none"}),
    "vp9": _Trip(encoder="libvpx-vp9", container="webm"),
    "mpeg1video": _Trip(encoder="mpeg1video", container="mpeg"),
}
AUDIO: Mapping[str, _Trip] = {
    "aac": _Trip(encoder="aac", container="mp4"),
    "mp3": _Trip(encoder="libmp3lame", container="mp3"),
    "mp2": _Trip(encoder="mp2", container="mpeg"),
}
NEEDED_TO_WRITE = ("libx264", "aac")
"""Encoders that the built-in data set needs."""


def check_ffmpeg() -> Check:
    """The FFmpeg libraries inside PyAV."""
    numbers = av.library_versions
    found = ", ".join(
        f"{name} {'.'.join(str(part) for part in numbers[name])}"
        for name in ("libavcodec", "libavformat")
    )
    return ok("ffmpeg", f"{av.ffmpeg_version_info} in PyAV {av.__version__} ({found})")


def check_codecs(video: Mapping[str, _Trip] = VIDEO, audio: Mapping[str, _Trip] = AUDIO) -> Check:
    """Every codec that common data sets use, by a round trip where the build can write it."""
    tried, seen, wrong = [], [], []
    for names, try_codec in ((video, _video_fault), (audio, _audio_fault)):
        for name, trip in names.items():
            if not _exists(name, "r"):
                wrong.append(f"no decoder {name}")
            elif not _exists(trip.encoder, "w"):
                seen.append(name)
            elif fault := try_codec(name, trip):
                wrong.append(f"{name}: {fault}")
            else:
                tried.append(name)
    found = f"{', '.join(tried)} written and read back"
    if seen:
        found += f"; {', '.join(seen)} can be read"
    if wrong:
        return fail("codecs", "; ".join(wrong), _ADVICE)
    missing = [name for name in NEEDED_TO_WRITE if not _exists(name, "w")]
    if missing:
        return warn("codecs", f"{found}; no encoder {', '.join(missing)} for mien synth", _ADVICE)
    return ok("codecs", found)


def _exists(name: str, mode: str) -> bool:
    try:
        Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _picture(index: int) -> np.ndarray:
    """A soft moving pattern, [48, 64, 3], which any codec keeps well."""
    rows, columns = np.mgrid[0:48, 0:64]
    waves = [np.sin((columns + 2 * index) / 9 + phase) + np.cos(rows / 7) for phase in (0, 1, 2)]
    return (np.stack(waves, axis=-1) * 50 + 128).astype(np.uint8)


def _video_fault(name: str, trip: _Trip) -> str:
    """Empty, or what went wrong on the way through the codec."""
    data = io.BytesIO()
    with av.open(data, "w", format=trip.container) as out:
        stream = out.add_stream(trip.encoder, rate=25, options=dict(trip.options))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 1_000_000
        for index in range(_NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(_picture(index), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data.seek(0)
    with av.open(data) as source:
        if source.streams.video[0].codec_context.name not in (name, f"lib{name}"):
            return f"read back by {source.streams.video[0].codec_context.name}"
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    if len(frames) != _NUM_FRAMES:
        return f"{len(frames)} of {_NUM_FRAMES} frames came back"
    worst = min(_psnr_db(frame, _picture(index)) for index, frame in enumerate(frames))
    return "" if worst >= _MIN_PSNR_DB else f"the picture came back damaged ({worst:.0f} dB)"


def _psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _audio_fault(_name: str, trip: _Trip) -> str:
    """Empty, or what went wrong on the way through the codec."""
    seconds = np.arange(_SAMPLE_RATE_HZ) / _SAMPLE_RATE_HZ
    tone = (np.sin(2 * np.pi * _TONE_HZ * seconds) * 12_000).astype(np.int16)[None]
    data = io.BytesIO()
    with av.open(data, "w", format=trip.container) as out:
        stream = out.add_stream(trip.encoder, rate=_SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = _SAMPLE_RATE_HZ
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data.seek(0)
    with av.open(data) as source:
        blocks = [_mono(frame) for frame in source.decode(audio=0)]
    samples = np.concatenate(blocks)
    if len(samples) < 0.9 * _SAMPLE_RATE_HZ:
        return f"{len(samples)} of {_SAMPLE_RATE_HZ} samples came back"
    peak_hz = float(np.argmax(np.abs(np.fft.rfft(samples)))) * _SAMPLE_RATE_HZ / len(samples)
    if abs(peak_hz - _TONE_HZ) > _TONE_TOLERANCE_HZ:
        return f"a tone of {_TONE_HZ:.0f} Hz came back as {peak_hz:.0f} Hz"
    return ""


def _mono(frame: av.AudioFrame) -> np.ndarray:
    samples = frame.to_ndarray().astype(np.float64)
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    mono: np.ndarray = samples.mean(axis=0)
    return mono
