"""The scorecard: every figure that is reported about a model, from its predictions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.clips.labels import LabelSet
from mien.evaluate.action_units import ActionUnitScores
from mien.evaluate.bootstrap import Interval, Score, bootstrap_interval
from mien.evaluate.calibration import Calibration, calibrate, negative_log_likelihood
from mien.evaluate.metrics import ClassificationScores, score_logits
from mien.evaluate.predictions import Predictions, PredictionsError
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.slices import Slice, SliceRules, make_slices
from mien.evaluate.unit_intensities import IntensityScores

HEADLINES: tuple[Score, ...] = ("uar", "war", "macro_f1")
"""Scores that get an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """Scores by modality; the first modality is the headline."""

    split: str
    label_set: LabelSet
    scores: Mapping[str, ClassificationScores]
    """By modality, most complete first."""
    intervals: Mapping[str, Mapping[str, Interval]]
    """95 % bootstrap over people, by modality and score; empty where people are unknown."""
    nll: Mapping[str, float]
    """Negative log likelihood in nats, by modality."""
    calibrations: Mapping[str, Calibration]
    """By modality; empty without validation predictions."""
    slices: tuple[Slice, ...]
    """Of the headline modality."""
    num_people: int | None
    """Of the labelled clips; None where somebody is unknown."""
    num_unlabelled: int
    """Clips that were predicted but have no label; they are in no score."""
    weights_sha256: str
    action_units: ActionUnitScores | None = None
    """Where the model tells units and the clips are coded."""
    intensities: IntensityScores | None = None
    """Of the units, where the model tells them and the clips' codes are intensities."""
    probes: ProbeScores | None = None
    """Where somebody asked for them."""

    @property
    def headline(self) -> ClassificationScores:
        """Scores of the most complete modality."""
        return next(iter(self.scores.values()))

    @property
    def worst_slices(self) -> Mapping[str, Slice]:
        """The slice with the lowest WAR of each column that has two or more large enough ones.

        WAR, because the classes of slices differ, and with them what the UAR is a mean of.
        """
        by_column: dict[str, list[Slice]] = {}
        for item in self.slices:
            if item.is_large:
                by_column.setdefault(item.column, []).append(item)
        return {
            column: min(large, key=lambda item: item.war)
            for column, large in by_column.items()
            if len(large) > 1
        }

    @property
    def worst_slice(self) -> Slice | None:
        """The one with the lowest WAR of all columns."""
        return min(self.worst_slices.values(), key=lambda item: item.war, default=None)

    def to_metrics(self) -> dict[str, float]:
        """Flat names for a tracker: ``test/uar``, ``test/recall/anger``, ``test/video/uar``."""
        metrics: dict[str, float] = {}
        for position, modality in enumerate(self.scores):
            prefixes = [f"{self.split}/{modality}"] + [self.split] * (position == 0)
            for prefix in prefixes:
                metrics |= self._flat(prefix, modality)
        if self.worst_slice is not None:
            metrics[f"{self.split}/worst_slice_war"] = self.worst_slice.war
        if self.action_units is not None:
            metrics |= self.action_units.to_metrics(self.split)
        if self.intensities is not None:
            metrics |= self.intensities.to_metrics(self.split)
        if self.probes is not None:
            metrics |= self.probes.to_metrics(self.split)
        return metrics

    def _flat(self, prefix: str, modality: str) -> dict[str, float]:
        scores, calibration = self.scores[modality], self.calibrations.get(modality)
        flat = {
            f"{prefix}/uar": scores.uar,
            f"{prefix}/war": scores.war,
            f"{prefix}/macro_f1": scores.macro_f1,
            f"{prefix}/num_clips": float(scores.num_clips),
            f"{prefix}/nll": self.nll[modality],
        }
        if scores.ece is not None:
            flat[f"{prefix}/ece"] = scores.ece
        if calibration is not None:
            flat |= {
                f"{prefix}/temperature": calibration.temperature,
                f"{prefix}/ece_calibrated": calibration.ece_calibrated,
                f"{prefix}/nll_calibrated": calibration.nll_calibrated,
            }
        for name, interval in self.intervals.get(modality, {}).items():
            flat |= {f"{prefix}/{name}_low": interval.low, f"{prefix}/{name}_high": interval.high}
        for item in scores.per_class:
            if item.recall is not None:
                flat[f"{prefix}/recall/{item.name}"] = item.recall
        return flat

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        data = dataclasses.asdict(self)
        data["worst_slices"] = {k: dataclasses.asdict(v) for k, v in self.worst_slices.items()}
        if self.action_units is not None:
            data["action_units"]["pooled_f1"] = self.action_units.pooled_f1
        return data

    def per_class_rows(self) -> list[dict[str, Any]]:
        """A row for each modality and class, for a table."""
        return [
            {"modality": modality} | dataclasses.asdict(item)
            for modality, scores in self.scores.items()
            for item in scores.per_class
        ]


