"""Frames, codes and predictions stay together on the way to the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien.infer.package import PackageInfo
from mien.train.plan import TrainPlan
from mien_jobs.data import open_data
from mien_jobs.model_clips import ModelClips
from mien_jobs.recipe import DataPlan
from mien_jobs.unit_scores import evaluate_units
from mien_models.contract import (
    ClipBatch,
    Method,
    Prediction,
    Progress,
    Range,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)

PLAN = TrainPlan(workers=0, device="cpu")


class Oracle(Method):
    """Reads the codes that it is asked for; always wrong about one unit."""

    def __init__(self, classes: tuple[str, ...], units: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.action_units = units

    def stage(self, index: int) -> Stage | None:
        return None

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        raise NotImplementedError

    def predict(self, batch: ClipBatch) -> Prediction:
        assert batch.action_units_BTU is not None
        logits_BTU = torch.where(batch.action_units_BTU >= 1, 4.0, -4.0)
        logits_BTU[..., 1] *= -1
        size = len(batch)
        return Prediction(
            logits_BK=torch.zeros(size, len(self.classes)),
            features_BD=torch.zeros(size, 2),
            action_unit_logits_BTU=logits_BTU,
        )

    def prediction_stream(self) -> StreamSpec:
        return StreamSpec(views=(ViewSpec(num_frames=4),), image_size_px=16, align_faces=False)

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        return {}


def model(synth_manifest: Path, units: tuple[str, ...]) -> ModelClips:
    data = open_data(DataPlan(manifest=str(synth_manifest)))
    method = Oracle(data.label_set.classes, units)
    info = PackageInfo(
        method="oracle",
        config={},
        label_set=data.label_set,
        prediction_stream=method.prediction_stream(),
        stages_begun=0,
    )
    return ModelClips(
        package=synth_manifest.parent,
        info=info,
        method=method,
        data=data,
        is_own=True,
        which="test",
    )


def test_an_oracle_is_right_about_what_it_says(synth_manifest: Path) -> None:
    found = evaluate_units(model(synth_manifest, ("AU12", "AU4", "AU99")), PLAN, present_from=1.0)
    smile, frown, nothing = found.scores.pooled
    assert smile.f1 == 1.0
    assert 0 < smile.num_positive < smile.num_coded
    assert frown.f1 == 0.0
    assert frown.accuracy == 0.0
    assert (nothing.f1, nothing.num_coded) == (None, 0)
    assert found.scores.pooled_f1 == 0.5
    frames = found.frames
    assert len(frames) == 4 * len(set(frames["clip_id"].to_pylist()))
    happy = [row for row in frames.to_pylist() if "happiness" in row["clip_id"]]
    assert max(row["AU12_coded"] for row in happy) > 1
    assert all((row["AU12"] > 0.5) == (row["AU12_coded"] >= 1) for row in happy)
    assert all(row["clip_id"].startswith(row["subject_id"]) for row in happy)
    assert max(row["time_s"] for row in happy) > 0.3


def test_the_threshold_is_the_users(synth_manifest: Path) -> None:
    strict = evaluate_units(model(synth_manifest, ("AU12", "AU4")), PLAN, present_from=3.0)
    loose = evaluate_units(model(synth_manifest, ("AU12", "AU4")), PLAN, present_from=0.5)
    assert strict.scores.pooled[0].num_positive < loose.scores.pooled[0].num_positive


def test_nothing_to_score(synth_manifest: Path) -> None:
    with pytest.raises(ValueError, match="no frame of the test split is coded for AU98, AU99"):
        evaluate_units(model(synth_manifest, ("AU98", "AU99")), PLAN, present_from=1.0)
    silent = model(synth_manifest, ("AU12",))
    silent.method.action_units = ()
    with pytest.raises(ValueError, match="oracle predicts no action units"):
        evaluate_units(replace(silent), PLAN, present_from=1.0)
