"""Our training loop against a bare PyTorch loop: same model, same preloaded batches, one process.

Also how long a Ray Train run takes from the call to its first step. Run with ``--quick`` for a
short version. The two loops take turns on one thread and are compared by CPU time, which the load
of the machine changes little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from report import finish

from mien.seeds import seed_torch
from mien.stream.quarantine import Quarantine
from mien.synth import SynthSpec, write_dataset
from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.local_ray import ray_session
from mien.train.loop import fit
from mien.train.on_ray import train_on_ray
from mien.train.plan import TrainPlan
from mien.train.stage_run import select_trainable
from mien.train.world import World
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import DataPlan, TrackPlan
from mien_jobs.training import prepare
from mien_models.contract import ClipBatch, Progress, Stage, StreamSpec, plain_batch
from mien_models.mma_dfer import MmaDfer, MmaDferConfig

CLASSES = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")


class PreloadedClips:
    """The same few batches again and again, from memory."""

    def __init__(self, batches: Sequence[ClipBatch], steps: int) -> None:
        self.quarantine = Quarantine()
        self._batches, self._steps = batches, steps

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        return self._steps

    def num_clips(self, spec: StreamSpec) -> int:
        return 0  # nothing to validate on

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        for step in range(start_step, start_step + num_steps):
            yield self._batches[step % len(self._batches)]

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        return iter(())


def make_method() -> MmaDfer:
    """The tiny preset's second stage alone, for one epoch."""
    seed_torch(0, "build")
    return MmaDfer(replace(MmaDferConfig.tiny(), autoencoder=None, epochs=1), CLASSES)


def make_batches(method: MmaDfer, count: int) -> list[ClipBatch]:
    """Random clips of the right shapes."""
    spec = method.prediction_stream()
    assert spec.audio is not None
    size, frames = spec.image_size_px, spec.views[0].num_frames
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        video = torch.randint(
            0, 256, (spec.batch_size, frames, 3, size, size), dtype=torch.uint8, generator=generator
        )
        audio = torch.randn(
            spec.batch_size, spec.audio.num_frames, spec.audio.num_mels, generator=generator
        )
        batch = plain_batch(video, audio, clip_ids=[f"clip{i}" for i in range(spec.batch_size)])
        labels = torch.randint(0, len(CLASSES), (spec.batch_size,), generator=generator)
        batches.append(replace(batch, label_B=labels))
    return batches


def bare_loop(batches: Sequence[ClipBatch], steps: int) -> float:
    """What one would write by hand; CPU seconds a step."""
    method = make_method()
    method.begin_stage(0)
    stage = method.stage(0)
    assert isinstance(stage, Stage)
    parameters = list(select_trainable(method, stage).values())
    optimizer = torch.optim.AdamW(parameters, lr=stage.optim.lr)
    method.train()
    start = time.process_time()
    for step in range(steps):
        progress = Progress(stage=0, epoch=0, step=step, total_steps=steps)
        optimizer.zero_grad(set_to_none=True)
        output = method({"clips": batches[step % len(batches)]}, progress)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return (time.process_time() - start) / steps


def our_loop(batches: Sequence[ClipBatch], steps: int, folder: Path) -> float:
    """``fit`` with its curves, step lines and one checkpoint; CPU seconds a step."""
    method = make_method()
    lines: list[str] = []
    start = time.process_time()
    fit(
        method,
        clips=PreloadedClips(batches, steps),
        plan=TrainPlan(workers=0),
        world=World(),
        store=CheckpointStore(str(folder)),
        tracker=NoTracker(),
        say=lines.append,
    )
    return (time.process_time() - start) / steps


def time_to_first_step(folder: Path) -> dict[str, float]:
    """A Ray Train run on a few real clips: seconds until Ray is up, and from there to a step."""
    manifest = write_dataset(
        SynthSpec(num_subjects=4, size_px=64, duration_s=0.6, supersample=False),
        folder / "clips",
        num_workers=0,
    )
    recipe = make_recipe("mma_dfer", "tiny")
    recipe = replace(
        recipe,
        name="first-step",
        storage=str(folder / "runs"),
        config=replace(recipe.config, autoencoder=None, epochs=1, batch_size=8),
        data=DataPlan(manifest=str(manifest), val_fraction=0.0, test_fraction=0.25),
        train=replace(recipe.train, log_every_steps=1),
        track=TrackPlan(uri="off"),
    )
    job = prepare(recipe).job
    steps: list[float] = []

    def say(line: str) -> None:
        if " step " in line:
            steps.append(time.perf_counter())

    start = time.perf_counter()
    with ray_session(recipe.train):
        is_up = time.perf_counter()
        train_on_ray(job, say)
    return {"ray_start_s": is_up - start, "ray_train_s_to_first_step": steps[0] - is_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps, rounds = (10, 2) if args.quick else (30, 5)
    batches = make_batches(make_method(), 4)
    bare_loop(batches, 3)
    ours, bare = [], []
    for index in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            bare.append(bare_loop(batches, steps))
            ours.append(our_loop(batches, steps, Path(folder)))
        print(f"round {index + 1}/{rounds}: bare {bare[-1]:.4f} s/step, ours {ours[-1]:.4f} s/step")
    with tempfile.TemporaryDirectory() as folder:
        to_first_step = time_to_first_step(Path(folder))
    figures = {
        "bare_cpu_s_per_step": statistics.median(bare),
        "ours_cpu_s_per_step": statistics.median(ours),
        "ratio": statistics.median(o / b for o, b in zip(ours, bare, strict=True)),
        "steps_per_round": steps,
        "rounds": rounds,
        **to_first_step,
    }
    finish("loop_overhead", figures, {"loop": ("ratio", "<=", 1.05)}, quick=args.quick)


if __name__ == "__main__":
    main()
