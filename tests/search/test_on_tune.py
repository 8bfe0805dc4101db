"""Trials on a real Ray Tune: failures, deaths, and a search that is gone on with."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from mien.search.on_tune import TrialCall, TrialOutcome, run_search
from mien.search.plan import Objective, SearchError, SearchPlan
from mien.search.space import Dimension, Space
from mien.search.study import SearchStudy, TrialRecord

X = Dimension(name="x", kind="uniform", low=1.0, high=6.0)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


class Trial:
    """Reports x three times; trial 1 fails, trial 2's process dies at its first start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, call: TrialCall) -> TrialOutcome:
        with (self.folder / "calls.txt").open("a") as file:
            file.write(f"{call.number}\n")
        if call.number == 1:
            raise ValueError("one is refused")
        x = float(call.values["x"] or 0)
        for epoch in range(1, 4):
            call.report({"stage": 0.0, "epoch": float(epoch), "val/uar": x})
            died = self.folder / "died"
            if call.number == 2 and epoch == 2 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return TrialOutcome(scores=(x,), facts={"pid": os.getpid()})


class Seen:
    """What a watcher was told."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.epochs: list[int] = []
        self.over: dict[int, str] = {}

    def started(self, trial: TrialRecord) -> None:
        self.began.append(trial.number)

    def reported(self, number: int, metrics: Mapping[str, float]) -> None:
        assert list(metrics) == ["val/uar"]
        self.epochs.append(number)

    def ended(self, trial: TrialRecord) -> None:
        assert trial.number not in self.over
        self.over[trial.number] = trial.state


def study_in(folder: Path, trials: int, **options: object) -> SearchStudy:
    options = {"sampler": "random", "pruner": "none", "concurrent": 2, **options}
    plan = SearchPlan(objectives=(Objective(metric="val/uar"),), trials=trials, **options)  # type: ignore[arg-type]
    return SearchStudy(f"sqlite:///{folder}/study.db", "test", plan, Space((X,)))


def test_a_search_survives_failures_deaths_and_being_left(tmp_path: Path) -> None:
    # As a killed driver leaves it: two trials drawn, the first of them with an epoch reported.
    left = study_in(tmp_path, 5)
    for _ in range(2):
        trial = left.next_trial()
        assert trial is not None
    left.report(0, (0.0, 0.0, 1.0), 9.0)
    study, seen = study_in(tmp_path, 5), Seen()
    over = run_search(
        study, Trial(tmp_path), folder=str(tmp_path), resources={"CPU": 1}, watcher=seen
    )
    assert over == "5 trials"
    assert seen.began == [0, 1, 2, 3, 4]
    assert seen.over == {0: "complete", 1: "failed", 2: "complete", 3: "complete", 4: "complete"}
    records = study.records()
    assert records[1].reason == "ValueError: one is refused"
    assert all(t.scores == (t.values["x"],) for t in records if t.state == "complete")
    assert len({t.values["x"] for t in records}) == 5
    # The epoch before the kill is kept, and redone epochs count once.
    assert records[0].curve == (9.0, records[0].values["x"], records[0].values["x"])
    assert len(records[2].curve) == 3
    calls = [int(line) for line in (tmp_path / "calls.txt").read_text().split()]
    assert sorted(calls) == [0, 1, 2, 2, 3, 4]
    assert records[0].facts["pid"] > 0
    assert study.searched_s > 0


def always_fails(call: TrialCall) -> TrialOutcome:
    raise ValueError("nothing works")


def test_too_many_failures_end_a_search_with_their_reasons(tmp_path: Path) -> None:
    study = study_in(tmp_path, 5, max_failed=0, concurrent=1)
    with pytest.raises(SearchError, match=r"1 trials failed \(limit 0\): trial 0: .*nothing works"):
        run_search(study, always_fails, folder=str(tmp_path), resources={"CPU": 1}, watcher=Seen())
