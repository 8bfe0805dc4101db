"""A search that begins with what MLflow has seen to be good."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.search.from_mlflow import settings_of_best_runs
from mien.search.plan import Objective, SearchError
from mien.search.space import Dimension, Space
from mien.track.tracker import TrackerSpec

SPACE = Space(
    (
        Dimension(name="threshold.evidence", kind="choice", choices=("epoch", "running")),
        Dimension(
            name="threshold.rho",
            kind="choice",
            choices=(0.9, 0.99),
            only_if=("threshold.evidence", ("running",)),
        ),
        Dimension(name="threshold.gamma", kind="choice", choices=(None, 2)),
        Dimension(name="optim.lr", kind="log_uniform", low=1e-5, high=1e-2),
    )
)
UAR = Objective(metric="val/uar")


def track(uri: str, key: str, params: dict[str, object], score: float | None) -> None:
    tracker = TrackerSpec(uri=uri, experiment="faces", run_name=key, run_key=key).open()
    tracker.log_params(params)
    if score is not None:
        tracker.log_metrics({"val/uar": 0.9}, step=1)
        tracker.log_metrics({"val/uar": score}, step=2)
    tracker.finish("FINISHED")


def recipe(evidence: str, gamma: int | None, rate: float) -> dict[str, object]:
    threshold = {"evidence": evidence, "rho": 0.99, "gamma": gamma}
    return {"config": {"threshold": threshold, "optim": {"lr": rate}}, "data": {"fps": 5}}


def test_the_best_runs_that_fit_are_found_in_order(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track(uri, "good", recipe("epoch", None, 1e-3), 0.6)
    track(uri, "best", recipe("running", 2, 1e-4), 0.7)
    track(uri, "best again", recipe("running", 2, 1e-4), 0.65)
    track(uri, "outside", recipe("running", 2, 0.5), 0.8)
    track(uri, "without a score", recipe("epoch", 2, 1e-3), None)
    trial = {"threshold.evidence": "epoch", "threshold.gamma": 2, "optim.lr": 0.002}
    track(uri, "a trial", trial, 0.1)
    best = {
        "threshold.evidence": "running",
        "threshold.rho": 0.99,
        "threshold.gamma": 2,
        "optim.lr": 1e-4,
    }
    good = {"threshold.evidence": "epoch", "threshold.gamma": None, "optim.lr": 1e-3}
    assert settings_of_best_runs(uri, "faces", SPACE, UAR, 5) == [best, good, trial]
    assert settings_of_best_runs(uri, "faces", SPACE, UAR, 1) == [best]
    with pytest.raises(SearchError, match=r"no experiment 'face'; it has .*faces"):
        settings_of_best_runs(uri, "face", SPACE, UAR, 5)
