"""What a search shows: readable at any width, failures with their reasons."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mien.search.plan import Objective, SearchPlan
from mien.search.space import Dimension, Space
from mien.search.study import SearchStudy
from mien_jobs.search_table import SearchTable, short_names

SPACE = Space(
    tuple(
        Dimension(name=f"agreement.{name}", kind="choice", choices=("never", "sometimes", "always"))
        for name in ("relabel", "reweight", "soften", "reinforce", "mitigate", "mixture")
    )
)


@pytest.fixture
def study() -> SearchStudy:
    """One complete trial and one that failed."""
    plan = SearchPlan(objectives=(Objective(metric="val/uar"),), trials=5, sampler="random")
    study = SearchStudy(None, "table", plan, SPACE)
    for _ in range(2):
        study.next_trial()
    study.complete(0, [0.61234], {})
    study.fail(1, "ValueError: the loss is not finite")
    return study


@pytest.mark.parametrize("width", [80, 140])
def test_every_setting_is_readable_at_any_width(study: SearchStudy, width: int) -> None:
    text = io.StringIO()
    table = SearchTable(study, Console(file=text, width=width))
    table.print_once()
    shown = text.getvalue()
    assert "…" not in shown
    assert "2/5 done, best 0.6123 (trial 0)" in shown
    assert ("settings" in shown) == (width == 80)
    for dimension in SPACE.dimensions:
        assert dimension.name.rpartition(".")[2] in shown
    assert ["0", "best", "0.6123"] in [line.split()[:3] for line in shown.splitlines()]


def test_a_failed_trial_is_said_with_its_reason(
    study: SearchStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = study.records()[1]
    SearchTable(study, Console(file=io.StringIO())).ended(failed)
    assert "trial 1: FAILED: ValueError: the loss is not finite; 2/5" in capsys.readouterr().out
    screen = io.StringIO()
    SearchTable(study, Console(file=screen, force_terminal=True, width=200)).ended(failed)
    assert "trial 1: FAILED: ValueError: the loss is not finite" in screen.getvalue()


def test_names_are_shortened_only_where_they_stay_apart() -> None:
    assert short_names(["threshold.rho", "optim.lr"]) == ["rho", "lr"]
    assert short_names(["basic.lr", "later.lr"]) == ["basic.lr", "later.lr"]
