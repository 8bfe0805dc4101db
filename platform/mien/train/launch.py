"""The training loop on Ray Train workers, or in the calling process.

A :class:`TrainJob` is everything that a worker needs, as data: it is pickled to the workers, which
build the method, open their share of the streams and call :func:`mien.train.loop.fit`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.cluster.groups import ClusterPlan
from mien.infer.package import PackageInfo, save_package
from mien.media.storage import join, write_bytes_atomically
from mien.seeds import seed_torch
from mien.stream.plan import LoadPlan
from mien.stream.source import ClipSource, Executor, in_process
from mien.track.environment import device_name
from mien.track.tracker import NoTracker, Tracker, TrackerSpec
from mien.train.checkpoint import CheckpointStore
from mien.train.kept_device import gone_gpu, with_kept_device
from mien.train.loop import FitResult, fit
from mien.train.plan import TrainPlan
from mien.train.world import DeviceError, World, choose_device
from mien.weights.part_file import read_part
from mien_models.contract import Method


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One training, ready to be sent to workers."""

    name: str
    folder: str
    """Where checkpoints and results go: an absolute path or a URI that all workers reach."""
    build_method: Callable[[], Method]
    """Importable in the workers; called after seeding."""
    manifest: Manifest
    split: Split
    label_set: LabelSet
    plan: TrainPlan
    loading: LoadPlan
    package: PackageInfo
    """What is known about the model beforehand; the worker fills in what training finds out."""
    pretrained: Mapping[str, str] = field(default_factory=dict)
    """Location of the weights of each part that training takes as given."""
    tracker: TrackerSpec | None = None
    """None: nothing is tracked."""
    cluster: ClusterPlan = field(default_factory=ClusterPlan)
    """Which nodes train and which decode."""

    @property
    def package_location(self) -> str:
        """Where the trained model lies when the job is done."""
        return join(self.folder, "package")


def train(job: TrainJob) -> FitResult:
    """Runs a job to its end and returns what its main worker returns.

    ``plan.workers == 0`` runs in this process. Otherwise Ray Train starts the workers; Ray must be
    running or startable. A job whose folder holds checkpoints goes on from the newest one, on the
    same kind of device.

    Raises:
        DeviceError: the job wants a GPU, or was trained on one so far, and there is none.
    """
    if job.plan.workers == 0:
        has_gpu = torch.cuda.is_available()
        plan = with_kept_device(job.plan, CheckpointStore(job.folder), has_gpu=has_gpu)
        if plan.device == "cuda" and not has_gpu:
            raise DeviceError(gone_gpu(job.name))
        job = replace(job, plan=plan)
        return run_worker(job, World(device=choose_device(plan.device)), in_process)
    from mien.train.on_ray import train_on_ray

    return train_on_ray(job)


def _no_report(metrics: Mapping[str, float]) -> None:
    """Nobody waits for the metrics of an epoch."""


def _unwatched(tracker: Tracker) -> Tracker:
    return tracker


def _print(line: str) -> None:
    print(line, flush=True)


def run_worker(
    job: TrainJob,
    world: World,
    executor: Executor,
    *,
    say: Callable[[str], None] = _print,
    report: Callable[[Mapping[str, float]], None] = _no_report,
    watch: Callable[[Tracker], Tracker] = _unwatched,
) -> FitResult:
    """One worker's part of a job, from an unseeded process to the shipped model.

    Args:
        job: what to train.
        world: which worker this is.
        executor: decodes.
        say: prints a line.
        report: gets the metrics of every epoch.
        watch: puts something between the loop and the main worker's tracker.
    """
    plan = job.plan
    torch.set_num_threads(plan.threads_per_worker or max(1, (os.cpu_count() or 1) // world.size))
    seed_torch(plan.seed, "build")
    method = job.build_method()
    job = replace(job, package=load_given_weights(method, job))
    source = ClipSource(
        job.manifest,
        job.split,
        job.label_set,
        seed=plan.seed,
        rank=world.rank,
        world_size=world.size,
        executor=executor,
        plan=job.loading,
    )
    tracker = _open_tracker(job, world)
    if world.is_main:
        tracker = watch(tracker)
    tracker.set_tags({"mien.device": device_name(world.device)})
    result = fit(
        method,
        clips=source,
        plan=plan,
        world=world,
        store=CheckpointStore(job.folder, keep=plan.keep_checkpoints),
        tracker=tracker,
        say=say,
        report=report,
    )
    if world.is_main:
        _ship(job, method, result)
    tracker.flush()
    return result


def load_given_weights(method: Method, job: TrainJob) -> PackageInfo:
    """Puts the given weights into the method; returns the package's info with their papers.

    Raises:
        ValueError: a file that can't be read, is for another part, or doesn't fit.
    """
    papers: dict[str, dict[str, str]] = {}
    for name, location in job.pretrained.items():
        part = read_part(location)
        if part.facts.part != name:
            raise ValueError(
                f"{location} holds the weights of {part.facts.part} ({part.facts.kind}), and was "
                f"given for {name}; write weights.{part.facts.part}={location}"
            )
        method.load_pretrained(name, part.tensors)
        papers[name] = {**asdict(part.facts), "sha256": part.sha256}
    return replace(job.package, pretrained=papers)


def _open_tracker(job: TrainJob, world: World) -> Tracker:
    return job.tracker.open() if job.tracker is not None and world.is_main else NoTracker()


def _ship(job: TrainJob, method: Method, result: FitResult) -> None:
    """Writes the model package into the job's folder."""
    method.finish()
    info = replace(
        job.package,
        prediction_stream=method.prediction_stream(),
        stages_begun=result.stages_begun,
        json_state=method.json_state(),
        metrics=result.metrics,
    )
    with tempfile.TemporaryDirectory() as folder:
        package = save_package(Path(folder) / "package", info, method.state_dict())
        for file in sorted(package.iterdir()):
            write_bytes_atomically(join(job.package_location, file.name), file.read_bytes())
