"""Frames, codes and predictions stay together on the way to the scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mien.clips.manifest import Manifest
from mien.evaluate.unit_intensities import score_intensities
from mien.infer.package import PackageInfo
from mien.stream import prepare
from mien.train.plan import TrainPlan
from mien_jobs.data import open_data
from mien_jobs.evaluation import evaluate_model
from mien_jobs.evaluation_results import save_evaluation
from mien_jobs.model_clips import ModelClips
from mien_jobs.recipe import DataPlan
from mien_jobs.split_predictions import NothingToScoreError
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
        size = len(batch)
        codes_BTU = batch.action_units_BTU
        if codes_BTU is None:  # validation clips, of which only classes are wanted
            codes_BTU = torch.zeros(size, 4, len(self.action_units))
        logits_BTU = torch.where(codes_BTU >= 1, 4.0, -4.0)
        logits_BTU[..., 1:2] *= -1
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


class Measuring(Oracle):
    """Tells intensities too: a step too much of the first unit, the second upside down."""

    def predict(self, batch: ClipBatch) -> Prediction:
        codes_BTU = batch.action_units_BTU
        if codes_BTU is None:
            return super().predict(batch)
        read_BTU = codes_BTU + 1
        read_BTU[..., 1] = 5 - codes_BTU[..., 1]
        return replace(super().predict(batch), action_unit_intensity_BTU=read_BTU.nan_to_num())


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
    clips = model(synth_manifest, ("AU12", "AU4", "AU99"))
    found = evaluate_model(clips, PLAN, present_from=1.0).units
    assert found is not None
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
    assert found.intensities is None
    assert "AU12_intensity" not in frames.column_names


def test_the_threshold_is_the_users(synth_manifest: Path) -> None:
    found = [
        evaluate_model(model(synth_manifest, ("AU12", "AU4")), PLAN, present_from=threshold).units
        for threshold in (3.0, 0.5)
    ]
    strict, loose = (one.scores.pooled[0].num_positive for one in found if one is not None)
    assert strict < loose


def said_to_code(clips: ModelClips, codings: Mapping[str, str]) -> ModelClips:
    """The same clips with a column ``au_coding``, by person; null for the others."""
    whole = clips.data.manifest
    said = pa.array([codings.get(who) for who in whole.column("subject_id")], pa.string())
    manifest = Manifest(whole.table.append_column("au_coding", said), base=whole.base)
    return replace(clips, data=replace(clips.data, manifest=manifest))


def test_intensities_are_scored_and_written(synth_manifest: Path, tmp_path: Path) -> None:
    units = ("AU12", "AU4", "AU99")
    clips = model(synth_manifest, units)
    clips = replace(clips, method=Measuring(clips.method.classes, units))
    found = evaluate_model(clips, PLAN)
    assert found.units is not None
    intensities = found.units.intensities
    assert intensities is not None
    smile, frown, nothing = (unit.agreement for unit in intensities.units)
    assert (smile.icc, smile.mae) == (pytest.approx(1), pytest.approx(1))
    assert (frown.icc, frown.pearson_r) == (pytest.approx(-1), pytest.approx(-1))
    assert (nothing.icc, nothing.mae) == (None, None)
    assert found.to_metrics()["test/au_icc"] == pytest.approx(0)
    assert found.to_metrics()["test/au_mae/AU12"] == pytest.approx(1)
    assert "Intensities of action units: mean ICC(3,1)" in found.model_card
    save_evaluation(found, str(tmp_path))
    frames = pq.read_table(tmp_path / "action-units-test.parquet")
    read, coded = (
        np.stack([frames[f"{unit}{suffix}"].to_numpy() for unit in units], axis=1)
        for suffix in ("_intensity", "_coded")
    )
    assert score_intensities(read, coded, units) == intensities
    written = json.loads((tmp_path / "scorecard-test.json").read_text())["intensities"]
    assert written["units"][0]["agreement"]["icc"] == smile.icc
    assert "<td>AU12</td>" in (tmp_path / "scorecard-test.html").read_text()


def test_clips_coded_as_occurrences_have_no_intensities(synth_manifest: Path) -> None:
    clips = model(synth_manifest, ("AU12", "AU4"))
    clips = replace(clips, method=Measuring(clips.method.classes, ("AU12", "AU4")))
    people = clips.data.manifest.by_ids(clips.data.split.test).column("subject_id")
    one, other = sorted(set(people))[:2]
    mixed = evaluate_model(said_to_code(clips, {one: "occurrence", other: "intensity"}), PLAN).units
    assert mixed is not None
    assert mixed.intensities is not None
    of_one = [row["subject_id"] == one for row in mixed.frames.to_pylist()]
    assert mixed.frames["has_intensity_codes"].to_pylist() == [not is_one for is_one in of_one]
    assert mixed.intensities.units[0].num_coded == len(of_one) - sum(of_one)
    assert mixed.scores.pooled[0].num_coded == len(of_one)
    none = evaluate_model(said_to_code(clips, dict.fromkeys(people, "occurrence")), PLAN)
    assert none.units is not None
    assert none.units.intensities is None
    assert not [name for name in none.to_metrics() if "au_icc" in name or "au_mae" in name]
    assert "AU12_intensity" in none.units.frames.column_names


def test_units_that_nobody_coded_are_not_scored(synth_manifest: Path) -> None:
    found = evaluate_model(model(synth_manifest, ("AU98", "AU99")), PLAN)
    assert found.units is None
    assert "test/uar" in found.to_metrics()
    assert not [name for name in found.to_metrics() if "au_f1" in name]


def test_a_clip_is_decoded_once_for_classes_units_and_probes(
    synth_manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the clips have no class: those are looked at as well, for units and probes."""
    clips = model(synth_manifest, ("AU12",))
    table = clips.data.manifest.table
    labels = pa.array(
        [label if row % 2 else None for row, label in enumerate(table["label"].to_pylist())]
    )
    half = Manifest(
        table.set_column(table.column_names.index("label"), "label", labels),
        base=clips.data.manifest.base,
    )
    clips = replace(clips, data=replace(clips.data, manifest=half), which="all")
    decoded: list[str] = []
    real = prepare.decode_clip
    monkeypatch.setattr(
        prepare, "decode_clip", lambda uri, *a, **k: (decoded.append(uri), real(uri, *a, **k))[1]
    )
    found = evaluate_model(clips, PLAN, probes=("identity", "pose"))
    assert sorted(decoded) == sorted(set(decoded))
    assert len(decoded) == len(half)
    assert found.classes is not None
    assert found.units is not None
    assert found.probes is not None
    assert len(found.classes.predictions) == len(half) // 2
    assert len(found.units.frames) == 4 * len(half)
    assert found.probes.identity is not None
    assert found.probes.identity.num_clips == len(half)
    # The oracle's features are the same for all clips.
    assert found.to_metrics()["all/identity_accuracy"] == found.probes.identity.linear.value


def test_what_cannot_be_probed_is_said_and_costs_no_scores(synth_manifest: Path) -> None:
    clips = model(synth_manifest, ("AU12",))
    names = [name for name in clips.data.manifest.table.column_names if not name.endswith("_deg")]
    bare = Manifest(clips.data.manifest.table.select(names), base=clips.data.manifest.base)
    found = evaluate_model(
        replace(clips, data=replace(clips.data, manifest=bare)), PLAN, probes=("pose",)
    )
    assert found.scorecard is not None
    assert any(
        line.startswith("Not probed: pose: the manifest has none of the columns yaw_deg")
        for line in found.report.lead
    )


def test_nothing_to_score(synth_manifest: Path) -> None:
    clips = model(synth_manifest, ("AU98",))
    table = clips.data.manifest.table
    bare = table.set_column(
        table.column_names.index("label"), "label", pa.nulls(len(table), pa.string())
    )
    data = replace(clips.data, manifest=Manifest(bare, base=clips.data.manifest.base))
    with pytest.raises(NothingToScoreError, match="no clip of the test split has a label or code"):
        evaluate_model(replace(clips, data=data), PLAN)
