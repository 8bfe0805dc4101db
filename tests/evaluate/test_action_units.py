"""AU F1 under both conventions, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mien.evaluate.action_units import presence, score_action_units

NAN = np.nan
UNITS = ("AU1", "AU12", "AU25")
# Fold a: AU1 has 1 hit, 1 miss, 1 false alarm; AU12 is coded twice; AU25 never.
FOLD_A = (
    np.array([[0.9, 0.9, 0.1], [0.2, 0.1, 0.1], [0.5, 0.9, 0.1], [0.1, 0.2, 0.9]]),
    np.array([[1, 1, NAN], [1, NAN, NAN], [0, NAN, NAN], [0, 0, NAN]]),
)
# Fold b: AU1 all right with 2 positives; AU12 never positive, never predicted.
FOLD_B = (
    np.array([[0.8, 0.1, 0.7], [0.7, 0.3, 0.2]]),
    np.array([[1, 0, 1], [1, 0, 1]]),
)


def test_both_conventions_by_hand() -> None:
    found = score_action_units({"a": FOLD_A, "b": FOLD_B}, UNITS)
    one, twelve, twenty_five = found.pooled
    assert (one.num_coded, one.num_positive) == (6, 4)
    assert one.f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert one.accuracy == pytest.approx(4 / 6)
    assert (twelve.num_coded, twelve.f1) == (4, 1.0)
    assert twenty_five.f1 == pytest.approx(2 / 3)
    assert [unit.f1 for unit in found.by_fold["a"]] == [0.5, 1.0, None]
    assert [unit.f1 for unit in found.by_fold["b"]] == [1.0, 0.0, pytest.approx(2 / 3)]
    assert found.fold_mean_of("AU1") == pytest.approx(0.75)
    assert found.fold_mean_of("AU25") == pytest.approx(2 / 3)
    assert found.pooled_f1 == pytest.approx((0.75 + 1 + 2 / 3) / 3)
    assert found.fold_mean_f1 == pytest.approx(((0.5 + 1) / 2 + (1 + 0 + 2 / 3) / 3) / 2)
    rows = found.table().rows
    assert rows[0] == ["AU1", "6", "4", "0.750", "0.750", "0.667"]
    assert rows[-1][0] == "mean"


def test_a_unit_that_nobody_coded_is_skipped() -> None:
    found = score_action_units({"a": FOLD_A}, UNITS)
    assert found.pooled[2].f1 is None
    assert found.fold_mean_of("AU25") is None
    assert found.pooled_f1 == found.fold_mean_f1 == pytest.approx(0.75)


def test_presence_of_intensities() -> None:
    found = presence(np.array([[0.0, 1.9, 2.0, NAN]]), threshold=2)
    np.testing.assert_array_equal(found, [[0, 0, 1, NAN]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((FOLD_A[0][:, :2], FOLD_A[1]), r"expected two arrays \[N, 3\]"),
        ((FOLD_A[0], FOLD_A[1] * 3), "truth must be 0, 1 or NaN"),
        ((FOLD_A[0] * 4, FOLD_A[1]), "not be logits"),
    ],
)
def test_refusals(arrays: tuple[np.ndarray, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_action_units({"a": arrays}, UNITS)
