"""The best epoch by action units, and what happens where there are no classes to choose by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.loop import fit
from mien.train.plan import TrainPlan
from mien.train.validate import PredictedClips, validation_metrics, validation_streams
from mien.train.world import World
from mien_models.contract import OptimPlan

UNITS = ("AU4", "AU12")
GOOD_UPDATES = 20
"""The fifth of six epochs of four steps ends there; the second stage begins after the third."""


@pytest.fixture
def unit_method(tiny_method):
    class UnitMethod(tiny_method):
        """Right about its units after `GOOD_UPDATES`, else wrong."""

        action_units = UNITS

        def predict(self, batch):
            sign = 1.0 if int(self.num_updates) == GOOD_UPDATES else -1.0
            is_present_BTU = batch.action_units_BTU >= self.units_present_from
            logits_BTU = torch.where(is_present_BTU, sign, -sign)
            return replace(super().predict(batch), action_unit_logits_BTU=logits_BTU)

    return UnitMethod(OptimPlan(lr=1e-2))


@pytest.fixture
def coded_clips(memory_clips):
    class CodedClips(memory_clips):
        """With an AU4 in every other clip; ``has_class`` is of validation clips."""

        has_class = True

        def num_clips(self, spec):
            return 18 if spec.labelled is self.has_class else 0

        def scan(self, spec):
            for batch in super().scan(spec):
                missing_B = torch.full_like(batch.label_B, -1)
                yield batch if self.has_class else replace(batch, label_B=missing_B)

        def _batch(self, chosen, spec):
            batch = super()._batch(chosen, replace(spec, action_units=()))
            codes = np.array([[[2.0 * (clip % 2), np.nan]] * 2 for clip in chosen.tolist()])
            return replace(batch, action_units_BTU=torch.from_numpy(codes).float())

    return CodedClips()


def run(method, clips, folder, select):
    told: list[str] = []
    result = fit(
        method,
        clips=clips,
        plan=TrainPlan(workers=0, select=select),
        world=World(),
        store=CheckpointStore(str(folder)),
        tracker=NoTracker(),
        say=told.append,
    )
    return result, told


def test_the_epoch_with_the_best_units_is_shipped(unit_method, coded_clips, tmp_path):
    result, _ = run(unit_method, coded_clips, tmp_path, "val/au_f1")
    assert result.best_epoch == 2
    assert result.metrics["val/au_f1"] == 1.0
    assert "val/uar" in result.metrics
    assert int(unit_method.num_updates) == GOOD_UPDATES


def test_without_classes_and_unasked_the_last_epoch_is_kept_and_that_is_said(
    unit_method, coded_clips, tmp_path
):
    coded_clips.has_class = False
    result, told = run(unit_method, coded_clips, tmp_path, "val/uar")
    assert result.best_epoch is None
    assert int(unit_method.num_updates) == 24
    warnings = [line for line in told if "the last epoch is kept" in line]
    assert len(warnings) == 1
    assert "train.select=val/au_f1" in warnings[0]


def test_streams_without_a_class_hold_only_coded_clips(unit_method, tiny_method):
    labelled, coded = validation_streams(unit_method)
    assert (labelled.labelled, labelled.coded, labelled.split) == (True, False, "val")
    assert (coded.labelled, coded.coded, coded.action_units) == (False, True, UNITS)
    (only,) = validation_streams(tiny_method(OptimPlan(lr=1e-2)))
    assert (only.labelled, only.coded) == (True, False)


def found(units_MU, codes_MU, intensities_MU=None) -> PredictedClips:
    return PredictedClips(
        clip_ids=("a",),
        logits_NK=np.zeros((1, 3), np.float32),
        labels_N=np.array([-1]),
        has_audio_N=np.zeros(1, np.bool_),
        has_face_N=np.ones(1, np.float32),
        units_MU=np.asarray(units_MU, np.float32),
        codes_MU=np.asarray(codes_MU, np.float32),
        intensities_MU=None if intensities_MU is None else np.asarray(intensities_MU, np.float32),
    )


def test_units_by_hand(unit_method):
    """AU4: one hit, one false alarm, one miss: 2 / 4. AU12: coded in one frame, and hit."""
    one = found(
        [[0.9, 0.9], [0.8, 0.1], [0.1, 0.9], [0.2, 0.5]],
        [[3, np.nan], [0, np.nan], [1, np.nan], [0.5, 2]],
    )
    metrics, details = validation_metrics(unit_method, one)
    assert metrics == {"val/au_f1": 0.75}
    assert details == {"val/au_f1/AU4": 0.5, "val/au_f1/AU12": 1.0}
    unit_method.units_present_from = 0.5
    assert validation_metrics(unit_method, one)[1]["val/au_f1/AU4"] == pytest.approx(0.4)
    assert validation_metrics(unit_method, found([[0.1, 0.2]], [[np.nan, np.nan]])) == ({}, {})


def test_intensities_are_a_curve(unit_method):
    """AU4: deviations -1 0 1 read, -2 0 2 coded: 2 * 2 / (1 + 4) = 0.8. AU12 is not coded."""
    units, codes = [[0.9, 0.9]] * 3, np.array([[0, np.nan], [2, np.nan], [4, np.nan]])
    metrics, details = validation_metrics(
        unit_method, found(units, codes, [[1, 0], [2, 5], [3, 1]])
    )
    assert details["val/au_icc"] == pytest.approx(0.8)
    assert set(metrics) == {"val/au_f1"}
    still = found(units, codes * 0 + 2, [[1, 0], [2, 5], [3, 1]])
    occurrences = found(units, codes / 4, [[1, 0], [2, 5], [3, 1]])
    for one in (still, occurrences, found(units, codes)):
        assert "val/au_icc" not in validation_metrics(unit_method, one)[1]
