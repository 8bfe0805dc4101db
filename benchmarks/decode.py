"""Reading clips as training does, against FFmpeg's own limit and against other readers.

The task: of each film 16 evenly spaced frames as RGB and the whole sound at 16 kHz mono, on one
thread. The limit is ``ffmpeg -f null``, which decodes every frame of both streams and converts
none. All readers take turns within each round, each in a process of its own, and are compared by
CPU time (user and system, of all threads), which the load of the machine changes little.

Run with ``--quick`` for a short version. Films are made once and kept in the folder for temporary
files (`decode_clips.py`); readers that are not installed are named with what to type.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decode_clips import FILM_SETS, FilmSet, make_films, packaged_footage
from decode_readers import EXTRA, HOW_TO_GET
from report import finish

RATIOS = {"320x240_g12": 1.05, "320x240_g250": 1.0, "640x480_g12": 1.2, "640x480_g250": 1.2}
"""How many times as fast as the limit Mien has to be."""
# The start of ffmpeg (50 ms where it loads shared libraries) is spread over at least so many films.
_MIN_LISTED = 12

Figures = dict[str, list[float]]


class Reader:
    """A reader in its own process."""

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        # One thread for whatever library asks; the process must not find decord in two places.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("decode_readers.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **threads, **({"PYTHONPATH": path} if path else {})},
        )
        first = self._answer()
        self.absent: str | None = first.get("absent")
        self.version: str = first.get("version", "")

    def do(self, task: str, paths: Sequence[str]) -> dict[str, Any]:
        """Read films; ``task`` is ``read`` or ``digests``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task, "paths": list(paths)}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reader {self.name} died with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start_readers(decord_folder: str | None) -> tuple[list[Reader], dict[str, str]]:
    """The readers that are installed, and what to type for the others."""
    readers, absent = [], {}
    for name in HOW_TO_GET:
        if name == "decord" and decord_folder is None:
            absent[name] = f"type: {HOW_TO_GET[name]}"
            continue
        reader = Reader(name, decord_folder if name == "decord" else None)
        if reader.absent is None:
            readers.append(reader)
        else:
            absent[name] = reader.absent
            reader.close()
    return readers, absent


def find_ffmpegs() -> dict[str, str]:
    """FFmpeg programs by name: the one on PATH and the static one of imageio-ffmpeg."""
    found = {}
    try:
        import imageio_ffmpeg

        found["ffmpeg static"] = imageio_ffmpeg.get_ffmpeg_exe()
    except ImportError:
        pass
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        found["ffmpeg on PATH"] = on_path
    if not found:
        sys.exit(f"error: no ffmpeg program to measure the limit with; type: {EXTRA}")
    return found


def limit_cpu_s(ffmpeg: str, paths: Sequence[str]) -> float:
    """CPU seconds in which ffmpeg decodes every frame of the films, both streams."""
    repeats = -(-_MIN_LISTED // len(paths))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        listing.write("".join(f"file '{path}'\n" for path in [*paths] * repeats))
        listing.flush()
        inputs = ["-threads", "1", "-f", "concat", "-safe", "0", "-i", listing.name]
        outputs = ["-map", "0:v", "-map", "0:a", "-f", "null", "-"]
        process = subprocess.Popen([ffmpeg, "-v", "error", "-nostdin", *inputs, *outputs])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{ffmpeg} ended with {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) / repeats


def measure(
    films: dict[FilmSet, list[str]], readers: Sequence[Reader], rounds: int
) -> tuple[Figures, Figures]:
    """CPU milliseconds a film by ``SET/READER``, and peak megabytes after each set, by round."""
    cpu_ms: Figures = {}
    peak_mb: Figures = {}
    ffmpegs = find_ffmpegs()
    for reader in readers:
        reader.do("read", next(iter(films.values()))[:1])  # imports, tables made at first use
    for number in range(rounds):
        for film_set, paths in films.items():
            for name, program in ffmpegs.items():
                spent_s = limit_cpu_s(program, paths)
                cpu_ms.setdefault(f"{film_set.name}/{name}", []).append(1e3 * spent_s / len(paths))
            for reader in readers:
                answer = reader.do("read", paths)
                key = f"{film_set.name}/{reader.name}"
                cpu_ms.setdefault(key, []).append(1e3 * answer["cpu_s"] / len(paths))
                peak_mb.setdefault(key, []).append(answer["peak_rss_mb"])
            shown = {key: cpu_ms[key][-1] for key in cpu_ms if key.startswith(film_set.name)}
            line = ", ".join(f"{key.split('/')[1]} {value:.1f}" for key, value in shown.items())
            print(f"round {number + 1}/{rounds} {film_set.name}, CPU ms a film: {line}", flush=True)
    return cpu_ms, peak_mb


def summary(
    cpu_ms: Figures, peak_mb: Figures, readers: Sequence[Reader]
) -> tuple[dict[str, Any], dict[str, tuple[str, str, float]]]:
    """Figures and targets of `report.finish`."""
    others = [reader.name for reader in readers if reader.name != "mien"]
    figures: dict[str, Any] = {}
    targets: dict[str, tuple[str, str, float]] = {}
    for name, ratio in RATIOS.items():
        limits = [cpu_ms[key] for key in cpu_ms if key.startswith(f"{name}/ffmpeg")]
        own = cpu_ms[f"{name}/mien"]
        # Of several ffmpegs the quicker one is the limit, round by round.
        rounds = [min(times) / mine for *times, mine in zip(*limits, own, strict=True)]
        figures[f"limit_by_mien_{name}"] = statistics.median(rounds)
        targets[f"limit_{name}"] = (f"limit_by_mien_{name}", ">=", ratio)
        for other in others:
            pairs = zip(cpu_ms[f"{name}/{other}"], own, strict=True)
            figures[f"{other}_by_mien_{name}"] = statistics.median(a / b for a, b in pairs)
            targets[f"{other}_{name}"] = (f"{other}_by_mien_{name}", ">=", 1.0)
    figures["cpu_ms_a_film"] = {key: statistics.median(values) for key, values in cpu_ms.items()}
    # The first round's: a peak never falls, so that later ones are those of the largest films.
    figures["peak_rss_mb"] = {key: values[0] for key, values in peak_mb.items()}
    return figures, targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few films, two rounds")
    parser.add_argument("--footage", nargs="+", metavar="FILE", help="films to cut ours from")
    parser.add_argument("--decord", metavar="DIR", help="folder that holds decord 0.6.0")
    args = parser.parse_args()
    num_films, rounds = (3, 2) if args.quick else (64, 5)
    folder = make_films(num_films, args.footage or packaged_footage())
    films = {
        film_set: sorted(map(str, (folder / film_set.name).glob("*.mp4"))) for film_set in FILM_SETS
    }
    readers, absent = start_readers(args.decord)
    for name, how in absent.items():
        print(f"not compared: {name}: {how}")
    cpu_ms, peak_mb = measure(films, readers, rounds)
    figures, targets = summary(cpu_ms, peak_mb, readers)
    every = [path for paths in films.values() for path in paths]
    own, full = (reader.do("digests", every)["digests"] for reader in readers[:2])
    figures |= {
        "films_a_set": num_films,
        "rounds": rounds,
        "films_unlike_full_decode": sum(a != b for a, b in zip(own, full, strict=True)),
        "versions": {reader.name: reader.version for reader in readers},
        "not_compared": absent,
    }
    for reader in readers:
        reader.close()
    targets["exact"] = ("films_unlike_full_decode", "<=", 0)
    finish("decode", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
