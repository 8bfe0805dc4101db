"""Scores against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.evaluate.metrics import (
    calibration_error,
    score_classes,
    score_logits,
    softmax,
)

CLASSES = ("joy", "grief", "rage", "awe")
# 4 joy (3 right, 1 as grief), 2 grief (1 right, 1 as rage), 2 rage (both right), no awe.
TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def test_by_hand() -> None:
    scores = score_classes(TRUE, PREDICTED, CLASSES)
    assert scores.war == 6 / 8
    assert scores.uar == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert scores.macro_f1 == pytest.approx((6 / 7 + 2 / 4 + 4 / 5 + 0) / 4)
    assert scores.absent == ("awe",)
    assert scores.confusion == ((3, 1, 0, 0), (0, 1, 1, 0), (0, 0, 2, 0), (0, 0, 0, 0))
    rage, awe = scores.per_class[2:]
    assert (rage.support, rage.recall) == (2, 1.0)
    assert rage.precision == pytest.approx(2 / 3)
    assert (awe.support, awe.recall, awe.precision, awe.f1) == (0, None, 0.0, 0.0)
    assert scores.ece is None


def test_always_the_same_answer_is_chance_in_uar() -> None:
    true = np.repeat([0, 1, 2, 3], [97, 1, 1, 1])
    scores = score_classes(true, np.zeros_like(true), CLASSES)
    assert scores.war == 0.97
    assert scores.uar == 0.25


def test_logits_and_calibration() -> None:
    logits = np.log([[0.8, 0.1, 0.05, 0.05], [0.8, 0.1, 0.05, 0.05], [0.1, 0.6, 0.2, 0.1]])
    scores = score_logits(logits, np.array([0, 1, 1]), CLASSES)
    assert scores.war == pytest.approx(2 / 3)
    # bin of 0.8: 2 clips, accuracy 0.5, gap 0.3; bin of 0.6: 1 clip, accuracy 1, gap 0.4
    assert scores.ece == pytest.approx((2 * 0.3 + 1 * 0.4) / 3)


def test_calibration_of_certain_and_right_is_zero() -> None:
    assert calibration_error(np.array([1, 0]), np.array([[0.0, 1.0], [1.0, 0.0]])) == 0.0


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([], [], "no clips to score"),
        ([0, -1], [0, 0], r"true class indices must lie in \[0, 4\)"),
        ([0, 1], [0, 4], "predicted class indices"),
        ([0, 1], [0], "one true and one predicted"),
    ],
)
def test_bad_indices(true: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_classes(np.array(true, dtype=np.int64), np.array(predicted), CLASSES)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 clips have logits that are not finite"):
        score_logits(np.array([[0.0, np.nan], [0.0, 1.0]]), np.array([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match=r"expected logits \[N, 2\]"):
        score_logits(np.zeros((2, 3)), np.array([0, 1]), ("a", "b"))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_order_of_clips_does_not_matter(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    forward = score_classes(true, predicted, CLASSES)
    assert score_classes(true[::-1], predicted[::-1], CLASSES) == forward
    recalls = [c.recall for c in forward.per_class if c.recall is not None]
    assert forward.uar == pytest.approx(sum(recalls) / len(recalls))
    assert 0 <= forward.uar <= 1
