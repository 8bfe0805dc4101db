"""The training loop, for every method, on one process or many.

What :func:`fit` does, in the order of its code::

    go on from the newest checkpoint, or start
    for each stage that the method names:
        let the method change its network; build DDP and optimiser; freeze what does not train
        open the stage's streams at the step where it stands
        for each epoch:
            for each step:
                next batches                      (time spent waiting is measured)
                forward, backward, update         (StageRun.step)
                refuse losses that are not finite
                method.after_step()
                now and then: a line, the curves, a checkpoint
            method.end_epoch(scan)
            evaluate on the validation split; keep the best epoch
            checkpoint
        go back to the best epoch's weights
        method.end_stage(scan)
        checkpoint

Every random draw comes from hash(seed, stage, step, rank), every batch from hash(seed, epoch), so
a run that was interrupted anywhere and started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch

from mien.media.storage import join
from mien.seeds import seed_torch
from mien.stream.quarantine import Quarantine
from mien.track.tracker import Tracker
from mien.train.checkpoint import Checkpoint, CheckpointStore
from mien.train.meter import StepMeter
from mien.train.plan import TrainPlan
from mien.train.stage_run import StageRun
from mien.train.validate import (
    CLASS_METRICS,
    UNIT_METRIC,
    as_given,
    gather_predictions,
    validation_metrics,
    validation_streams,
)
from mien.train.world import World, choose_precision
from mien_models.contract import ClipBatch, EpochNotes, Method, Progress, Stage, StreamSpec


class NonFiniteLossError(ValueError):
    """The loss or the gradient became infinite or not a number."""


class Clips(Protocol):
    """Where batches come from: ``mien.stream.source.ClipSource``."""

    quarantine: Quarantine

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        """Whole global batches in one pass over a stream."""

    def num_clips(self, spec: StreamSpec) -> int:
        """Clips that a stream holds."""

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        """This worker's part of the global batches, from a step on."""

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        """This worker's part of one plain pass."""


