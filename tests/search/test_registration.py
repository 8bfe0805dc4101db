"""What a search can register, said before it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mien.search.plan import Objective, SearchError, SearchPlan
from mien.search.space import Dimension, Space
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import TrackPlan
from mien_jobs.search_driver import check_registration
from mien_jobs.searching import Search

SPACE = Space((Dimension(name="optim.lr", kind="log_uniform", low=1e-4, high=1e-2),))
UAR, LATENCY = Objective(metric="val/uar"), Objective(metric="latency_ms", goal="minimize")


def search_for(*objectives: Objective) -> Search:
    plan = SearchPlan(objectives=objectives, trials=2, pruner="none")
    return Search(recipe=make_recipe("dtm", "tiny"), space=SPACE, plan=plan)


def test_of_two_objectives_no_trial_is_the_best() -> None:
    check_registration(search_for(UAR, LATENCY), None)
    with pytest.raises(SearchError, match=r"several trials are the best.*track\.model=faces"):
        check_registration(search_for(UAR, LATENCY), "faces")
    check_registration(replace(search_for(UAR), folds=3), "faces")


def test_a_registry_needs_mlflow() -> None:
    search = search_for(UAR)
    search = replace(search, recipe=replace(search.recipe, track=TrackPlan(uri="off")))
    with pytest.raises(SearchError, match=r"--register faces: this search has no MLflow"):
        check_registration(search, "faces")
