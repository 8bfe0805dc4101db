"""Bootstrap over people against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mien.evaluate.bootstrap import bootstrap_interval, mean_interval, paired_difference
from mien.evaluate.metrics import score_classes

TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def test_bootstrap_over_people() -> None:
    """Two people, one all right and one all wrong: draws are 0, 1/2 or 1, at 1/4, 1/2, 1/4."""
    true = np.array([0, 1, 0, 1])
    predicted = np.array([0, 1, 1, 0])
    people = np.array(["ann", "ann", "bob", "bob"])
    interval = bootstrap_interval(true, predicted, people, num_classes=2)
    assert (interval.low, interval.high, interval.num_groups) == (0.0, 1.0, 2)
    narrow = bootstrap_interval(true, predicted, people, num_classes=2, level=0.4, score="war")
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_bootstrap_is_seeded_and_narrows() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 3000)
    predicted = np.where(rng.random(3000) < 0.7, true, (true + 1) % 3)
    people = np.arange(3000) // 10
    first = bootstrap_interval(true, predicted, people, num_classes=3, seed=5)
    assert bootstrap_interval(true, predicted, people, num_classes=3, seed=5) == first
    # standard error of an accuracy of 0.7 over 3000 clips is 0.0084
    assert 2 * 1.6 * 0.0084 < first.high - first.low < 2 * 2.4 * 0.0084
    assert first.low < 0.7 < first.high


def test_bootstrap_refuses_one_person() -> None:
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval(TRUE, PREDICTED, np.zeros(8), num_classes=4)
    with pytest.raises(ValueError, match="expected 'uar', 'war' or 'macro_f1'"):
        bootstrap_interval(TRUE, PREDICTED, np.arange(8), num_classes=4, score="f1")  # type: ignore[arg-type]


def test_mean_of_people_with_different_numbers_of_clips() -> None:
    """Draws are ann twice (1), bob twice (0) or both: (3 * 1 + 1 * 0) / 4."""
    people = np.array(["ann", "ann", "ann", "bob"])
    interval = mean_interval(np.array([1, 1, 1, 0]), people, level=0.4)
    assert (interval.low, interval.high) == (0.75, 0.75)


@pytest.mark.parametrize("score", ["uar", "war", "macro_f1"])
def test_difference_is_that_of_the_scores(score: str) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 400)
    first = np.where(rng.random(400) < 0.5, true, rng.integers(0, 4, 400))
    second = np.where(rng.random(400) < 0.8, true, rng.integers(0, 4, 400))
    people = np.arange(400) // 8
    found = paired_difference(true, first, second, people, num_classes=4, score=score)  # type: ignore[arg-type]
    names = ("a", "b", "c", "d")
    expected = [getattr(score_classes(true, one, names), score) for one in (first, second)]
    assert found.value == pytest.approx(expected[1] - expected[0])
    assert 0 < found.interval.low < found.value < found.interval.high


def test_pairing_is_narrower_than_two_intervals() -> None:
    """Two models that err on the same people: each score is uncertain, their difference is not."""
    true = np.zeros(200, dtype=np.int64)
    people = np.arange(200) // 10
    first = np.where(people % 2 == 0, 0, 1)  # half of the people wrong
    second = first.copy()
    second[people == 1] = 0  # one person more is right
    found = paired_difference(true, first, second, people, num_classes=2, score="war")
    alone = bootstrap_interval(true, first, people, num_classes=2, score="war")
    assert found.value == pytest.approx(1 / 20)
    assert found.interval.low == 0.0  # a third of the draws lack that person
    assert found.interval.high - found.interval.low < (alone.high - alone.low) / 2


def test_a_model_against_itself() -> None:
    people = np.arange(8) // 2
    found = paired_difference(TRUE, PREDICTED, PREDICTED, people, num_classes=3)
    assert (found.value, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)
