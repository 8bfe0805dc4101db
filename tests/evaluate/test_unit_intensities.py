"""Scores of intensities against published and hand-computed numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import pearsonr

from mien.evaluate.unit_intensities import Agreement, are_intensities, score_intensities

NAN = np.nan
# Shrout and Fleiss (1979), Table 2: six targets, four judges.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=np.float64,
)


def icc_by_anova(ratings_NK: NDArray[np.float64]) -> float:
    """(BMS - EMS) / (BMS + (k - 1) EMS), from the sums of squares of the two-way table."""
    num_targets, num_judges = ratings_NK.shape
    off_NK = ratings_NK - ratings_NK.mean()
    between = num_judges * np.square(off_NK.mean(axis=1)).sum()
    judges = num_targets * np.square(off_NK.mean(axis=0)).sum()
    residual = np.square(off_NK).sum() - between - judges
    bms = between / (num_targets - 1)
    ems = residual / ((num_targets - 1) * (num_judges - 1))
    return float((bms - ems) / (bms + (num_judges - 1) * ems))


def agreement(read_N: Sequence[float], coded_N: Sequence[float]) -> Agreement:
    (unit,) = score_intensities(np.c_[read_N], np.c_[coded_N], ["AU12"]).units
    return unit.agreement


def test_two_judges_of_shrout_and_fleiss() -> None:
    assert icc_by_anova(JUDGES) == pytest.approx(0.71, abs=0.005)  # their Table 4
    first_N, second_N = JUDGES[:, 0], JUDGES[:, 1]
    # By hand, judges 1 and 2: the targets' sums 11 7 12 8 15 8 give 5 BMS = 667/2 - 61**2/12, their
    # differences 7 5 4 6 5 4 give 5 EMS = 167/2 - 31**2/12.
    found = agreement(first_N, second_N)
    assert found.icc == pytest.approx((281 - 41) / (281 + 41))
    assert found.icc == pytest.approx(icc_by_anova(JUDGES[:, :2]))
    assert found.pearson_r == pytest.approx(pearsonr(first_N, second_N).statistic)
    assert found.mse == pytest.approx((49 + 25 + 16 + 36 + 25 + 16) / 6)
    assert found.mae == pytest.approx((7 + 5 + 4 + 6 + 5 + 4) / 6)


steps = st.integers(0, 40).map(lambda eighths: eighths / 8)
pairs = st.lists(st.tuples(steps, steps), min_size=2, max_size=30)


@given(pairs, st.integers(-16, 16).map(lambda eighths: eighths / 8))
def test_icc_is_of_consistency(rated: list[tuple[float, float]], shift: float) -> None:
    read_N, coded_N = np.array(rated).T
    found = agreement(read_N, coded_N)
    moved, turned = agreement(read_N + shift, coded_N), agreement(coded_N, read_N)
    if len(set(coded_N)) == 1:
        assert found.icc is moved.icc is found.pearson_r is None
        return
    if len(set(read_N)) == 1:
        assert (found.icc, moved.icc, found.pearson_r) == (0, 0, None)
        return
    assert found.icc == pytest.approx(icc_by_anova(np.array(rated)), abs=1e-9)
    assert moved.icc == pytest.approx(found.icc, abs=1e-9)
    assert turned.icc == pytest.approx(found.icc, abs=1e-9)
    assert found.pearson_r is not None
    assert abs(found.icc) <= abs(found.pearson_r) + 1e-9 <= 1 + 2e-9
    same = agreement(read_N, read_N)
    assert (same.icc, same.mse, same.mae) == (pytest.approx(1), 0, 0)


def test_a_missing_code_is_left_out_of_its_unit_alone() -> None:
    read = np.array([[1.0, 0.0], [2.0, 4.0], [5.0, 2.0], [0.0, 1.0]])
    coded = np.array([[0.0, 1.0], [NAN, 3.0], [4.0, NAN], [1.0, 0.0]])
    found = score_intensities(read, coded, ["AU6", "AU12"])
    smile, lips = found.units
    assert (smile.num_coded, lips.num_coded) == (3, 3)
    assert smile.agreement == agreement([1, 5, 0], [0, 4, 1])
    assert lips.agreement == agreement([0, 4, 1], [1, 3, 0])
    assert (smile.agreement.mae, lips.agreement.mae) == (1, 1)


def test_codes_that_do_not_vary_have_no_icc_and_are_not_in_the_mean() -> None:
    # 0.1 three times: in floating point its variance is not 0.
    read = np.array([[0.1, 1.0, 1.0, 3.0], [0.1, 2.0, 2.0, 3.0], [0.1, 4.0, 4.5, 3.0]])
    coded = np.array([[0.0, 1.0, 2.0, NAN], [1.0, 1.0, 2.5, NAN], [2.0, 1.0, 5.0, NAN]])
    found = score_intensities(read, coded, ["AU1", "AU2", "AU4", "AU9"])
    steady, uncoded_change, good, uncoded = (unit.agreement for unit in found.units)
    # Exactly: a unit that is always read alike agrees with nothing.
    assert (steady.icc, steady.pearson_r) == (0, None)
    assert steady.mae == pytest.approx((0.1 + 0.9 + 1.9) / 3)
    assert (uncoded_change.icc, uncoded_change.pearson_r) == (None, None)
    assert uncoded == Agreement(icc=None, pearson_r=None, mse=None, mae=None)
    assert good.icc is not None
    assert found.mean.icc == pytest.approx(good.icc / 2)
    assert found.mean.pearson_r == good.pearson_r
    assert found.mean.mae == pytest.approx((2.9 / 3 + 4 / 3 + 2 / 3) / 3)
    metrics = found.to_metrics("test")
    assert metrics["test/au_icc/AU4"] == good.icc
    assert set(metrics) == {
        "test/au_icc",
        "test/au_icc/AU1",
        "test/au_icc/AU4",
        "test/au_mae",
        "test/au_mae/AU1",
        "test/au_mae/AU2",
        "test/au_mae/AU4",
    }
    rows = {row[0]: row[1:] for row in found.table().rows}
    assert rows["AU1"][:3] == ["3", "0.000", "-"]
    assert rows["AU9"] == ["0", "-", "-", "-", "-"]
    assert rows["mean"][1] == f"{good.icc / 2:.3f}"


def test_nothing_known_is_no_number() -> None:
    found = score_intensities(np.ones((2, 1)), np.full((2, 1), NAN), ["AU1"])
    assert found.to_metrics("test") == {}
    assert found.sentence() == "Intensities of action units: mean ICC(3,1) -, mean MAE -."


def test_zeros_and_ones_are_no_intensities() -> None:
    assert not are_intensities(np.array([[0.0, 1.0, NAN]]))
    assert are_intensities(np.array([[0.0, 1.5, NAN]]))


@pytest.mark.parametrize(
    ("read", "coded", "message"),
    [
        (np.ones((3, 2)), np.ones((2, 2)), r"expected two arrays \[N, 2\]"),
        (np.ones((3, 1)), np.ones((3, 1)), r"expected two arrays \[N, 2\]"),
        (np.ones(2), np.ones(2), r"expected two arrays \[N, 2\]"),
        (np.array([[1.0, NAN]]), np.ones((1, 2)), "must be finite"),
    ],
)
def test_refusals(read: np.ndarray, coded: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_intensities(read, coded, ["AU1", "AU2"])
