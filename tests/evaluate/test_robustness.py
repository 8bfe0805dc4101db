"""Relative scores by hand, and the picture's order."""

from __future__ import annotations

import pytest

from mien.evaluate.robustness import Robustness

FOUND = Robustness(
    clean=0.8,
    chance=0.25,
    num_clips=40,
    uars={
        **{("blur", s): 0.8 - 0.1 * s for s in range(1, 6)},
        **{("noise", s): 0.8 for s in range(1, 6)},
        ("sound: missing", 5): 0.4,
    },
)


def test_relative_scores() -> None:
    assert FOUND.relative("blur") == pytest.approx(0.5 / 0.8)
    assert FOUND.relative("noise") == pytest.approx(1.0)
    assert FOUND.relative("sound: missing") == pytest.approx(0.5)
    assert FOUND.mean_relative == pytest.approx((0.625 + 1 + 0.5) / 3)
    assert FOUND.to_json()["uars"]["sound: missing"] == {5: 0.4}


def test_report_and_picture_are_worst_first() -> None:
    report = FOUND.report()
    rows = report.tables[0].rows
    assert [row[0] for row in rows] == ["sound: missing", "blur", "noise"]
    assert list(rows[0]) == ["sound: missing", "-", "-", "-", "-", "0.400", "0.50"]
    assert "Worst: sound: missing (50%)" in report.to_markdown()
    labels = [label.get_text() for label in FOUND.figure().axes[0].get_yticklabels()]
    assert labels[0] == "sound: missing  (50%)"
