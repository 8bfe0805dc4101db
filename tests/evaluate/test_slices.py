"""Slices by manifest columns: planted weaknesses are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError
from mien.evaluate.plots_detail import plot_slices
from mien.evaluate.predictions import Predictions, make_predictions
from mien.evaluate.scorecard import make_scorecard
from mien.evaluate.scorecard_report import scorecard_report
from mien.evaluate.slices import SliceRules, slice_masks, slice_values

LABELS = LabelSet(name="two", classes=("joy", "rage"))
SKINS = ("#f0d5c0", "#6a4638")


def manifest(**changes: Any) -> Manifest:
    """Forty clips of eight people; even people are fair, odd ones dark."""
    rows = [
        {
            "clip_id": f"c{i:02}",
            "uri": f"{i}.mp4",
            "subject_id": f"p{i // 5}",
            "num_frames": 25 + i,
            "fps": 25.0,
            "skin": SKINS[i // 5 % 2],
            "remark": f"text {i}",
            "source": "film",
            **{name: values[i] for name, values in changes.items()},
        }
        for i in range(40)
    ]
    return Manifest.from_rows(rows)


def predictions(wrong: set[int], **changes: Any) -> Predictions:
    true = np.arange(40) % 2
    predicted = [1 - t if i in wrong else t for i, t in enumerate(true)]
    return make_predictions(
        clip_ids=[f"c{i:02}" for i in range(40)],
        logits_NK=3.0 * np.eye(2)[predicted],
        label_set=LABELS,
        true_N=true,
        subject_ids=[f"p{i // 5}" for i in range(40)],
        **changes,
    )


def test_a_planted_weakness_is_the_worst_slice() -> None:
    dark = {i for i in range(40) if i // 5 % 2}
    card = make_scorecard(predictions(set(list(dark)[:15])), slice_by=slice_values(manifest()))
    assert card.worst_slice is not None
    assert card.worst_slice.column == "skin"
    assert float(card.worst_slice.value) == pytest.approx(32.6, abs=1)  # CIE L* of #6a4638
    assert card.worst_slice.war == pytest.approx(0.25)
    assert (card.worst_slice.num_clips, card.worst_slice.num_people) == (20, 4)
    interval = card.worst_slice.war_interval
    assert interval is not None
    assert interval.low <= 0.25 <= interval.high
    assert "Worst slice: skin = " in scorecard_report(card).to_markdown()
    assert card.to_metrics()["test/worst_slice_war"] == pytest.approx(0.25)
    assert len(plot_slices(card).axes[0].get_yticks()) == len(card.slices)


def test_usual_columns_that_divide_the_clips() -> None:
    found = slice_values(manifest())
    assert set(found) == {"skin", "duration_s"}  # one source only, remarks are not usual
    assert found["duration_s"]["c05"] == pytest.approx(30 / 25)
    masks = slice_masks(list(found["duration_s"].values()))
    assert [int(mask.sum()) for mask in masks.values()] == [13, 13, 14]


def test_what_predictions_measured_needs_no_column() -> None:
    sound = np.arange(40) % 4 > 0
    card = make_scorecard(predictions(set(), has_audio_N=sound))
    assert {(s.column, s.value, s.num_clips) for s in card.slices} == {
        ("has_audio", "yes", 30),
        ("has_audio", "no", 10),
    }
    assert make_scorecard(predictions(set(), has_audio_N=[True] * 40)).slices == ()


def test_few_people_are_not_named() -> None:
    only = {f"c{i:02}": "rare" if i < 10 else "common" for i in range(40)}  # two people
    found = make_scorecard(predictions(set(range(10))), slice_by={"kind": only})
    assert {s.value: s.is_large for s in found.slices} == {"rare": False, "common": True}
    assert found.worst_slices == {}  # there is nothing to be worse than
    rules = SliceRules(min_clips=10, min_people=2)
    eager = make_scorecard(predictions(set(range(10))), slice_by={"kind": only}, rules=rules)
    assert eager.worst_slices["kind"].value == "rare"


def test_columns_that_make_no_slices() -> None:
    with pytest.raises(ManifestError, match=r"no column 'skim'\. Did you mean 'skin'"):
        slice_values(manifest(), ["skim"])
    with pytest.raises(ValueError, match="40 different texts; slices need at most 20"):
        slice_values(manifest(), ["remark"])
    with pytest.raises(ValueError, match="is 'film' for all clips"):
        slice_values(manifest(), ["source"])


def test_missing_values_are_a_slice() -> None:
    masks = slice_masks([None, True, False, True])
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "no": [False, False, True, False],
        "yes": [False, True, False, True],
        "unknown": [True, False, False, False],
    }
