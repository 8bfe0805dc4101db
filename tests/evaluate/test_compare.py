"""Champion against challenger: planted gains, losses of a group, slowness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.compare import PromotionRules, compare, judge_first
from mien.evaluate.predictions import Predictions, PredictionsError, make_predictions

LABELS = LabelSet(name="two", classes=("joy", "rage"))
RULES = PromotionRules()
CLIPS = 400
"""Of forty people with ten clips each; people 0 to 9 are old."""
AGE = {f"c{i:03}": "old" if i < 100 else "young" for i in range(CLIPS)}
SAME_TIME = {"latencies_ms": (10.0, 10.0), "slice_by": {"age": AGE}}


def predictions(is_right: Callable[[int], bool], **changes: Any) -> Predictions:
    true = np.arange(CLIPS) % 2
    predicted = [t if is_right(i) else 1 - t for i, t in enumerate(true)]
    settings: dict[str, Any] = {
        "clip_ids": [f"c{i:03}" for i in range(CLIPS)],
        "logits_NK": np.eye(2)[predicted],
        "label_set": LABELS,
        "true_N": true,
        "subject_ids": [f"p{i // 10}" for i in range(CLIPS)],
    }
    return make_predictions(**{**settings, **changes})


def six_of_ten(i: int) -> bool:
    return i % 10 < 6


def eight_of_ten(i: int) -> bool:
    return i % 10 < 8


def test_a_real_gain_passes_and_names_its_size() -> None:
    found = compare(predictions(six_of_ten), predictions(eight_of_ten), RULES, **SAME_TIME)
    assert found.passed
    assert "UAR +0.200" in found.why
    assert "400 clips of 40 people" in found.why
    assert "Promoted." in found.report("title").to_markdown()


def test_the_same_model_is_no_gain_unless_that_is_allowed() -> None:
    model = predictions(six_of_ten)
    found = compare(model, model, RULES, **SAME_TIME)
    assert [check.name for check in found.checks if not check.passed] == ["gain"]
    assert "must be above +0.000" in found.why
    assert compare(model, model, replace(RULES, min_gain=-0.01), **SAME_TIME).passed


def test_a_gain_by_few_people_is_chance() -> None:
    lucky = predictions(lambda i: i % 10 < 6 or i // 10 == 3)
    found = compare(predictions(six_of_ten), lucky, RULES, **SAME_TIME)
    assert not found.passed
    assert "UAR +0.010" in found.why


def test_a_gain_that_old_people_pay_for_is_refused() -> None:
    challenger = predictions(lambda i: i % 10 < (4 if i < 100 else 9))
    found = compare(predictions(six_of_ten), challenger, RULES, **SAME_TIME)
    assert [check.name for check in found.checks if not check.passed] == ["slices"]
    assert found.why == "slices: age = old: WAR 0.600 to 0.400"
    assert found.slices is not None
    assert list(found.slices.rows[0])[:5] == ["age", "old", "100", "0.600", "0.400"]
    assert compare(
        predictions(six_of_ten), challenger, replace(RULES, max_slice_loss=0.3), **SAME_TIME
    ).passed


def test_a_floor_for_every_slice() -> None:
    challenger = predictions(lambda i: i % 10 < (6 if i < 100 else 9))
    strict = replace(RULES, min_slice_war=0.7)
    assert compare(predictions(six_of_ten), challenger, RULES, **SAME_TIME).passed
    assert not compare(predictions(six_of_ten), challenger, strict, **SAME_TIME).passed


def test_slow_models_are_refused() -> None:
    both = predictions(six_of_ten), predictions(eight_of_ten)
    slow = compare(*both, RULES, latencies_ms=(10.0, 15.1))
    assert slow.why.startswith("latency: 15.1 ms a clip, the champion 10.0 ms")
    assert compare(*both, RULES, latencies_ms=(10.0, 15.0)).passed
    budget = replace(RULES, max_latency_ms=12.0)
    assert "budget is 12 ms" in compare(*both, budget, latencies_ms=(10.0, 13.0)).why


def test_rows_are_matched_by_clip() -> None:
    order = np.random.default_rng(0).permutation(CLIPS)[:390]
    full = predictions(eight_of_ten)
    shuffled = Predictions(table=full.table.take(order), label_set=LABELS)
    found = compare(full, shuffled, RULES, **SAME_TIME)
    assert "UAR +0.000 (+0.000 to +0.000) on 390 clips" in found.why
    assert found.notes == ("10 clips that only one of them predicted don't count.",)


def test_what_can_not_be_compared() -> None:
    other = LabelSet(name="turned", classes=("rage", "joy"))
    with pytest.raises(PredictionsError, match="promote it under another --name"):
        compare(
            predictions(six_of_ten), predictions(six_of_ten, label_set=other), RULES, **SAME_TIME
        )
    strangers = predictions(six_of_ten, clip_ids=[f"x{i}" for i in range(CLIPS)])
    with pytest.raises(PredictionsError, match="no labelled clip in common"):
        compare(strangers, predictions(six_of_ten), RULES, **SAME_TIME)
    alone = predictions(six_of_ten, subject_ids=["me"] * CLIPS)
    with pytest.raises(PredictionsError, match="one person"):
        compare(alone, alone, RULES, **SAME_TIME)


def test_the_first_champion_beats_a_guess() -> None:
    assert judge_first(predictions(six_of_ten), RULES, 5.0).passed
    guess = judge_first(predictions(lambda i: i % 10 < 5), RULES, 5.0)
    assert not guess.passed
    assert "a guess has 0.500" in guess.why
    slow = judge_first(predictions(six_of_ten), replace(RULES, max_latency_ms=4.0), 5.0)
    assert not slow.passed