def make_scorecard(
    predictions: Predictions,
    *,
    slice_by: Mapping[str, Mapping[str, Any]] | None = None,
    rules: SliceRules | None = None,
    validation: Predictions | None = None,
    seed: int = 0,
) -> Scorecard:
    """Scores the labelled predictions.

    Args:
        predictions: of one split, under one or more modalities.
        slice_by: by manifest column, the value of each clip id (``slices.slice_values``).
        rules: what a slice needs to be named as the worst.
        validation: the same model's predictions of other people, for the temperature.
        seed: of the bootstrap.

    Raises:
        PredictionsError: no labelled clip, several splits or several models; validation clips
            among the scored ones.
    """
    labelled = predictions.labelled()
    if not len(labelled):
        raise PredictionsError("no labelled clip among the predictions; there is nothing to score")
    split, weights = (_only_value(predictions, name) for name in ("split", "weights_sha256"))
    parts = {modality: labelled.of_modality(modality) for modality in labelled.modalities}
    unlabelled = set(predictions.column("clip_id")) - set(labelled.column("clip_id"))
    headline = next(iter(parts.values()))
    people = set(headline.table["subject_id"].to_pylist())
    return Scorecard(
        split=split,
        label_set=predictions.label_set,
        scores={name: _score(part) for name, part in parts.items()},
        intervals={name: _intervals(part, seed) for name, part in parts.items()},
        nll={
            name: negative_log_likelihood(part.column("logits"), part.column("true_index"))
            for name, part in parts.items()
        },
        calibrations=_calibrations(parts, validation),
        slices=make_slices(headline, slice_by or {}, rules or SliceRules()),
        num_people=None if None in people else len(people),
        num_unlabelled=len(unlabelled),
        weights_sha256=weights,
    )


def _score(part: Predictions) -> ClassificationScores:
    classes = part.label_set.classes
    return score_logits(part.column("logits"), part.column("true_index"), classes)


def _only_value(predictions: Predictions, column: str) -> str:
    values = sorted(set(predictions.column(column).tolist()))
    if len(values) > 1:
        raise PredictionsError(f"a scorecard is about one {column}, these have {values}")
    return str(values[0])


def _intervals(part: Predictions, seed: int) -> dict[str, Interval]:
    subjects = part.table["subject_id"].to_pylist()
    if None in subjects or len(set(subjects)) < 2:
        return {}
    return {
        score: bootstrap_interval(
            part.column("true_index"),
            part.column("predicted_index"),
            np.asarray(subjects),
            num_classes=len(part.label_set),
            score=score,
            seed=seed,
        )
        for score in HEADLINES
    }


def _calibrations(
    parts: Mapping[str, Predictions], validation: Predictions | None
) -> dict[str, Calibration]:
    if validation is None:
        return {}
    known = validation.labelled()
    scored = {clip for part in parts.values() for clip in part.column("clip_id").tolist()}
    shared = scored & set(known.column("clip_id").tolist())
    if shared:
        raise PredictionsError(
            f"{len(shared)} clips are both scored and in the validation predictions, the first is "
            f"{min(shared)!r}; a temperature must be fitted on other clips"
        )
    return {
        name: calibrate(
            part.column("logits"),
            part.column("true_index"),
            fitted_on_MK=known.of_modality(name).column("logits"),
            fitted_true_M=known.of_modality(name).column("true_index"),
        )
        for name, part in parts.items()
        if name in known.modalities
    }
