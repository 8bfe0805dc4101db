"""Joins the Ray cluster that there is, or starts one on this machine for the time of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mien.train.plan import TrainPlan

_OBJECT_STORE_BYTES = 2 << 30

QUIET_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # By default objects that nobody reads any more are freed once a second: a second of decoded
    # rows on top of the bound that a stream keeps to.
    "RAY_free_objects_period_milliseconds": "100",
    # Only ever reached from this machine, and gone when the run ends.
    "RAY_AUTH_MODE": "disabled",
}


class RayUnavailableError(ValueError):
    """Ray can't give what a plan asks for."""


@contextmanager
def ray_session(
    plan: TrainPlan, *, num_cpus: int | None = None, dashboard: bool = False
) -> Iterator[None]:
    """A Ray cluster for the time of a run.

    Inside a Ray job, or where RAY_ADDRESS is set, that cluster is used and left running. Otherwise
    Ray is started here and stopped at the end. Its CPUs are counted so that workers and decoding
    fit: Ray would wait for ever for a CPU that this machine doesn't have.

    Args:
        plan: of the run, or of each of several runs.
        num_cpus: of a cluster that is started here; None: so that the plan fits.
        dashboard: whether such a cluster has one. Without it, the resources of a Ray Train run that
            is killed from outside are never given back.

    Raises:
        RayUnavailableError: RAY_ADDRESS names a cluster that can't be reached, or this machine is
            too busy to start one.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address)
    else:
        _start(num_cpus or needed_cpus(plan), dashboard)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(address=address, logging_level="warning", log_to_driver=False)
    except ConnectionError as error:
        raise RayUnavailableError(
            f"RAY_ADDRESS={address} can't be reached: {error}. Start that cluster, correct the "
            "address, or unset RAY_ADDRESS to run on this machine."
        ) from error


def _start(num_cpus: int, dashboard: bool) -> None:
    for name, value in QUIET_RAY.items():
        os.environ.setdefault(name, value)
    cores = os.cpu_count() or 1
    try:
        ray.init(
            address="local",
            num_cpus=max(cores, num_cpus),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=dashboard,
            logging_level="warning",
            log_to_driver=False,
        )
    except Exception as error:  # Ray raises no more special one
        if "timed out during startup" not in str(error):
            raise
        raise RayUnavailableError(
            f"Ray did not start on this machine within its 30 s (load average "
            f"{os.getloadavg()[0]:.0f} on {cores} cores): run the same command again when there is "
            "less other work, or set RAY_ADDRESS to a cluster that runs already."
        ) from error


def needed_cpus(plan: TrainPlan) -> int:
    """Ray CPUs that a run's workers and their decoding tasks reserve, rounded up."""
    each = plan.cpus_per_worker + plan.decode_tasks * plan.cpus_per_decode_task
    return -int(-(max(1, plan.workers) * each) // 1)