@dataclass(kw_only=True)
class Position:
    """Where a run stands; all of it is in every checkpoint."""

    stage: int = 0
    stages_begun: int = 0
    step: int = 0
    """Optimiser steps done in the stage."""
    global_step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation metrics of the best epoch of the last evaluated stage."""
    meter: dict[str, float] = field(default_factory=dict)
    """Sums since the last line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What a training gives back."""

    metrics: dict[str, float]
    best_epoch: int | None
    steps: int
    stages_begun: int
    seconds: float
    quarantine: Quarantine


def fit(
    method: Method,
    *,
    clips: Clips,
    plan: TrainPlan,
    world: World,
    store: CheckpointStore,
    tracker: Tracker,
    say: Callable[[str], None] = print,
    report: Callable[[Mapping[str, float]], None] = lambda metrics: None,
) -> FitResult:
    """Trains a method to its end; goes on where the newest checkpoint of ``store`` stands.

    Args:
        method: the method; holds the weights to ship when this returns.
        clips: opens the streams that the method's stages name.
        plan: workers, precision, how often to log, evaluate and checkpoint.
        world: this worker among the others.
        store: the run's checkpoints.
        tracker: gets the curves; only the main worker's is used.
        say: prints a line; only called on the main worker.
        report: gets the metrics of every epoch, on every worker (a Ray Train barrier).

    Raises:
        NonFiniteLossError: names the step and this worker's clips.
        CheckpointError: storage is full or damaged.
        ValueError: the method, the plan and the data don't fit.
    """
    started = time.monotonic()
    session = _Session(method, clips, plan, world, store, tracker, say, report)
    session.resume()
    while (stage := method.stage(session.position.stage)) is not None:
        session.train_stage(stage)
    quarantine = session.gather_quarantine()
    position = session.position
    return FitResult(
        metrics=position.metrics,
        best_epoch=position.best_epoch,
        steps=position.global_step,
        stages_begun=position.stages_begun,
        seconds=time.monotonic() - started,
        quarantine=quarantine,
    )


class _Session:
    """The state of one call of :func:`fit`; its methods are in the order of the docstring."""

    def __init__(
        self,
        method: Method,
        clips: Clips,
        plan: TrainPlan,
        world: World,
        store: CheckpointStore,
        tracker: Tracker,
        say: Callable[[str], None],
        report: Callable[[Mapping[str, float]], None],
    ) -> None:
        self.method, self.clips, self.plan, self.world = method, clips, plan, world
        self.store, self.tracker, self.say, self.report = store, tracker, say, report
        self.position = Position()
        self._saved: Checkpoint | None = None
        self._frozen_sha256: str | None = None
        self._precision = choose_precision(plan.precision, world.device)

    def resume(self) -> None:
        """Puts method and position where the newest checkpoint has them."""
        self._saved = self.store.load_newest()
        if self._saved is not None:
            self.position = Position(**self._saved.state["position"])
            self.method.load_json_state(self._saved.state["method"])
            for index in range(self.position.stages_begun):
                self._begin(index)
            self._load_weights(self._saved)
            if self.world.is_main:
                self.say(f"going on from the checkpoint of step {self.position.global_step}")
        self.method.to(self.world.device)

    def _begin(self, index: int) -> None:
        seed_torch(self.plan.seed, "begin", index)
        self.method.begin_stage(index)

    def _load_weights(self, checkpoint: Checkpoint) -> None:
        frozen = self.store.load_frozen(checkpoint.state["frozen_sha256"])
        self.method.load_state_dict(checkpoint.model | frozen)

    def train_stage(self, stage: Stage) -> None:
        """Trains one stage, from wherever it stands to its end."""
        run, steps_per_epoch = self._open_stage(stage)
        streams = {
            name: self.clips.batches(
                spec,
                start_step=self.position.step,
                num_steps=run.total_steps - self.position.step,
            )
            for name, spec in stage.streams.items()
        }
        meter = StepMeter(run, self.position.meter, steps_per_epoch)
        for epoch in range(self.position.step // steps_per_epoch, stage.epochs):
            while self.position.step < (epoch + 1) * steps_per_epoch:
                self._train_step(run, streams, meter, epoch)
                if self._is_due(self.plan.checkpoint_every_steps, steps_per_epoch):
                    self._save(run)
            with meter.paused():
                self._end_epoch(run, epoch)
        self._close_stage(run)

    def _open_stage(self, stage: Stage) -> tuple[StageRun, int]:
        position = self.position
        if position.stages_begun == position.stage:
            self._begin(position.stage)
            position.stages_begun += 1
            self.method.to(self.world.device)
        steps_of_streams = self._steps_of_streams(stage)
        steps_per_epoch = stage.steps_per_epoch or steps_of_streams[0]
        run = StageRun(
            self.method,
            stage,
            total_steps=stage.epochs * steps_per_epoch,
            world=self.world,
            autocast=self._precision,
            compile=self.plan.compile,
        )
        if self._saved is not None and position.step > 0:
            run.load_optimizer_tensors(self._saved.optimizer)
        self._saved = None
        if self.world.is_main:
            self._frozen_sha256 = self.store.save_frozen(run.frozen_tensors())
            self.say(_stage_line(run, steps_per_epoch, self._precision, self.world))
        return run, steps_per_epoch

    def _steps_of_streams(self, stage: Stage) -> list[int]:
        """Whole batches in one pass of each stream."""
        found = []
        for name, spec in stage.streams.items():
            try:
                found.append(self.clips.steps_per_epoch(spec))
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}, stream {name!r}: {error}") from error
        return found

    def _train_step(
        self,
        run: StageRun,
        streams: Mapping[str, Iterator[ClipBatch]],
        meter: StepMeter,
        epoch: int,
    ) -> None:
        position = self.position
        with meter.waiting():
            batches = {name: next(s).to(self.world.device) for name, s in streams.items()}
        progress = Progress(
            stage=position.stage, epoch=epoch, step=position.step, total_steps=run.total_steps
        )
        seed_torch(self.plan.seed, "step", position.stage, position.step, self.world.rank)
        logs = run.step(batches, progress)
        values = dict(zip(logs, torch.stack(list(logs.values())).tolist(), strict=True))
        _refuse_non_finite(values, batches, run.stage, position.step)
        self.method.after_step()
        position.step += 1
        position.global_step += 1
        meter.add(values, clips=sum(map(len, batches.values())) * self.world.size)
        if self._is_due(self.plan.log_every_steps) or position.step == run.total_steps:
            curves = meter.flush(self.world, position.step)
            if self.world.is_main:
                self.tracker.log_metrics(curves, position.global_step)
                self.say(meter.line(curves, position.step))

    def _is_due(self, every: int | None, unless_every: int | None = None) -> bool:
        """Whether something that happens every so many steps happens now.

        The end of an epoch has its own checkpoint, made after the epoch's end was handled.
        """
        step = self.position.step
        if unless_every is not None and step % unless_every == 0:
            return False
        return every is not None and step % every == 0

    def _end_epoch(self, run: StageRun, epoch: int) -> None:
        notes = self.method.end_epoch(self.clips.scan)
        if notes is not None and self.world.is_main:
            self._tell(run.stage, epoch, notes)
        is_last = epoch + 1 == run.stage.epochs
        is_due = (epoch + 1) % self.plan.evaluate_every_epochs == 0 or is_last
        metrics: dict[str, float] = {}
        if run.stage.evaluate and is_due:
            metrics = self._evaluate(run, epoch)
            self._keep_best(run, epoch, metrics)
        self._save(run)
        self.report({"epoch": float(epoch + 1), "stage": float(self.position.stage), **metrics})

    def _tell(self, stage: Stage, epoch: int, notes: EpochNotes) -> None:
        curves = {f"train/{stage.name}/{name}": value for name, value in notes.logs.items()}
        self.tracker.log_metrics(curves, self.position.global_step)
        for line in notes.warnings:
            self.say(f"{stage.name} epoch {epoch + 1}: warning: {line}")

    def _evaluate(self, run: StageRun, epoch: int) -> dict[str, float]:
        """Scores of the validation split; empty where there is none."""
        streams = [s for s in validation_streams(self.method) if self.clips.num_clips(s) > 0]
        if not streams:
            return {}
        batches = itertools.chain.from_iterable(map(self.clips.scan, streams))
        with run.averaged_weights():
            predicted = gather_predictions(
                self.method, batches, self.world, run.autocast, {"": as_given}
            )[""]
        metrics, details = validation_metrics(self.method, predicted)
        if self.world.is_main:
            self.tracker.log_metrics(metrics | details, self.position.global_step)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            num_clips = len(predicted.clip_ids)
            self.say(f"{run.stage.name} epoch {epoch + 1}: {num_clips} clips  {shown}")
        return metrics

    def _keep_best(self, run: StageRun, epoch: int, metrics: Mapping[str, float]) -> None:
        if not metrics:
            return
        if self.plan.select in CLASS_METRICS and CLASS_METRICS[0] not in metrics:
            # Clips with action units alone, and nobody asked for those.
            is_first = epoch < self.plan.evaluate_every_epochs
            if is_first and self.world.is_main:
                self.say(
                    f"warning: no validation clip has a class, which train.select="
                    f"{self.plan.select} needs: the last epoch is kept, not the best; choose by "
                    f"action units with train.select={UNIT_METRIC}"
                )
            return
        if self.plan.select not in metrics:
            raise ValueError(
                f"train.select={self.plan.select!r} is not among the validation metrics "
                f"{sorted(metrics)}"
            )
        position = self.position
        if position.best is None or metrics[self.plan.select] > position.best:
            position.best = metrics[self.plan.select]
            position.best_epoch = epoch + 1
            position.metrics = dict(metrics)
            if self.world.is_main:
                with run.averaged_weights():
                    self.store.save_best(self._checkpoint(run, with_optimizer=False))

    def _close_stage(self, run: StageRun) -> None:
        """Leaves the weights to ship in the method and moves to the next stage."""
        if self.position.best is not None:
            self.world.barrier()
            self._load_weights(self.store.load_best())
        else:
            run.keep_averaged_weights()
        notes = self.method.end_stage(self.clips.scan)
        if notes is not None and self.world.is_main:
            self._tell(run.stage, run.stage.epochs - 1, notes)
        self.position.stage += 1
        self.position.step = 0
        self.position.best = None
        self.position.meter.clear()
        self._save(run)

    def _save(self, run: StageRun) -> None:
        if self.world.is_main:
            # Curves first: a run that goes on from this checkpoint does not report them again.
            self.tracker.flush()
            self.store.save(
                self.position.stage, self.position.step, self._checkpoint(run, with_optimizer=True)
            )
        self.world.barrier()

    def _checkpoint(self, run: StageRun, *, with_optimizer: bool) -> Checkpoint:
        return Checkpoint(
            model=run.model_tensors(),
            optimizer=run.optimizer_tensors() if with_optimizer else {},
            state={
                "position": asdict(self.position),
                "method": self.method.json_state(),
                "frozen_sha256": self._frozen_sha256,
                "device": self.world.device.type,
            },
        )

    def gather_quarantine(self) -> Quarantine:
        """All workers' quarantined clips; the main worker writes the list into the run's folder."""
        total = Quarantine()
        for clips in self.world.gather(self.clips.quarantine.clips):
            total.update(clips)
        if self.world.is_main:
            self.say(total.summary())
            self.tracker.log_metrics(
                {"data/quarantined_clips": float(len(total))}, self.position.global_step
            )
            if len(total):
                total.write(join(self.store.folder, "quarantine.csv"))
        return total


def _refuse_non_finite(
    values: Mapping[str, float], batches: Mapping[str, ClipBatch], stage: Stage, step: int
) -> None:
    # The gradient norm is the same on all workers, so all of them stop at the same step.
    if math.isfinite(values["grad_norm"]) and math.isfinite(values["loss"]):
        return
    ids = {name: list(batch.clip_ids) for name, batch in batches.items()}
    raise NonFiniteLossError(
        f"stage {stage.name!r}, step {step}: loss {values['loss']}, gradient norm "
        f"{values['grad_norm']}. Nothing of this step was saved. This worker's clips: {ids}. "
        "Try a smaller learning rate, train.precision=float32, or look at these clips."
    )


def _stage_line(run: StageRun, steps_per_epoch: int, precision: torch.dtype, world: World) -> str:
    trained = sum(p.numel() for p in run.trainable.values())
    total = sum(p.numel() for p in run.method.parameters())
    return (
        f"stage {run.stage.name}: {run.stage.epochs} epochs of {steps_per_epoch} steps, "
        f"{trained:,} of {total:,} parameters train, {world.size} worker(s) on "
        f"{world.device.type}, {str(precision).removeprefix('torch.')}"
    )
