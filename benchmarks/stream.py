"""The whole pipeline on Ray against two bare reading processes; waiting for data; S3 against disk.

Run with ``--quick`` for a short version. Everything reads the same generated clips: frames, aligned
faces, sound, augmentation. The bare readers are two processes that load their half of the clips
and throw the rows away: what no pipeline can beat. The kinds take turns. Clips a second are given
by the clock, and by CPU time of all processes that work for a kind, Ray's own housekeeping
included, which goes on at its own pace, so that other load on the machine counts against it. A
round of the full run is long enough that the start of a stream, once a stage, weighs little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from report import finish

from mien.cache.build import build
from mien.cache.settings import CacheSettings, StoredAs
from mien.cache.store import ClipCache
from mien.cache.view import CachedClips
from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.media import storage
from mien.seeds import seed_torch
from mien.stream.loaders import StepLoader, TrainingLoader
from mien.stream.plan import LoadPlan
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien.train.local_ray import ray_session
from mien.train.plan import TrainPlan
from mien_models.contract import AudioSpec, Augmentation, Progress, StreamSpec, ViewSpec
from mien_models.mma_dfer import MmaDfer, MmaDferConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from s3_server import BUCKET, S3Server

CLASSES = ("happiness", "sadness", "anger")
LABELS = LabelSet(name="three", classes=CLASSES)
BATCH_SIZE = 8
SPEC = StreamSpec(
    split="all",
    batch_size=BATCH_SIZE,
    views=(
        ViewSpec(
            num_frames=8,
            sampling="random_segments",
            augmentation=Augmentation(flip_probability=0.5, brightness=0.2),
        ),
    ),
    image_size_px=112,
    audio=AudioSpec(),
)


@dataclass(frozen=True)
class Rate:
    """Clips a second of one run."""

    by_clock: float
    by_cpu: float
    """Clips per second of CPU time."""


def open_source(manifest: Manifest, plan: LoadPlan, **options: Any) -> ClipSource:
    split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    return ClipSource(manifest, split, LABELS, seed=0, plan=plan, **options)


def training_loader(source: ClipSource) -> StepLoader:
    """The loader that the stream itself would use."""
    caught: list[StepLoader] = []

    def catch(loader: StepLoader, steps: range) -> Iterator[Any]:
        caught.append(loader)
        yield from ()

    source._executor = catch
    list(source.batches(SPEC, start_step=0, num_steps=1))
    assert isinstance(caught[0], TrainingLoader)
    return caught[0]


def read_alone(loader: StepLoader, steps: Sequence[int]) -> tuple[int, float]:
    """Loads the rows of steps and drops them; clips and CPU seconds."""
    torch.set_num_threads(1)
    start = time.process_time()
    for step in steps:
        for place in range(loader.clips_per_step):
            loader.row(step, place)
    return len(steps) * loader.clips_per_step, time.process_time() - start


def bare_rate(pool: ProcessPoolExecutor, loader: StepLoader, steps: range) -> Rate:
    """Two processes, every other step each."""
    start = time.perf_counter()
    parts = list(pool.map(read_alone, [loader] * 2, [steps[::2], steps[1::2]]))
    elapsed = time.perf_counter() - start
    clips = sum(part[0] for part in parts)
    return Rate(clips / elapsed, clips / sum(part[1] for part in parts))


def ray_cpu_s() -> float:
    """CPU seconds of this process and of everything that Ray started for it."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if "weed" not in process.name() and "multiprocessing" not in " ".join(
                process.cmdline()
            ):
                times = process.cpu_times()
                total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


def stream_rate(source: ClipSource, steps: range) -> Rate:
    """The stream on Ray, as the training loop reads it."""
    cpu, start = ray_cpu_s(), time.perf_counter()
    batches = source.batches(SPEC, start_step=steps.start, num_steps=len(steps))
    clips = sum(len(batch) for batch in batches)
    return Rate(clips / (time.perf_counter() - start), clips / (ray_cpu_s() - cpu))


def waiting_share(source: ClipSource, steps: int) -> float:
    """Share of a small training's time in which the loop waits for the next batch."""
    seed_torch(0, "build")
    method = MmaDfer(replace(MmaDferConfig.tiny(), autoencoder=None, epochs=1), CLASSES)
    method.begin_stage(0)
    stage = method.stage(0)
    assert stage is not None
    spec = replace(stage.streams["clips"], split="all", batch_size=BATCH_SIZE)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4)
    waited = worked = 0.0
    batches = source.batches(spec, start_step=0, num_steps=steps)
    for step in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        progress = Progress(stage=0, epoch=0, step=step, total_steps=steps)
        optimizer.zero_grad(set_to_none=True)
        method({"clips": batch}, progress).loss.backward()
        optimizer.step()
        if step >= 4:  # the first task's results arrive together
            waited += ready - start
            worked += time.perf_counter() - ready
    return waited / (waited + worked)


