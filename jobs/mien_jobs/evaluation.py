"""Scores of a trained model: its clips are looked at once, every figure is made from that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure

from mien.cluster.groups import NodeGroup
from mien.evaluate.plots import plot_confusion, plot_recalls
from mien.evaluate.plots_detail import plot_reliability, plot_slices
from mien.evaluate.predictions import Predictions
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.report import Report
from mien.evaluate.scorecard import Scorecard, make_scorecard
from mien.evaluate.scorecard_report import scorecard_report
from mien.evaluate.slices import slice_values
from mien.monitor.sample import Sample, sample_of_predictions
from mien.stream.quarantine import Quarantine
from mien.stream.source import ClipSource
from mien.track.model_card import make_model_card, make_unit_card
from mien.train.plan import TrainPlan
from mien.train.validate import PredictedClips
from mien_jobs.data import RunData
from mien_jobs.model_clips import ModelClips
from mien_jobs.probing import features_of, probe_what_can_be
from mien_jobs.split_predictions import (
    NothingToScoreError,
    SplitPredictions,
    as_predictions,
    has_labelled,
    open_source,
    predict_everything,
    predict_split,
)
from mien_jobs.unit_scores import UnitEvaluation, evaluate_units


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """What is known from the clips that have a class."""

    predictions: Predictions
    validation: Predictions | None
    """What the temperature was fitted on; None without a validation split."""
    scorecard: Scorecard
    """With action units and probes where there are any."""
    monitor_sample: Sample
    """What later predictions are compared with."""

    def figures(self) -> dict[str, Figure]:
        """Pictures by name."""
        card = self.scorecard
        found = {
            "confusion": plot_confusion(card),
            "recall": plot_recalls(card),
            "calibration": plot_reliability(card, self.predictions),
        }
        return found | ({"slices": plot_slices(card)} if card.slices else {})


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found: classes, action units, or both."""

    split: str
    classes: ClassEvaluation | None
    """None where no clip has a class."""
    units: UnitEvaluation | None
    """None where the method tells no units, or no clip is coded for them."""
    probes: ProbeScores | None
    """None where nobody asked."""
    quarantine: Quarantine
    model: ModelClips

    @property
    def scorecard(self) -> Scorecard | None:
        """Of the classes."""
        return None if self.classes is None else self.classes.scorecard

    @property
    def report(self) -> Report:
        """The scores for people."""
        if self.classes is not None:
            return scorecard_report(self.classes.scorecard)
        assert self.units is not None
        asked, units = self.probes or ProbeScores(), self.units
        lead = [f"Mean F1 {units.scores.pooled_f1:.3f}."]
        lead += [] if units.intensities is None else [units.intensities.sentence()]
        return Report(
            title=f"Action units, {self.split} split",
            lead=[*lead, *asked.sentences()],
            tables=[*units.tables(), *asked.tables()],
        )

    @property
    def model_card(self) -> str:
        """What a user of the model should know, as Markdown."""
        info, data, is_own = self.model.info, self.model.data, self.model.is_own
        if self.classes is not None:
            card = self.classes.scorecard
            return make_model_card(info, card, data.manifest, data.split, is_own=is_own)
        assert self.units is not None
        scores = self.units.scores
        return make_unit_card(info, self.report, scores, data.manifest, data.split, is_own=is_own)

    def figures(self) -> dict[str, Figure]:
        """Pictures by name."""
        return {} if self.classes is None else self.classes.figures()

    def to_metrics(self) -> dict[str, float]:
        """Flat names for a tracker."""
        if self.classes is not None:
            return self.classes.scorecard.to_metrics()
        units = {} if self.units is None else self.units.to_metrics(self.split)
        return units | ({} if self.probes is None else self.probes.to_metrics(self.split))


def evaluate_model(
    model: ModelClips,
    plan: TrainPlan,
    *,
    probes: Collection[str] = (),
    present_from: float | None = None,
    slice_by: Sequence[str] | None = None,
    decode_group: NodeGroup | None = None,
) -> Evaluation:
    """Predicts the clips of a split, with and without each modality, and scores them.

    The clips of a test split are scored with a temperature that is fitted on the validation split.

    Args:
        model: with its clips.
        plan: device, precision and decoding tasks. With workers clips are decoded on Ray Data (Ray
            must be running), else in this process.
        probes: of `PROBES`; all clips of the split are then looked at, whether labelled or not.
        present_from: coded intensity from which on an action unit counts as present; None: as in
            the model's training.
        slice_by: manifest columns; None: the usual ones that are there.
        decode_group: nodes that decode, on Ray; None: any that have no group.

    Raises:
        NothingToScoreError: the split has neither a labelled nor a coded clip.
        ValueError: none of them could be decoded; a column that is not there, or that divides
            nothing.
    """
    method, info, data, which = model.method, model.info, model.data, model.which
    # Before anything is decoded: a wrong name should not cost a pass.
    by_column = slice_values(data.manifest, slice_by)
    source = open_source(data, info, plan, use_ray=plan.workers > 0, decode_group=decode_group)
    found = predict_everything(method, info, source, which=which, plan=plan, uncoded=bool(probes))
    threshold = method.units_present_from if present_from is None else present_from
    units = evaluate_units(
        found.as_given, method.action_units, data.manifest, present_from=threshold
    )
    if not found.labelled and units is None:
        wanted = f"label or code of {', '.join(method.action_units)}"
        raise NothingToScoreError(
            f"no clip of the {which} split has a {wanted if method.action_units else 'label'}; "
            "choose another with --split, or another manifest with --data"
        )
    asked = probe_what_can_be(model, features_of(model, found), probes) if probes else None
    classes = None
    if found.labelled:
        validation = _validation(model, source, plan)
        classes = _score_classes(model, found, validation, by_column, units, asked)
    return Evaluation(
        split=which,
        classes=classes,
        units=units,
        probes=asked,
        quarantine=source.quarantine,
        model=model,
    )


def _validation(model: ModelClips, source: ClipSource, plan: TrainPlan) -> Predictions | None:
    """Predictions that a temperature may be fitted on."""
    if model.which != "test" or not has_labelled(model.info, source, "val"):
        return None
    return predict_split(model.method, model.info, model.data, source, which="val", plan=plan)


def _score_classes(
    model: ModelClips,
    found: SplitPredictions,
    validation: Predictions | None,
    slice_by: Mapping[str, Mapping[str, Any]],
    units: UnitEvaluation | None,
    probes: ProbeScores | None,
) -> ClassEvaluation:
    info, data = model.info, model.data
    predictions = as_predictions(found.labelled, model.method, info, data, model.which)
    card = make_scorecard(predictions, slice_by=slice_by, validation=validation)
    card = replace(card, probes=probes)
    if units is not None:
        card = replace(card, action_units=units.scores, intensities=units.intensities)
    return ClassEvaluation(
        predictions=predictions,
        validation=validation,
        scorecard=card,
        monitor_sample=_monitor_sample(found.as_given[0], predictions, data),
    )


def _monitor_sample(found: PredictedClips, predictions: Predictions, data: RunData) -> Sample:
    assert found.features_ND is not None
    assert found.picture_NP is not None
    clips = data.manifest.by_ids(found.clip_ids)
    starts = [start or 0.0 for start in clips.column("start_s")]
    places = zip(clips.column("uri"), starts, strict=True)
    return sample_of_predictions(
        predictions,
        features=dict(zip(found.clip_ids, found.features_ND, strict=True)),
        pictures=dict(zip(found.clip_ids, found.picture_NP, strict=True)),
        places=dict(zip(found.clip_ids, places, strict=True)),
    )
