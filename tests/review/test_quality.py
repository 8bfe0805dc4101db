"""Precision, recall and ranking by hand; cleanlab on predictions where the answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from mien.review.confident_learning import doubted_by_cleanlab, is_available
from mien.review.quality import found_errors, ranking_auc


def test_found_errors_by_hand() -> None:
    given = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "y"}
    truth = {"a": "x", "b": "y", "c": "x", "d": "y"}
    found = found_errors(["b", "d", "e"], given, truth)
    # Nobody knows about e; b is wrong and found, c is wrong and not, d is right.
    assert (found.found, found.right, found.wrong_labels) == (2, 1, 2)
    assert found.precision == found.recall == 0.5
    assert found_errors([], given, truth).precision is None
    assert found_errors(["a"], {"a": "x"}, {"a": "x"}).recall is None


def test_ranking_auc_by_hand() -> None:
    doubt = {"a": 0.9, "b": 0.5, "c": 0.5, "d": 0.1}
    # Pairs (wrong, right): a>c, a>d, b=c, b>d.
    assert ranking_auc(doubt, ["a", "b"]) == pytest.approx(3.5 / 4)
    assert ranking_auc(doubt, []) is None


@pytest.mark.skipif(not is_available(), reason="cleanlab is not installed")
def test_cleanlab_finds_planted_errors() -> None:
    rng = np.random.default_rng(0)
    true_N = np.arange(120) % 3
    shares_NK = np.full((120, 4), 0.05) + rng.uniform(0, 0.05, (120, 4))
    shares_NK[np.arange(120), true_N] = 0.8
    shares_NK /= shares_NK.sum(axis=1, keepdims=True)
    given_N = true_N.copy()
    wrong = rng.choice(120, 12, replace=False)
    given_N[wrong] = (given_N[wrong] + 1) % 3
    # The fourth class has no clip, as a rare one may not have in one fold.
    found = doubted_by_cleanlab(given_N, shares_NK)
    assert sorted(found.tolist()) == sorted(wrong.tolist())
