"""Spaces: what is drawn, when, what is refused, and how options are read."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.search.plan import Objective, SearchError, SearchPlan
from mien.search.space import Dimension, Space, SpaceError
from mien_jobs.methods import METHODS, make_recipe
from mien_jobs.space_options import build_space, misfit
from mien_jobs.verbs.tune import SPACES
from mien_models.contract import Range

RULE = Dimension(name="rule", kind="choice", choices=("fixed", "moving"))
RHO = Dimension(name="rho", kind="uniform", low=0.9, high=1.0, only_if=("rule", ("moving",)))
DEPTH = Dimension(name="depth", kind="int", low=1, high=3)
RATE = Dimension(name="rate", kind="log_uniform", low=1e-5, high=1e-2)


def draws(space: Space, count: int) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_a_conditional_setting_is_drawn_only_under_its_condition() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = draws(Space((RHO, RULE)), 40)  # the condition stands behind: it is drawn first
    assert {row["rule"] for row in drawn} == {"fixed", "moving"}
    assert all(("rho" in row) == (row["rule"] == "moving") for row in drawn)


def test_values_are_of_their_types_within_their_bounds_and_log_in_their_density() -> None:
    drawn = draws(Space((DEPTH, RATE)), 200)
    assert {type(row["depth"]) for row in drawn} == {int}
    assert {row["depth"] for row in drawn} == {1, 2, 3}
    low = sum(row["rate"] < math.sqrt(1e-5 * 1e-2) for row in drawn)
    assert 70 < low < 130  # half of a log-uniform range lies below its geometric mean
    assert all(1e-5 <= row["rate"] <= 1e-2 for row in drawn)


def test_a_grid_has_every_combination_once_and_conditional_ones_where_they_matter() -> None:
    rho = Dimension(name="rho", kind="choice", choices=(0.9, 0.99), only_if=("rule", ("moving",)))
    rows = list(Space((RULE, rho, DEPTH)).grid())
    assert len(rows) == 3 * (1 + 2)
    assert len({tuple(sorted(row.items())) for row in rows}) == len(rows)
    with pytest.raises(SpaceError, match="rate: a grid needs a list"):
        Space((RULE, RATE)).grid()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Dimension(name="x", kind="uniform", low=1.0, high=1.0), "x: the range"),
        (lambda: Dimension(name="x", kind="log_uniform", low=0.0, high=1.0), "starts above 0"),
        (lambda: Dimension(name="x", kind="int", low=0.5, high=2.0), "whole numbers"),
        (lambda: Dimension(name="x", kind="choice"), "at least one value"),
        (lambda: Dimension(name="x", kind="choice", choices=(1, 2, 1)), "twice"),
        (lambda: Dimension(name="x", kind="uniform", low=0.0, high=math.inf), "two finite"),
        (lambda: Space(()), "nothing to search"),
        (lambda: Space((DEPTH, DEPTH)), "depth is in the space twice"),
        (lambda: Space((RHO,)), "rule, which is not searched"),
    ],
)
def test_ranges_that_hold_nothing_are_refused_by_name(made, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpaceError, match=words):
        made()


def test_true_and_one_are_two_choices() -> None:
    both = Dimension(name="x", kind="choice", choices=(True, 1, None))
    assert both.holds(True)
    assert both.holds(None)
    assert not both.holds(0)
    only = Dimension(name="x", kind="choice", choices=(1,))
    assert not only.holds(True)


values = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), st.text("ab,"))


@given(st.lists(values, min_size=1, max_size=5, unique_by=lambda value: (type(value), value)))
def test_a_space_survives_its_file(choices: list[object]) -> None:
    rule = Dimension(name="rule", kind="choice", choices=tuple(choices))  # type: ignore[arg-type]
    rho = Dimension(name="rho", kind="uniform", low=0.0, high=1.0, only_if=("rule", (choices[0],)))  # type: ignore[arg-type]
    space = Space((rule, rho, DEPTH, RATE))
    assert Space.from_json(space.to_json()) == space


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_method_names_the_settings_that_the_mission_searches(name: str) -> None:
    own = METHODS[name].method.search_space()  # type: ignore[attr-defined]
    space, _ = build_space(make_recipe(name, "tiny"), own, SPACES[name])
    assert len(space.dimensions) >= 2
    everything, _ = build_space(make_recipe(name, "tiny"), own, ["*"])
    assert set(space.names) <= set(everything.names)


RECIPE = make_recipe("mma_dfer", "tiny")
OWN = METHODS["mma_dfer"].method.search_space()  # type: ignore[attr-defined]


def test_options_are_read_by_the_settings_own_types() -> None:
    options = ["optim.lr=loguniform(1e-5,1e-3)", "per_stage=choice(1, 3,8)", "train.seed=int(0,4)"]
    space, notes = build_space(RECIPE, OWN, [*options, "fusion.bl*"])
    rate, depth, seed, blocks = space.dimensions
    assert (rate.name, rate.kind, rate.low, rate.high) == ("optim.lr", "log_uniform", 1e-5, 1e-3)
    assert (depth.name, depth.choices) == ("prompts.per_stage", (1, 3, 8))
    assert (seed.name, seed.ends) == ("train.seed", (0, 4))
    assert blocks == Dimension.of("fusion.blocks", OWN["fusion.blocks"])
    assert notes == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("prompts_per_stage=choice(1,3)", "did you mean prompts.per_stage"),
        ("lr=loguniform(1e-5,1e-3)", "optim.lr or autoencoder.optim.lr"),
        ("prompts.per_stage=unifrom(1,3)", r"did you mean uniform\(\.\.\.\)"),
        ("prompts.per_stage=choice(1,x)", "prompts.per_stage: expected a whole number, not 'x'"),
        ("prompts.per_stage=uniform(1,3)", "prompts.per_stage takes a whole number"),
        ("fusion.blocks=uniform(0,1)", "fusion.blocks takes one of all, last_half"),
        ("drop_audio=uniform(0,3)", "drop_audio=3.0"),
        ("prompt.*", "did you mean prompts.per_stage"),
        ("temporal.depth=int(1,4) if prompts.per_stage=1", "which is not searched"),
        ("num_frames=__import__('os').system('true')", "num_frames needs a range"),
        ("optim.lr=loguniform(1e-5)", "takes two numbers"),
    ],
)
def test_bad_options_are_refused_naming_the_setting(option: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        build_space(RECIPE, OWN, [option])


def test_a_condition_is_typed_too() -> None:
    options = ["prompts.per_stage=choice(0,3)", "temporal.depth=int(1,4) if prompts.per_stage=3"]
    space, _ = build_space(RECIPE, OWN, options)
    assert space.dimensions[1].only_if == ("prompts.per_stage", (3,))


def test_own_values_that_the_recipe_refuses_are_left_out_and_said() -> None:
    own = {"label_smoothing": Range(kind="choice", choices=(0.1, 7.0))}
    recipe = make_recipe("dtm", "tiny")
    own = {"threshold.floor": Range(kind="choice", choices=(0.5, 0.97))}  # its ceiling is 0.95
    space, notes = build_space(recipe, own, ["*"])
    assert space.dimensions[0].choices == (0.5,)
    assert notes[0].startswith("threshold.floor=0.97 left out: ")
    assert misfit(recipe, {"threshold.floor": 0.97}) is not None


def test_samplers_refuse_what_they_cannot_search() -> None:
    score = (Objective(metric="val/uar"),)
    with pytest.raises(SearchError, match="cmaes needs two settings"):
        SearchPlan(objectives=score, trials=3, sampler="cmaes").check_space(Space((RULE, RATE)))
    with pytest.raises(SearchError, match="--prune none"):
        SearchPlan(objectives=(*score, Objective(metric="val/war")), trials=3)
    with pytest.raises(SearchError, match="both objectives"):
        SearchPlan(objectives=score * 2, trials=3, pruner="none")
