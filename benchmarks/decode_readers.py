"""The readers that ``decode.py`` compares, each in a process of its own.

``python decode_readers.py NAME`` says on its first line whether the reader is there, and then
answers each line of work, a JSON list of files, with the CPU time that it took (all threads) and
the process's peak memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_FRAMES = 16
SOUND_RATE_HZ = 16_000

Clip = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Pictures [16, H, W, 3] and sound [N] at 16 kHz."""
ReadClip = Callable[[str], Clip]

EXTRA = "pip install -c constraints.txt -e '.[bench]'"
HOW_TO_GET = {
    "mien": "pip install -e .",
    "pyav": "pip install -e .",
    "torchcodec": f"{EXTRA}, and FFmpeg's shared libraries (Debian: apt-get install ffmpeg)",
    "decord2": EXTRA,
    # It owns the same module name as decord2, so that one environment holds only one of the two.
    "decord": "pip install --no-deps --target DIR decord==0.6.0, then: decode.py --decord DIR",
}
"""Every reader, and what to type where it is missing."""


def wanted_frames(num_source: int) -> list[int]:
    """The middles of 16 equal segments."""
    return [num_source * (2 * k + 1) // (2 * NUM_FRAMES) for k in range(NUM_FRAMES)]


def mien() -> ReadClip:
    from mien.media.decode import decode_clip

    def read(path: str) -> Clip:
        clip = decode_clip(path, choose_frames=wanted_frames, sample_rate_hz=SOUND_RATE_HZ)
        assert clip.audio is not None
        return clip.frames_THWC, clip.audio

    return read


def pyav() -> ReadClip:
    """Decodes everything, converts the wanted pictures."""
    import av

    def read(path: str) -> Clip:
        pictures, sounds = [], []
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_RATE_HZ)
        with av.open(path) as container:
            film, sound = container.streams.video[0], container.streams.audio[0]
            film.thread_count = 1
            wanted, number = set(wanted_frames(film.frames)), 0
            for frame in container.decode(film, sound):
                if isinstance(frame, av.AudioFrame):
                    sounds += resampler.resample(frame)
                else:
                    if number in wanted:
                        picture = frame.reformat(format="rgb24", threads=1)
                        pictures.append(picture.to_ndarray())
                    number += 1
        sounds += resampler.resample(None)
        return np.stack(pictures), np.concatenate([part.to_ndarray()[0] for part in sounds])

    return read


def torchcodec() -> ReadClip:
    import torch
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    torch.set_num_threads(1)

    def read(path: str) -> Clip:
        film = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        pictures = film.get_frames_at(wanted_frames(len(film))).data
        sound = AudioDecoder(path, sample_rate=SOUND_RATE_HZ, num_channels=1).get_all_samples()
        return pictures.numpy(), sound.data[0].numpy()

    return read


def decord() -> ReadClip:
    """decord and decord2, which share a module."""
    from decord import AudioReader, VideoReader, cpu

    def read(path: str) -> Clip:
        film = VideoReader(path, ctx=cpu(0), num_threads=1)
        pictures = film.get_batch(wanted_frames(len(film))).asnumpy()
        sound = AudioReader(path, ctx=cpu(0), sample_rate=SOUND_RATE_HZ, mono=True)
        return pictures, sound[:].asnumpy()[0]

    return read


_READERS = {
    "mien": mien,
    "pyav": pyav,
    "torchcodec": torchcodec,
    "decord2": decord,
    "decord": decord,
}
_PACKAGES = {"pyav": "av"}


def _start(name: str) -> tuple[ReadClip | None, dict[str, str]]:
    try:
        reader = _READERS[name]()
        version = importlib.metadata.version(_PACKAGES.get(name, name))
    except (ImportError, RuntimeError, OSError, importlib.metadata.PackageNotFoundError) as error:
        why = str(error).strip().splitlines()[0][:160]
        return None, {"absent": f"{why}; type: {HOW_TO_GET[name]}"}
    return reader, {"version": version}


def _peak_rss_mb() -> float:
    # Not ru_maxrss, which begins with the size of the parent process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _read_all(reader: ReadClip, paths: list[str]) -> dict[str, Any]:
    start = time.process_time()
    for path in paths:
        pictures, sound = reader(path)
        assert pictures.shape[0] == NUM_FRAMES, (path, pictures.shape)
        assert len(sound) > SOUND_RATE_HZ, (path, sound.shape)
    return {"cpu_s": time.process_time() - start, "peak_rss_mb": _peak_rss_mb()}


def _digests(reader: ReadClip, paths: list[str]) -> dict[str, Any]:
    pictures = (np.ascontiguousarray(reader(path)[0]) for path in paths)
    return {"digests": [hashlib.sha256(picture.data).hexdigest() for picture in pictures]}


def main() -> None:
    reader, answer = _start(sys.argv[1])
    print(json.dumps(answer), flush=True)
    if reader is None:
        return
    for line in sys.stdin:
        job = json.loads(line)
        task = _digests if job["task"] == "digests" else _read_all
        print(json.dumps(task(reader, job["paths"])), flush=True)


if __name__ == "__main__":
    main()
