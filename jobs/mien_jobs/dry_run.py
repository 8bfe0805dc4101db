"""What a training would be: everything is built, one step is run, nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import psutil
import torch

from mien.seeds import seed_torch
from mien.stream.source import ClipSource
from mien.train.launch import load_given_weights
from mien.train.stage_run import StageRun
from mien.train.world import World, choose_device, choose_precision
from mien_jobs.caching import read_cached
from mien_jobs.training import PreparedRun
from mien_models.contract import ClipBatch, Method, Progress, Stage

_MIB = 1 << 20


def dry_run(run: PreparedRun) -> str:
    """Builds the method and its streams, runs the first step of every stage on one worker's share.

    Raises:
        ValueError: whatever would stop the training: clips, settings, device.
    """
    return "\n".join(_lines(run))


def _lines(run: PreparedRun) -> Iterator[str]:
    plan = run.recipe.train
    world = World(device=choose_device(plan.device))
    seed_torch(plan.seed, "build")
    method = run.job.build_method()
    load_given_weights(method, run.job)
    source = ClipSource(
        run.data.manifest,
        run.data.split,
        run.data.label_set,
        seed=plan.seed,
        world_size=max(1, plan.workers),
        plan=read_cached(run.data, run.recipe.data, run.streams).loading,
    )
    yield from _data_lines(run)
    index = 0
    while (stage := method.stage(index)) is not None:
        method.begin_stage(index)
        method.to(world.device)
        yield from _stage_lines(run, method, stage, source, world, index)
        index += 1
    yield source.quarantine.summary()
    yield "dry run: nothing was written"


def _data_lines(run: PreparedRun) -> Iterator[str]:
    data = run.data
    yield (
        f"{len(data.manifest)} clips, classes {', '.join(data.label_set.classes)}; "
        f"train {len(data.split.train)}, val {len(data.split.val)}, test {len(data.split.test)}"
    )
    yield from (f"note: {note}" for note in (data.left_out, *data.split.notes) if note)


def _stage_lines(
    run: PreparedRun, method: Method, stage: Stage, source: ClipSource, world: World, index: int
) -> Iterator[str]:
    steps = stage.steps_per_epoch or source.steps_per_epoch(next(iter(stage.streams.values())))
    stage_run = StageRun(
        method,
        stage,
        total_steps=stage.epochs * steps,
        world=world,
        autocast=choose_precision(run.recipe.train.precision, world.device),
    )
    trained = sum(p.numel() for p in stage_run.trainable.values())
    total = sum(p.numel() for p in method.parameters())
    yield f"stage {stage.name}: {stage.epochs} epochs of {steps} steps"
    yield f"  parameters: {total:,}, of which {trained:,} train"
    started = time.perf_counter()
    batches = {
        name: next(source.batches(spec, start_step=0, num_steps=1)).to(world.device)
        for name, spec in stage.streams.items()
    }
    decoded = time.perf_counter()
    for name, batch in batches.items():
        yield f"  stream {name}, one worker's share: {_shapes(batch)}"
    peak_before = _memory(world)
    progress = Progress(stage=index, epoch=0, step=0, total_steps=stage_run.total_steps)
    logs = stage_run.step(batches, progress)
    stepped = time.perf_counter()
    loss, grad_norm = float(logs["loss"]), float(logs["grad_norm"])
    yield f"  first step: loss {loss:.4f}, gradient norm {grad_norm:.3f}"
    yield f"  seconds: {decoded - started:.2f} decoding (one process), {stepped - decoded:.2f} step"
    yield "  memory: " + _memory_estimate(method, stage_run, batches, peak_before, world)


def _shapes(batch: ClipBatch) -> str:
    shapes = [f"video {tuple(view.video_BTCHW.shape)}" for view in batch.views]
    if batch.audio_BFM is not None:
        shapes.append(f"log-mel {tuple(batch.audio_BFM.shape)}")
    with_audio = int(batch.has_audio_B.sum())
    faces = 100 * float(batch.views[0].has_face_BT.float().mean())
    return ", ".join(shapes) + f"; {with_audio}/{len(batch)} with sound, faces in {faces:.0f} %"


def _memory(world: World) -> int:
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
        return torch.cuda.memory_allocated(world.device)
    return int(psutil.Process().memory_info().rss)


def _memory_estimate(
    method: Method,
    stage_run: StageRun,
    batches: Mapping[str, ClipBatch],
    before: int,
    world: World,
) -> str:
    weights = sum(t.numel() * t.element_size() for t in method.state_dict().values())
    state = sum(t.numel() * t.element_size() for t in stage_run.optimizer_tensors().values())
    gradients = sum(p.numel() * p.element_size() for p in stage_run.trainable.values())
    if world.device.type == "cuda":
        step = torch.cuda.max_memory_allocated(world.device) - before
        what = "peak of the step (gradients and activations) on the device"
    else:
        step = max(0, int(psutil.Process().memory_info().rss) - before)
        what = "growth of the process in the step"
    return (
        f"weights {weights / _MIB:.0f} MiB, optimiser and averages {state / _MIB:.0f} MiB, "
        f"gradients {gradients / _MIB:.0f} MiB, {what} {step / _MIB:.0f} MiB"
    )
