"""Pictures hold what they should: checked on the artists and by drawing them for real."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mien.clips.labels import DFEW7
from mien.evaluate.plots import plot_confusion, plot_curves, plot_recalls
from mien.evaluate.predictions import join_predictions, make_predictions
from mien.evaluate.scorecard import Scorecard, make_scorecard


def card(*, without: int | None = None) -> Scorecard:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 200)
    true = np.where(true == without, 0, true) if without is not None else true
    parts = []
    for modality, noise in (("video+audio", 0.6), ("video", 0.9), ("audio", 1.4)):
        logits = np.eye(7)[true] + noise * rng.standard_normal((200, 7))
        ids = [str(i) for i in range(200)]
        parts.append(
            make_predictions(
                clip_ids=ids, logits_NK=logits, label_set=DFEW7, true_N=true, modality=modality
            )
        )
    return make_scorecard(join_predictions(parts))


def pixels(figure: Figure) -> Any:
    picture = io.BytesIO()
    figure.savefig(picture, format="raw")
    return np.frombuffer(picture.getvalue(), dtype=np.uint8)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_confusion_shows_shares_and_counts() -> None:
    found = card()
    scores = found.headline
    figure = plot_confusion(found)
    shown = texts(figure)
    first = scores.confusion[0][0]
    assert str(first) in shown
    assert f"{first / sum(scores.confusion[0]):.0%}" in shown
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == f"happiness ({scores.per_class[0].support})"
    assert pixels(figure).std() > 0


def test_recall_bars_are_the_recalls() -> None:
    found = card()
    heights = [bar.get_height() for bar in plot_recalls(found).axes[0].patches]
    expected = [item.recall for scores in found.scores.values() for item in scores.per_class]
    assert heights == expected


def test_confusion_of_another_input() -> None:
    figure = plot_confusion(card(), "audio")
    assert figure.axes[0].get_title(loc="left") == "test, audio"
    assert f"UAR {card().scores['audio'].uar:.3f}" in figure.axes[0].get_title(loc="right")


def test_a_class_without_clips_is_said() -> None:
    figure = plot_recalls(card(without=5))
    assert texts(figure).count("no clips") == 3
    assert pixels(figure).std() > 0
    assert pixels(plot_confusion(card(without=5))).std() > 0


def test_curves_are_grouped() -> None:
    curves = {
        "train/loss": [(i, 2 / (1 + i)) for i in range(100)],
        "train/lr": [(i, 1e-4) for i in range(100)],
        "val/uar": [(50.0, 0.4), (100.0, 0.6)],
        "val/war": [(50.0, 0.5), (100.0, 0.7)],
        "val/empty": [],
    }
    figure = plot_curves(curves, stage_starts={"autoencoder": 0, "adapt": 40})
    assert [axes.get_ylabel() for axes in figure.axes] == ["train", "train", "val"]
    assert list(figure.axes[2].get_lines()[1].get_ydata()) == [0.5, 0.7]
    assert texts(figure) == [" autoencoder", " adapt"]
    assert pixels(figure).std() > 0


def test_no_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was logged"):
        plot_curves({"train/loss": []})


def test_pyplot_is_never_imported() -> None:
    code = "import sys, mien.evaluate.plots; assert 'matplotlib.pyplot' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
