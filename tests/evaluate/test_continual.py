"""Scores of learning stage by stage, against matrices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.evaluate.continual import (
    ContinualError,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    intransigence,
    learning_accuracy,
    score_stages,
)
from mien.evaluate.continual_plots import plot_accuracy_matrix, plot_over_stages
from mien_models.contract import StageReport

NAN = float("nan")
# Task 1 first rises, then falls: the best is not the first.
MATRIX = np.array([[0.6, NAN, NAN], [0.8, 0.9, NAN], [0.5, 0.7, 1.0]])


def test_metrics_of_a_matrix_made_by_hand():
    assert average_accuracy(MATRIX) == pytest.approx((0.5 + 0.7 + 1.0) / 3)
    assert backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.6) + (0.7 - 0.9)) / 2)
    assert forgetting(MATRIX) == pytest.approx(((0.8 - 0.5) + (0.9 - 0.7)) / 2)
    assert forgetting(MATRIX) != pytest.approx(-backward_transfer(MATRIX))
    assert learning_accuracy(MATRIX) == pytest.approx((0.6 + 0.9 + 1.0) / 3)
    assert intransigence(MATRIX, [0.7, 0.9, 0.9]) == pytest.approx((0.1 + 0.0 - 0.1) / 3)
    assert average_incremental_accuracy([0.6, 0.85, 0.7]) == pytest.approx(2.15 / 3)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_forgetting_is_never_less_than_what_transfer_lost(size, seed):
    matrix = np.random.default_rng(seed).uniform(size=(size, size))
    matrix[np.triu_indices(size, 1)] = np.nan
    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-12


@pytest.mark.parametrize("metric", [backward_transfer, forgetting])
def test_one_task_can_not_be_forgotten(metric):
    with pytest.raises(ContinualError, match="needs 2 tasks, there are 1"):
        metric(np.array([[1.0]]))


def test_wrong_shapes_are_refused():
    with pytest.raises(ContinualError, match=r"\[T, T\], got shape \(2, 3\)"):
        average_accuracy(np.zeros((2, 3)))
    with pytest.raises(ContinualError, match=r"each of 3 tasks, got \(2,\)"):
        intransigence(MATRIX, [1.0, 1.0])


REPORTS = (
    StageReport(
        stage="basic",
        new_classes=("joy", "fear"),
        confusions={"test": ((8, 2), (4, 6)), "val": ((0, 0), (0, 0))},
    ),
    StageReport(
        stage="learn_awe",
        new_classes=("awe",),
        # Of 10 joys 5 stay, of 10 fears 6, of 5 awes all.
        confusions={
            "test": ((5, 1, 4), (2, 6, 2), (0, 0, 5)),
            "val": ((0, 0, 0), (0, 0, 0), (0, 0, 0)),
        },
    ),
)


def test_reports_become_a_matrix_recalls_and_figures():
    scores = score_stages(REPORTS, "test")
    np.testing.assert_allclose(scores.matrix_TT, [[0.7, NAN], [0.55, 1.0]])
    np.testing.assert_allclose(scores.recall_TS, [[0.8, 0.6, NAN], [0.5, 0.6, 1.0]])
    np.testing.assert_allclose(scores.accuracy_T, [14 / 20, 16 / 25])
    np.testing.assert_allclose(scores.macro_T, [0.7, 2.1 / 3])
    figures = scores.figures()
    assert figures["acc"] == pytest.approx((0.55 + 1.0) / 2)
    assert figures["bwt"] == pytest.approx(-0.15)
    assert figures["recall/first"] == pytest.approx(0.55)
    assert figures["recall/later"] == pytest.approx(1.0)
    assert figures["final_accuracy"] == pytest.approx(0.64)
    assert scores.to_json()["accuracy_matrix"] == [[0.7, None], [0.55, 1.0]]
    assert "learn_awe" in scores.to_markdown()


def test_groups_may_be_given():
    scores = score_stages(REPORTS, "test", {"dark": ("fear",), "unknown": ("anger",)})
    assert scores.groups == {"dark": 0.6}


def test_what_was_not_counted_is_said():
    with pytest.raises(ContinualError, match="'train' was not counted; there are test, val"):
        score_stages(REPORTS, "train")
    with pytest.raises(ContinualError, match="val split has no clip"):
        score_stages(REPORTS, "val")
    with pytest.raises(ContinualError, match="no stage has ended"):
        score_stages([], "test")


def test_pictures_show_every_number_and_curve():
    figure = plot_accuracy_matrix(score_stages(REPORTS, "test"))
    assert {text.get_text() for text in figure.axes[0].texts} == {"0.70", "0.55", "1.00"}
    curves = {"ours": [[0.5, 0.4], [0.7, 0.6]], "joint": [[0.8, 0.8]]}
    axes = plot_over_stages(curves, title="Accuracy", y_label="accuracy").axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["ours"] == pytest.approx([0.6, 0.5])
    assert set(lines) == {"ours", "joint"}
