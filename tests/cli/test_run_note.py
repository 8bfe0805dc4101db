"""The text on top of a run's page."""

from __future__ import annotations

from mien_jobs.run_note import with_verdict

NOTE = "# run\n\nUAR 0.800 on 10 clips.\n\n## Data\n\n| part | clips |\n"


def test_a_verdict_stands_first_and_takes_the_place_of_an_earlier_one() -> None:
    refused = with_verdict(NOTE, "faces", 2, passed=False, why="against version 1: slower")
    again = with_verdict(refused, "faces", 3, passed=True, why="against version 1: better")
    assert refused == f"**faces version 2 was refused**: against version 1: slower\n\n{NOTE}"
    assert again == f"**faces version 3 was accepted**: against version 1: better\n\n{NOTE}"


def test_verdicts_of_other_models_stay() -> None:
    mine = with_verdict(NOTE, "faces", 2, passed=True, why="the first one")
    both = with_verdict(mine, "voices", 1, passed=True, why="the first one")
    assert both.startswith("**voices version 1")
    assert both.endswith(mine)
