"""The study: functions with known optima, early stopping, and what is left after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mien.search.plan import Objective, PrunerName, SamplerName, SearchError, SearchPlan
from mien.search.report import importance_of
from mien.search.space import Dimension, Space, Value
from mien.search.study import SearchStudy

SCORE = (Objective(metric="val/uar"),)
X = Dimension(name="x", kind="uniform", low=-5.0, high=5.0)
Y = Dimension(name="y", kind="uniform", low=-5.0, high=5.0)
PLANE = Space((X, Y))
Function = Callable[[Mapping[str, Value]], float]


def hill(values: Mapping[str, Value]) -> float:
    """Highest, 0, at (1, -2)."""
    return -((float(values["x"] or 0) - 1) ** 2) - (float(values["y"] or 0) + 2) ** 2


def plan(trials: int, sampler: SamplerName = "tpe", **options: object) -> SearchPlan:
    options = {"pruner": "none", **options}
    return SearchPlan(objectives=SCORE, trials=trials, sampler=sampler, **options)  # type: ignore[arg-type]


def searched(study: SearchStudy, function: Function = hill) -> SearchStudy:
    while (trial := study.next_trial()) is not None:
        study.complete(trial.number, [function(trial.values)], {})
    return study


def in_memory(plan: SearchPlan, space: Space = PLANE) -> SearchStudy:
    return SearchStudy(None, "test", plan, space)


def best_score(study: SearchStudy) -> float:
    scores = study.best()[0].scores
    assert scores is not None
    return scores[0]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_samplers_beat_chance_over_ten_seeds(sampler: SamplerName) -> None:
    regrets: dict[str, list[float]] = {sampler: [], "random": []}
    for seed in range(10):
        for name in (sampler, "random"):
            study = in_memory(plan(40, name, seed=seed))  # type: ignore[arg-type]
            regrets[name].append(-best_score(searched(study)))
    wins = sum(s < r for s, r in zip(regrets[sampler], regrets["random"], strict=True))
    assert wins >= 7
    assert np.median(regrets[sampler]) < 0.7 * np.median(regrets["random"])


def test_tpe_comes_near_a_known_optimum() -> None:
    assert best_score(searched(in_memory(plan(30, seed=1)))) > -0.5


def test_two_searches_of_one_seed_are_the_same_and_of_two_seeds_are_not() -> None:
    runs = [searched(in_memory(plan(12, seed=seed))) for seed in (3, 3, 4)]
    drawn = [[trial.values for trial in study.records()] for study in runs]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_search_in_pieces_draws_what_it_draws_in_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    for trials in (3, 8, 12):
        pieces = searched(SearchStudy(url, "test", plan(trials), PLANE))
    whole = searched(in_memory(plan(12)))
    assert [t.values for t in pieces.records()] == [t.values for t in whole.records()]


def test_nsga2_finds_a_front_that_no_trial_beats() -> None:
    objectives = (Objective(metric="val/uar"), Objective(metric="latency_ms", goal="minimize"))
    made = SearchPlan(objectives=objectives, trials=30, sampler="nsga2", pruner="none")
    study = in_memory(made)
    while (trial := study.next_trial()) is not None:
        x = float(trial.values["x"] or 0)
        study.complete(trial.number, [-((x - 1) ** 2), (x + 1) ** 2], {})
    front = study.best()
    assert 2 <= len(front) < 30
    for one in study.records():
        assert one.scores is not None
        beaten = [f for f in front if f.scores[0] > one.scores[0] and f.scores[1] < one.scores[1]]  # type: ignore[index]
        assert bool(beaten) == (one.number not in {f.number for f in front})


def test_a_grid_is_run_through_once_even_in_pieces(tmp_path: Path) -> None:
    space = Space(tuple(Dimension(name=n, kind="choice", choices=(1, 2, 3)) for n in ("x", "y")))
    url = f"sqlite:///{tmp_path}/study.db"
    study = SearchStudy(url, "test", plan(100, "grid"), space)
    for _ in range(4):
        trial = study.next_trial()
        assert trial is not None
        study.complete(trial.number, [0.0], {})
    study = searched(SearchStudy(url, "test", plan(100, "grid"), space))
    values = [tuple(trial.values.values()) for trial in study.records()]
    assert len(values) == 9 == len(set(values))
    assert study.why_over() == "the grid is complete"


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_bad_trials_are_stopped_and_the_best_is_not(pruner: PrunerName) -> None:
    study = in_memory(plan(16, "random", pruner=pruner, grace=2, seed=2))
    epochs = 0
    while (trial := study.next_trial()) is not None:
        for epoch in range(8):
            epochs += 1
            value = hill(trial.values) * (1 + 0.3 * (8 - epoch))
            if study.report(trial.number, (0, 0, epoch), value):
                study.prune(trial.number)
                break
        else:
            study.complete(trial.number, [hill(trial.values)], {})
    states = [trial.state for trial in study.records()]
    assert states.count("pruned") >= 4
    assert epochs < 0.8 * 8 * 16
    top = max(study.records(), key=lambda trial: hill(trial.values))
    assert top.state == "complete"
    assert all(len(t.curve) >= 2 for t in study.records())


def test_an_epoch_that_is_redone_after_a_kill_counts_once() -> None:
    study = in_memory(plan(2))
    trial = study.next_trial()
    assert trial is not None
    for place in ((0, 0, 1), (0, 0, 2), (0, 0, 2), (0, 1, 1)):
        study.report(trial.number, place, 0.5 + place[2] / 10)
    assert study.records()[0].curve == (0.6, 0.7, 0.6)


def test_importance_finds_the_one_field_that_matters() -> None:
    names = ("a", "b", "matters", "d")
    space = Space(tuple(Dimension(name=n, kind="uniform", low=0.0, high=1.0) for n in names))
    noise = np.random.default_rng(0)
    study = in_memory(plan(60, "random"), space)
    searched(study, lambda v: (float(v["matters"] or 0) - 0.3) ** 2 + 0.01 * noise.normal())
    shares = importance_of(study)
    assert next(iter(shares)) == "matters"
    assert shares["matters"] > 0.7
    assert math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6)
    few = searched(in_memory(plan(4, "random"), space), lambda v: float(v["a"] or 0))
    assert importance_of(few) == {}


def test_settings_that_cannot_be_run_or_were_are_drawn_anew_and_said() -> None:
    space = Space((Dimension(name="k", kind="choice", choices=(1, 2, 3, 4)),))
    study = SearchStudy(
        None, "test", plan(10, "random"), space, lambda v: "k is 2" if v["k"] == 2 else None
    )
    searched(study, lambda v: float(v["k"] or 0))
    assert sorted(trial.values["k"] for trial in study.records()) == [1, 3, 4]  # type: ignore[type-var]
    assert "k is 2" in study.refused()
    assert study.why_over() is None  # the space is exhausted, not the number of trials


def test_more_failures_than_allowed_end_the_search() -> None:
    study = in_memory(plan(10, max_failed=1))
    for count in range(3):
        trial = study.next_trial()
        if count == 2:
            assert trial is None
            break
        assert trial is not None
        study.fail(trial.number, "no such device")
    assert study.why_over() == "2 trials failed (limit 1)"
    assert study.records()[0].reason == "no such device"


def test_budgets_of_time_end_the_search_over_restarts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    SearchStudy(url, "test", plan(10, hours=1.0), PLANE).spend_search(3000.0)
    study = SearchStudy(url, "test", plan(10, hours=1.0), PLANE)
    assert study.why_over() is None
    study.spend_search(700.0)
    assert study.why_over() == "1 hours are over"
    study = in_memory(plan(10, gpus=0.5, gpu_hours=1.0))
    trial = study.next_trial()
    assert trial is not None
    study.spend(trial.number, 2 * 3600.0 + 1)
    assert study.why_over() == "1 GPU-hours are spent"


def test_given_settings_come_first_and_unfit_ones_are_refused() -> None:
    study = in_memory(plan(5))
    study.enqueue([{"x": 1.0, "y": -2.0}], label="given_first")
    study.enqueue([{"x": 1.0, "y": -2.0}], label="given_first")  # a restart says it again
    first = study.next_trial()
    assert first is not None
    assert first.values == {"x": 1.0, "y": -2.0}
    second = study.next_trial()
    assert second is not None
    assert second.values != first.values
    with pytest.raises(SearchError, match="x=9 is not in"):
        study.enqueue([{"x": 9.0, "y": 0.0}], label="other")


KILLED = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from test_study import PLANE, hill, plan
    from mien.search.study import SearchStudy
    study = SearchStudy({url!r}, "test", plan(20), PLANE)
    while (trial := study.next_trial()) is not None:
        print(trial.number, "began", flush=True)
        for epoch in range(3):
            study.report(trial.number, (0, 0, epoch), hill(trial.values))
        study.complete(trial.number, [hill(trial.values)], {{}})
        print(trial.number, "ended", flush=True)
"""


def test_a_real_kill_loses_no_trial_and_runs_none_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    code = textwrap.dedent(KILLED.format(url=url, tests=str(Path(__file__).parent)))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline().split() for _ in range(9)]  # in the middle of trial 4
        os.kill(child.pid, signal.SIGKILL)
        lines += [line.split() for line in child.stdout.read().splitlines()]
    ended = [int(number) for number, what in lines if what == "ended"]
    assert 4 <= len(ended) < 20
    study = SearchStudy(url, "test", plan(20), PLANE)
    before = {t.number: t for t in study.records() if t.state == "complete"}
    assert set(ended) <= set(before)
    handed_out = []
    while (trial := study.next_trial()) is not None:
        handed_out.append(trial.number)
        study.complete(trial.number, [hill(trial.values)], {})
    assert sorted([*before, *handed_out]) == list(range(20))
    whole = searched(in_memory(plan(20)))
    assert [t.values for t in study.records()] == [t.values for t in whole.records()]
