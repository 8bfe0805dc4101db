"""A training's state as metrics of Ray, which Prometheus scrapes from every node.

They are named ``ray_mien_...`` there; k8s/base/grafana-dashboard.json shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from ray.util.metrics import Gauge

from mien.track.tracker import Tracker

GAUGES: Mapping[str, tuple[str, str]] = {
    "train/clips_per_s": ("mien_clips_per_second", "Clips that all workers train on in a second."),
    "train/waiting_for_data": (
        "mien_waiting_for_data_ratio",
        "Share of its time that the main worker waits for decoded clips.",
    ),
    "train/s_per_step": ("mien_seconds_per_step", "Seconds of a training step."),
    "data/quarantined_clips": ("mien_quarantined_clips", "Clips that could not be decoded."),
    "epoch": ("mien_epoch", "Epochs of the current stage that are done."),
    "stage": ("mien_stage", "The current stage, from 0."),
    "val/uar": ("mien_validation_uar", "Mean recall of the classes on the validation split."),
}
"""Curve or entry of an epoch's report: the gauge's name and what it says."""


class RunGauges:
    """The gauges of one run, set by its main worker."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges = {
            key: Gauge(name, description=says, tag_keys=("run",))
            for key, (name, says) in GAUGES.items()
        }

    def set(self, metrics: Mapping[str, float]) -> None:
        """Sets the gauges that the metrics have values for."""
        for key in metrics.keys() & self._gauges.keys():
            self._gauges[key].set(metrics[key], tags=self._tags)


def observed(tracker: Tracker, observe: Callable[[Mapping[str, float]], None]) -> Tracker:
    """A tracker that also shows the metrics it is given to somebody else."""
    return cast(Tracker, _Observed(tracker, observe))


class _Observed:
    def __init__(self, tracker: Tracker, observe: Callable[[Mapping[str, float]], None]) -> None:
        self._tracker, self._observe = tracker, observe

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._observe(metrics)
        self._tracker.log_metrics(metrics, step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)
