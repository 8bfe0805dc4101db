"""Films whose frames carry their number as a bar code, and whose sound is known."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

WIDTH, HEIGHT, FPS = 96, 64, 25
_BITS = 8


def numbered_picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A moving wave (so that codecs have motion to predict) under a bar code of the number."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 60 * np.sin((x + 2 * number) / 7) + 40 * np.cos((y - number) / 5)
    picture = np.stack([wave, wave[::-1], 255 - wave], axis=-1).clip(0, 255).astype(np.uint8)
    for bit in range(_BITS):
        left = bit * width // _BITS
        picture[: height // 4, left : left + width // _BITS] = 255 * (number >> bit & 1)
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number in the bar code of an upright picture."""
    height, width = picture.shape[:2]
    row = picture[height // 8].mean(axis=-1)
    centres = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    return sum(int(row[centre] > 128) << bit for bit, centre in enumerate(centres))


def tone(duration_s: float, rate_hz: int, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def write_film(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 60,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_rate_hz: int = 44_100,
    sound_start_s: float = 0.0,
    sound_first: bool = False,
    is_interleaved: bool = False,
) -> Path:
    """Write numbered frames, at ``ticks`` in 1/1000 s where given, and sound [C, N]."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=FPS, options=options or {})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pix_fmt
        time_base = Fraction(1, FPS) if ticks is None else Fraction(1, 1000)
        video.codec_context.time_base = time_base
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(sound_codec, rate=sound_rate_hz, layout=layout)
        parts = [_encode_pictures(video, num_frames, ticks, time_base)]
        if audio is not None:
            parts.append(_encode_sound(audio, sound, sound_start_s))
        if is_interleaved:
            parts = [heapq.merge(*parts, key=lambda packet: packet.dts * packet.time_base)]
        for packet in itertools.chain(*(parts[::-1] if sound_first else parts)):
            container.mux(packet)
    return path


def _encode_pictures(
    stream: Any, num_frames: int, ticks: Sequence[int] | None, time_base: Fraction
) -> Iterator[Any]:
    for number in range(num_frames):
        frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
        frame.pts = number if ticks is None else ticks[number]
        frame.time_base = time_base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _encode_sound(stream: Any, sound: np.ndarray, start_s: float) -> Iterator[Any]:
    rate_hz = stream.codec_context.sample_rate
    layout = stream.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
    frame.sample_rate = rate_hz
    frame.pts = round(start_s * rate_hz)
    frame.time_base = Fraction(1, rate_hz)
    yield from stream.encode(frame)
    yield from stream.encode(None)


def decode_all(path: Path) -> list[np.ndarray]:
    """Every frame by a plain decode, in the order in which it is shown, not turned."""
    with av.open(str(path)) as container:
        return [
            frame.reformat(format="rgb24", threads=1).to_ndarray()
            for frame in container.decode(video=0)
        ]


def patch_box(path: Path, name: bytes, change: Callable[[bytearray, int], None]) -> None:
    """Change an MP4 file's first box of a name; gets the bytes and where its content begins."""
    data = bytearray(path.read_bytes())
    change(data, data.index(name) + 4)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def films() -> SimpleNamespace:
    """The functions above; test modules cannot import each other."""
    return SimpleNamespace(
        write=write_film,
        decode_all=decode_all,
        read_number=read_number,
        picture=numbered_picture,
        tone=tone,
        patch_box=patch_box,
    )


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """Real clips that lie beside the repository in some places."""
    root = Path(os.environ.get("MIEN_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "clips").is_dir():
        pytest.skip("no real clips here: set MIEN_SHARED to a folder that holds clips/")
    return root / "clips"
