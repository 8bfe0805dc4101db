"""Fold mean and pooled scores differ, and each is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.folds import score_folds
from mien.evaluate.predictions import Predictions, PredictionsError, make_predictions

LABELS = LabelSet(name="two", classes=("joy", "rage"))


def fold(names: str, true: list[int], predicted: list[int]) -> Predictions:
    return make_predictions(
        clip_ids=list(names), logits_NK=np.eye(2)[predicted], label_set=LABELS, true_N=true
    )


def test_by_hand() -> None:
    first = fold("abcd", [0, 0, 0, 1], [0, 0, 0, 0])  # UAR 1/2, WAR 3/4
    second = fold("ef", [0, 1], [1, 1])  # UAR 1/2, WAR 1/2
    found = score_folds({"1": first, "2": second})
    assert found.mean("war") == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.deviation("war") == pytest.approx(0.25 / np.sqrt(2))
    assert found.pooled.war == pytest.approx(4 / 6)
    assert found.mean("uar") == 0.5
    assert found.pooled.uar == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert score_folds({"1": first}).deviation("uar") == 0.0


def test_a_clip_is_tested_once() -> None:
    with pytest.raises(PredictionsError, match="clip 'a' is tested in fold 1 and fold 2"):
        score_folds({"1": fold("ab", [0, 1], [0, 1]), "2": fold("a", [0], [0])})
