"""Probes and action units as part of a scorecard."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.action_units import score_action_units
from mien.evaluate.bootstrap import Interval
from mien.evaluate.predictions import make_predictions
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.probes import Accuracy, IdentityProbe, RegressionProbe
from mien.evaluate.scorecard import Scorecard, make_scorecard
from mien.evaluate.scorecard_report import scorecard_report
from mien_jobs.recipe import TrackPlan

SPAN = Interval(low=0.2, high=0.4, level=0.95, num_groups=10)
PROBES = ProbeScores(
    identity=IdentityProbe(
        linear=Accuracy(value=0.3, interval=SPAN),
        nearest=Accuracy(value=0.25, interval=SPAN),
        chance=0.1,
        num_people=10,
        num_clips=40,
        left_out=2,
    ),
    pose=tuple(
        RegressionProbe(
            name=name, r2=r2, interval=SPAN, mean_error=4.0, num_people=10, num_clips=40
        )
        for name, r2 in (("yaw_deg", 0.6), ("pitch_deg", 0.1))
    ),
)


@pytest.fixture
def card() -> Scorecard:
    return make_scorecard(
        make_predictions(
            clip_ids=[f"c{n}" for n in range(8)],
            logits_NK=np.eye(2)[[0, 1] * 4],
            label_set=LabelSet(name="two", classes=("joy", "grief")),
            true_N=np.array([0, 1] * 4),
            modality="video",
            split="test",
            subject_ids=[f"p{n // 2}" for n in range(8)],
            has_audio_N=np.zeros(8, np.bool_),
            face_share_N=np.ones(8, np.float32),
            weights_sha256="w",
        )
    )


def test_nobody_asked(card: Scorecard) -> None:
    assert card.to_json()["probes"] is None
    assert not [name for name in card.to_metrics() if "identity" in name or "au_f1" in name]
    assert "robe" not in scorecard_report(card).to_markdown()


def test_a_scorecard_holds_the_numbers(card: Scorecard) -> None:
    truth = np.array([[1.0], [1.0], [0.0], [np.nan]])
    units = score_action_units({"all": (np.array([[0.9], [0.1], [0.2], [0.9]]), truth)}, ["AU12"])
    full = replace(card, probes=PROBES, action_units=units)
    metrics = full.to_metrics()
    assert metrics["test/au_f1"] == pytest.approx(2 / 3)
    assert metrics["test/identity_accuracy"] == 0.3
    assert metrics["test/identity_chance"] == 0.1
    assert metrics["test/pose_r2/pitch_deg"] == 0.1
    data = json.loads(json.dumps(full.to_json(), default=str))
    assert data["probes"]["identity"]["linear"]["value"] == 0.3
    assert data["action_units"]["pooled_f1"] == pytest.approx(2 / 3)
    text = scorecard_report(full).to_markdown()
    assert "names 30.0% of 40 clips of 10 people rightly (a guess: 10.0%)" in text
    assert "reads yaw_deg best: R2 0.600" in text
    assert "Action units: mean F1 0.667." in text
    assert [table.title for table in scorecard_report(full).tables][-3:] == [
        "Action units",
        "Identity",
        "Pose",
    ]


def test_scores_of_the_same_clips_stand_beside() -> None:
    identity, pose = PROBES.tables([["AU F1 of the same clips", "0.412"]])
    assert identity.rows[-1] == pose.rows[-1] == ["AU F1 of the same clips", "0.412"]
    assert ProbeScores().tables() == []


def test_a_training_probes_only_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"track\.probes: expected identity or pose, got age"):
        TrackPlan(probes=("age",))