def make_cache(manifest: Manifest, folder: Path, specs: Sequence[StreamSpec]) -> LoadPlan:
    """A plan that reads decoded clips."""
    cache, stored_as = ClipCache.open(str(folder), create=True), StoredAs()
    kinds = {CacheSettings(crops=LoadPlan().crops(spec), stored_as=stored_as) for spec in specs}
    refs = list(manifest)
    for settings in kinds:
        build(cache, refs, settings)
    held = {settings: cache.cover(refs, settings) for settings in kinds}
    return LoadPlan(cache=CachedClips.of(cache, stored_as, held))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server | None]:
    """A real S3 server whose address is in the environment; None where there is no binary."""
    if S3Server.missing():
        yield None
        return
    server = S3Server(folder)
    os.environ |= server.environment
    server.start()
    try:
        yield server
    finally:
        server.stop()


def upload(manifest_path: Path) -> str:
    """The data set in a bucket."""
    folder = manifest_path.parent
    for file in folder.rglob("*"):
        if file.is_file():
            place = f"s3://{BUCKET}/set/{file.relative_to(folder).as_posix()}"
            storage.write_bytes_atomically(place, file.read_bytes())
    return f"s3://{BUCKET}/set/{manifest_path.name}"


def median_ratio(over: Sequence[Rate], under: Sequence[Rate], field: str) -> float:
    pairs = zip(over, under, strict=True)
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)


def measure(folder: Path, num_subjects: int, steps: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    spec = SynthSpec(
        num_subjects=num_subjects, classes=CLASSES, size_px=160, duration_s=1.2, supersample=False
    )
    manifest_path = write_dataset(spec, folder / "set", num_workers=0)
    local = Manifest.read(str(manifest_path))
    executor = RayExecutor(tasks=2)
    rates: dict[str, list[Rate]] = {"bare": [], "disk": [], "s3": []}
    method_spec = MmaDfer(MmaDferConfig.tiny(), CLASSES).prediction_stream()
    loader = training_loader(open_source(local, LoadPlan()))
    context = multiprocessing.get_context("spawn")
    with (
        s3_server(folder / "s3") as server,
        ProcessPoolExecutor(2, mp_context=context) as pool,
    ):
        # Every process has its first task, which imports, loads detectors and compiles.
        ready = [pool.submit(read_alone, loader, range(2)) for _ in range(2)]
        with ray_session(TrainPlan(decode_tasks=2)):
            sources = {"disk": open_source(local, LoadPlan(), executor=executor)}
            if server is not None:
                remote = Manifest.read(upload(manifest_path))
                sources["s3"] = open_source(remote, LoadPlan(), executor=executor)
            stream_rate(sources["disk"], range(max(4, steps // 8)))
            for done in ready:
                done.result()
            for index in range(rounds):
                part = range(index * steps, (index + 1) * steps)
                rates["bare"].append(bare_rate(pool, loader, part))
                for name, source in sources.items():
                    rates[name].append(stream_rate(source, part))
                print(f"round {index + 1}/{rounds}: {_shown(rates)}", flush=True)
            cached = make_cache(local, folder / "cache", [method_spec])
            waits = {
                name: waiting_share(open_source(local, plan, executor=executor), max(6, steps // 2))
                for name, plan in (("decoding", LoadPlan()), ("cached", cached))
            }
    return _figures(rates, waits) | {"steps_per_round": steps, "rounds": rounds}


def _shown(rates: dict[str, list[Rate]]) -> str:
    return ", ".join(
        f"{name} {found[-1].by_clock:.1f} clips/s ({found[-1].by_cpu:.1f} per CPU second)"
        for name, found in rates.items()
        if found
    )


def _figures(rates: dict[str, list[Rate]], waits: dict[str, float]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, found in rates.items():
        if found:
            figures[f"{name}_clips_per_s"] = statistics.median(rate.by_clock for rate in found)
            figures[f"{name}_clips_per_cpu_s"] = statistics.median(rate.by_cpu for rate in found)
    for field in ("by_cpu", "by_clock"):
        figures[f"stream_over_bare_{field}"] = median_ratio(rates["disk"], rates["bare"], field)
        if rates["s3"]:
            figures[f"s3_over_disk_{field}"] = median_ratio(rates["s3"], rates["disk"], field)
    return figures | {f"waiting_share_{name}": share for name, share in waits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    num_subjects, steps, rounds = (3, 6, 1) if args.quick else (24, 240, 3)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), num_subjects, steps, rounds)
    targets = {
        "pipeline": ("stream_over_bare_by_clock", ">=", 0.85),
        "cache": ("waiting_share_cached", "<=", figures["waiting_share_decoding"]),
    }
    finish("stream", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
