"""A voice at another pitch, as long as before. N samples."""

from __future__ import annotations

import itertools
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph

Waveform = npt.NDArray[np.float32]

MIN_SEMITONES = 3.0
MAX_SEMITONES = 6.0
_CHUNK = 4096


def semitones_of(share: float) -> float:
    """A shift between `MIN_SEMITONES` and `MAX_SEMITONES`, up or down, from a number in [0, 1)."""
    direction, size = (-1, 2 * share) if share < 0.5 else (1, 2 * share - 1)
    return direction * (MIN_SEMITONES + size * (MAX_SEMITONES - MIN_SEMITONES))


def shift_pitch(waveform_N: Waveform, sample_rate_hz: int, semitones: float) -> Waveform:
    """Pitch and formants moved by a ratio of 2 ** (semitones / 12); times stay as they are.

    The sound is played faster or slower and then brought back to its length piece by piece (WSOLA,
    FFmpeg's atempo).

    Args:
        waveform_N: Mono.
        sample_rate_hz: Its samples a second.
        semitones: -12 to 12.
    """
    if len(waveform_N) == 0:
        return waveform_N
    factor = 2 ** (semitones / 12)
    graph = Graph()
    source = graph.add_abuffer(sample_rate=sample_rate_hz, format="flt", layout="mono")
    steps = [
        source,
        graph.add("asetrate", str(round(sample_rate_hz * factor))),
        graph.add("aresample", str(sample_rate_hz)),
        graph.add("atempo", f"{sample_rate_hz / round(sample_rate_hz * factor):.9f}"),
        graph.add("aformat", "sample_fmts=flt:channel_layouts=mono"),
        graph.add("abuffersink"),
    ]
    for step, following in itertools.pairwise(steps):
        step.link_to(following)
    graph.configure()
    parts: list[Waveform] = []
    for start in range(0, len(waveform_N), _CHUNK):
        graph.push(_frame(waveform_N[start : start + _CHUNK], sample_rate_hz, start))
        parts += _ready(graph)
    graph.push(None)
    parts += _ready(graph)
    shifted = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    result = np.zeros(len(waveform_N), dtype=np.float32)
    result[: len(shifted)] = shifted[: len(result)]
    return result


def _frame(samples: Waveform, sample_rate_hz: int, start: int) -> Any:
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts = sample_rate_hz, start
    return frame


def _ready(graph: Any) -> list[Waveform]:
    """What the graph has finished so far."""
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().ravel())
        except (av.error.BlockingIOError, av.error.EOFError):
            return parts
