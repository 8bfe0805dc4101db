"""Films made for the tests: coloured pictures and tones, really encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

Colour = tuple[int, int, int]


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Writes a film of plain colours, one second each at 10 frames a second, with a tone."""

    def write(
        colours: Sequence[Colour], *, name: str = "film.mp4", tone: bool = True, side: int = 64
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=10)
            video.width = video.height = side
            video.pix_fmt = "yuv420p"
            video.time_base = Fraction(1, 10)
            sound = container.add_stream("aac", rate=16_000, layout="mono") if tone else None
            _encode(container, video, sound, colours, side)
        return path

    return write


def _encode(container: Any, video: Any, sound: Any, colours: Sequence[Colour], side: int) -> None:
    for index in range(10 * len(colours)):
        picture = np.full((side, side, 3), colours[index // 10], dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = index
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    if sound is not None:
        times = np.arange(16_000 * len(colours)) / 16_000
        wave = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
