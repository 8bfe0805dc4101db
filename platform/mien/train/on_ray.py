"""A training job on Ray Train workers.

Ray Train starts and watches the group of workers; a group that dies is started again here, and
``fit`` goes on from the newest checkpoint. What a worker refuses (a ValueError: wrong settings, a
loss that is not finite) would be refused again, so such a job is not started again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import ray
import ray.train
from ray.data import DataContext
from ray.data._internal.stats import get_or_create_stats_actor
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mien.cluster.groups import NodeGroup
from mien.media.storage import join
from mien.stream.ray_executor import RayExecutor
from mien.train.checkpoint import CheckpointStore
from mien.train.elastic import Growth, workers_to_start
from mien.train.kept_device import gone_gpu, with_kept_device
from mien.train.launch import TrainJob, run_worker
from mien.train.loop import FitResult
from mien.train.plan import TrainPlan
from mien.train.prometheus import RunGauges, observed
from mien.train.waiting import Reminder, shortage, training_room
from mien.train.world import DeviceError, World, choose_device

_POLL_S = 0.3


class TrainingError(ValueError):
    """A training that its workers refused, or that failed more often than it may."""


class RoomForMoreError(RuntimeError):
    """Ends the workers of a training that goes on with more."""


class Messages:
    """The actor through which workers speak to whoever started the training."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._refusals: list[str] = []
        self._should_grow = False

    def say(self, line: str) -> None:
        """A line to print."""
        self._lines.append(line)

    def refuse(self, reason: str) -> None:
        """Why a worker will not go on."""
        self._refusals.append(reason)

    def grow(self) -> None:
        """There is room for more workers: these should end after their next checkpoint."""
        self._should_grow = True

    def should_grow(self) -> bool:
        """Whether `grow` was called."""
        return self._should_grow

    def take_growth(self) -> bool:
        """The same, once."""
        found, self._should_grow = self._should_grow, False
        return found

    def take(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def refusals(self) -> list[str]:
        """All refusals, oldest first."""
        return self._refusals


def train_on_ray(
    job: TrainJob,
    say: Callable[[str], None] = print,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> FitResult:
    """Runs a job on as many workers as its plan says.

    Args:
        job: what to train.
        say: prints a line.
        callbacks: of Ray Train, such as the one that passes an epoch's metrics on to Ray Tune.

    Raises:
        TrainingError: a worker refused, or the workers died more than ``max_failures`` times.
        DeviceError: it wants GPUs, or was trained on them so far, and Ray is this machine alone,
            which has none. A cluster may bring them: there it waits, and says so.
    """
    _refuse_database_of_one_machine(job)
    job = _on_its_device(job)
    use_gpu = job.plan.device == "cuda"
    messages = _start_messages()
    # Ray Data's actor for statistics lives for ever on the node that first asks for it, which an
    # autoscaler then never takes for idle: that node must not be one with GPUs.
    get_or_create_stats_actor()
    failures = 0

    def lacking() -> str | None:
        return shortage(job.plan, job.cluster, ray.nodes(), use_gpu=use_gpu)

    def room() -> int:
        return training_room(job.plan, job.cluster, ray.nodes(), use_gpu=use_gpu)

    while True:
        workers, looks = job.plan.workers, [Reminder(lacking, say).look]
        if job.plan.is_elastic:
            workers = workers_to_start(job.plan, room())
            looks.append(Growth(job.plan, workers, room, messages.grow.remote).look)
        try:
            with _printing(messages, say, looks):
                result = _trainer(job, workers, messages, callbacks).fit()
            return cast(FitResult, result.return_value)
        except ray.train.TrainingFailedError as error:
            if not _is_failure(job, workers, messages, error, say):
                continue
            failures += 1
            if failures > job.plan.max_failures:
                raise TrainingError(
                    f"the workers of run {job.name!r} died {failures} times; the last time: "
                    f"{error}. Its checkpoints are in {job.folder}: the same command goes on."
                ) from error
            say(
                f"the workers died ({_last_line(error)}); starting them again from the newest "
                f"checkpoint ({failures}/{job.plan.max_failures})"
            )


def _is_failure(
    job: TrainJob,
    workers: int,
    messages: Any,
    error: ray.train.TrainingFailedError,
    say: Callable[[str], None],
) -> bool:
    """Whether workers ended by an accident; not if they did for more of them to come.

    Raises:
        TrainingError: one of them refused to go on.
    """
    refusals = ray.get(messages.refusals.remote())
    if refusals:
        raise TrainingError(refusals[0]) from error
    if ray.get(messages.take_growth.remote()):
        say("there is room for more workers: starting them all from the newest checkpoint")
        return False
    if job.plan.is_elastic and isinstance(error, ray.train.ControllerError):
        say(f"{workers} workers did not start in time; counting the nodes again")
        return False
    return True


def _start_messages() -> Any:
    """The actor, on the driver's own node: with another node its lines could be lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Messages).remote()


def _refuse_database_of_one_machine(job: TrainJob) -> None:
    """An SQLite file on another node would be another database, and its curves would be lost."""
    uri = job.tracker.uri if job.tracker is not None else None
    if uri is not None and uri.startswith("sqlite:") and len(ray.nodes()) > 1:
        raise TrainingError(
            f"the run is tracked in {uri}, which the other nodes of this cluster don't share: "
            "start an MLflow server and name it with MLFLOW_TRACKING_URI or "
            "--set track.uri=http://HOST:5000 (or track.uri=off)"
        )


def _on_its_device(job: TrainJob) -> TrainJob:
    """The job with its device decided, once for all restarts."""
    store = CheckpointStore(job.folder)
    plan = with_kept_device(job.plan, store, has_gpu=wants_gpu(job.plan, job.cluster.train))
    is_this_machine = len(ray.nodes()) == 1 and not os.environ.get("RAY_ADDRESS")
    if plan.device == "cuda" and is_this_machine and not _has_gpus():
        raise DeviceError(gone_gpu(job.name))
    return replace(job, plan=plan)


def _trainer(
    job: TrainJob, workers: int, messages: Any, callbacks: Sequence[ray.train.UserCallback]
) -> TorchTrainer:
    use_gpu = job.plan.device == "cuda"
    resources = {"CPU": job.plan.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "messages": messages},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker=resources,
            label_selector=job.cluster.train.selector or None,
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=RunConfig(
            # Ray resumes its own bookkeeping under a known name; ours lies in the checkpoints.
            name=f"{job.name}-{time.time_ns()}",
            storage_path=join(job.folder, "ray"),
            failure_config=FailureConfig(
                max_failures=0,
                # An elastic group that does not start was counted on a node that has just died.
                controller_failure_limit=0 if job.plan.is_elastic else 3,
            ),
            callbacks=list(callbacks),
        ),
    )


def wants_gpu(plan: TrainPlan, group: NodeGroup) -> bool:
    """``auto``: GPUs where the cluster has them, or where the nodes that train are to have them and
    have yet to come; the head that asks may have none itself."""
    if plan.device == "auto":
        return bool(group.gpus) or _has_gpus()
    return plan.device == "cuda"


def _has_gpus() -> bool:
    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def _worker(config: dict[str, Any]) -> FitResult:
    """What each Ray Train worker does."""
    job: TrainJob = config["job"]
    messages = config["messages"]
    DataContext.get_current().enable_progress_bars = False
    context = ray.train.get_context()
    gauges = RunGauges(job.name)
    is_elastic = job.plan.is_elastic

    def report(metrics: Mapping[str, float]) -> None:
        if context.get_world_rank() == 0:
            gauges.set(metrics)
        ray.train.report(dict(metrics))
        # After an epoch's checkpoint, so that no step is made again.
        if is_elastic and context.get_world_rank() == 0 and ray.get(messages.should_grow.remote()):
            raise RoomForMoreError

    try:
        world = World(
            rank=context.get_world_rank(),
            size=context.get_world_size(),
            device=choose_device(job.plan.device),
        )
        return run_worker(
            job,
            world,
            RayExecutor(
                tasks=job.plan.decode_tasks,
                cpus_per_task=job.plan.cpus_per_decode_task,
                group=job.cluster.decode,
            ),
            say=lambda line: messages.say.remote(line),
            report=report,
            watch=lambda tracker: observed(tracker, gauges.set),
        )
    except ValueError as error:
        ray.get(messages.refuse.remote(str(error)))
        raise


@contextmanager
def _printing(
    messages: Any, say: Callable[[str], None], looks: Sequence[Callable[[], None]]
) -> Iterator[None]:
    """Prints what the workers say, as it comes and to the last line, and looks around meanwhile."""
    is_over = threading.Event()

    def relay() -> None:
        while not is_over.wait(_POLL_S):
            for line in ray.get(messages.take.remote()):
                say(line)
            for look in looks:
                look()

    thread = threading.Thread(target=relay, name="mien-messages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        for line in ray.get(messages.take.remote()):
            say(line)


def _last_line(error: BaseException) -> str:
    return next(line for line in reversed(str(error).splitlines()) if line.strip()).strip()
