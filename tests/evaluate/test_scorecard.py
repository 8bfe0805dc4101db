"""The scorecard from planted predictions, with figures worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.predictions import (
    Predictions,
    PredictionsError,
    join_predictions,
    make_predictions,
)
from mien.evaluate.scorecard import make_scorecard
from mien.evaluate.scorecard_report import scorecard_report
from mien.evaluate.slices import SliceRules

LABELS = LabelSet(name="three", classes=("joy", "rage", "awe"))


def planted(modality: str, predicted: list[int], **changes: Any) -> Predictions:
    """Six clips of three people; the sixth has no label and nobody shows awe."""
    settings: dict[str, Any] = {
        "clip_ids": list("abcdef"),
        "logits_NK": 5.0 * np.eye(3)[predicted],
        "label_set": LABELS,
        "true_N": [0, 0, 0, 1, 1, -1],
        "subject_ids": ["x", "x", "y", "y", "z", "z"],
        "modality": modality,
    }
    return make_predictions(**{**settings, **changes})


def both() -> Predictions:
    audio = planted("audio", [0, 1, 1, 1, 2, 0])
    return join_predictions([audio, planted("video+audio", [0, 0, 1, 1, 1, 2])])


def test_figures_by_hand() -> None:
    metrics = make_scorecard(both()).to_metrics()
    assert metrics["test/uar"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["test/video+audio/uar"] == metrics["test/uar"]
    assert metrics["test/war"] == pytest.approx(4 / 5)
    assert metrics["test/audio/uar"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert metrics["test/audio/recall/joy"] == pytest.approx(1 / 3)
    assert metrics["test/num_clips"] == 5
    assert "test/recall/awe" not in metrics
    assert metrics["test/uar_low"] <= metrics["test/uar"] <= metrics["test/uar_high"]
    assert all(np.isfinite(value) for value in metrics.values())


def test_headline_is_the_most_complete_input() -> None:
    assert list(make_scorecard(both()).scores) == ["video+audio", "audio"]


def test_one_or_unknown_people_give_no_interval() -> None:
    nobody = planted("video", [0] * 6, subject_ids=None)
    assert make_scorecard(nobody).intervals == {"video": {}}


def test_slices_and_the_worst() -> None:
    light = {"a": "dark", "b": "dark", "c": "dark", "d": "bright", "e": None}
    ids = [f"{letter}{i}" for i in range(5) for letter in "abcde"]
    predictions = make_predictions(
        clip_ids=ids,
        logits_NK=5.0 * np.eye(3)[[0, 0, 1, 1, 1] * 5],
        label_set=LABELS,
        true_N=[0, 0, 0, 1, 1] * 5,
    )
    age = {name: 20.0 + i for i, name in enumerate(ids)}
    card = make_scorecard(
        predictions,
        slice_by={"light": {name: light[name[0]] for name in ids}, "age": age},
        rules=SliceRules(min_clips=5),
    )
    assert card.worst_slice is not None
    assert card.worst_slice.value == "dark"
    by_name = {(s.column, s.value): (s.num_clips, round(s.war, 3)) for s in card.slices}
    assert by_name["light", "dark"] == (15, 0.667)
    assert by_name["light", "bright"] == (5, 1.0)
    assert by_name["light", "unknown"] == (5, 1.0)
    assert [s.value for s in card.slices if s.column == "age"] == [
        "below 28",
        "28 to 36",
        "from 36",
    ]
    assert [s.num_clips for s in card.slices if s.column == "age"] == [8, 8, 9]
    assert card.worst_slices["light"].value == "dark"


def test_small_slices_are_never_the_worst() -> None:
    card = make_scorecard(
        planted("video", [1, 0, 0, 1, 1, 0]),
        slice_by={"light": dict(zip("abcde", ["dim", *["bright"] * 4], strict=True))},
    )
    assert card.worst_slice is None
    assert card.worst_slices == {}
    assert {s.value: s.war for s in card.slices} == {"bright": 1.0, "dim": 0.0}


def test_markdown_and_json_hold_the_figures() -> None:
    card = make_scorecard(both(), slice_by={"light": dict.fromkeys("abcde", "dim")})
    text = scorecard_report(card).to_markdown()
    row = next(line for line in text.splitlines() if line.startswith("| video+audio"))
    assert row.split("|")[1:4] == [" video+audio ", " 5     ", " 0.833 "]
    assert "1 clips without a label are not scored." in text
    assert "No clip shows awe: not part of the UAR." in text
    assert any("dim" in line and "too few" in line for line in text.splitlines())
    data = json.loads(json.dumps(card.to_json(), allow_nan=False))
    assert data["scores"]["audio"]["confusion"] == [[1, 2, 0], [0, 1, 1], [0, 0, 0]]
    assert data["label_set"]["classes"] == ["joy", "rage", "awe"]
    assert len(card.per_class_rows()) == 6


def test_refusals() -> None:
    with pytest.raises(PredictionsError, match="no labelled clip"):
        make_scorecard(planted("video", [0] * 6, true_N=[-1] * 6))
    mixed = join_predictions([planted("video", [0] * 6), planted("audio", [0] * 6, split="val")])
    with pytest.raises(PredictionsError, match=r"one split, these have \['test', 'val'\]"):
        make_scorecard(mixed)


def test_same_seed_same_card() -> None:
    assert make_scorecard(both(), seed=4) == make_scorecard(both(), seed=4)
