"""The scorecard: every figure that is reported about a model, from its predictions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.clips.labels import LabelSet
from mien.evaluate.markdown import markdown_table
from mien.evaluate.metrics import (
    ClassificationScores,
    Interval,
    bootstrap_interval,
    score_logits,
)
from mien.evaluate.predictions import Predictions, PredictionsError

MIN_SLICE_CLIPS = 5
"""Smaller slices are listed, but not named as the worst."""
_MANY_VALUES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Scores of the clips that share one value of a manifest column."""

    column: str
    value: str
    num_clips: int
    uar: float
    war: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """Scores by modality; the first modality is the headline."""

    split: str
    label_set: LabelSet
    scores: Mapping[str, ClassificationScores]
    """By modality, most complete first."""
    uar_intervals: Mapping[str, Interval]
    """95 % bootstrap over people, by modality; empty where people are unknown."""
    slices: tuple[Slice, ...]
    """Of the headline modality."""
    num_unlabelled: int
    """Clips that were predicted but have no label; they are in no score."""
    weights_sha256: str

    @property
    def headline(self) -> ClassificationScores:
        """Scores of the most complete modality."""
        return next(iter(self.scores.values()))

    @property
    def worst_slices(self) -> Mapping[str, Slice]:
        """The slice with the lowest WAR of each column, among those that are large enough.

        WAR, because the classes of slices differ, and with them what the UAR is a mean of.
        """
        large = [item for item in self.slices if item.num_clips >= MIN_SLICE_CLIPS]
        columns = dict.fromkeys(item.column for item in large)
        return {
            column: min((item for item in large if item.column == column), key=lambda s: s.war)
            for column in columns
        }

    def to_metrics(self) -> dict[str, float]:
        """Flat names for a tracker: ``test/uar``, ``test/recall/anger``, ``test/video/uar``."""
        metrics: dict[str, float] = {}
        for position, (modality, scores) in enumerate(self.scores.items()):
            prefixes = [f"{self.split}/{modality}"] + [self.split] * (position == 0)
            for prefix in prefixes:
                metrics |= _flat(prefix, scores, self.uar_intervals.get(modality))
        return metrics

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        data = dataclasses.asdict(self)
        data["worst_slices"] = {k: dataclasses.asdict(v) for k, v in self.worst_slices.items()}
        return data

    def per_class_rows(self) -> list[dict[str, Any]]:
        """A row for each modality and class, for a table."""
        return [
            {"modality": modality} | dataclasses.asdict(item)
            for modality, scores in self.scores.items()
            for item in scores.per_class
        ]

    def to_markdown(self) -> str:
        """Tables for people: by modality, recall by class, slices."""
        parts = [_modality_table(self), _recall_table(self)]
        if self.slices:
            parts.append(_slice_table(self))
        notes = [f"{self.num_unlabelled} clips without a label are not scored."]
        notes = notes if self.num_unlabelled else []
        if self.headline.absent:
            notes.append(f"No clip shows {', '.join(self.headline.absent)}: not part of the UAR.")
        return "\n\n".join(parts + notes) + "\n"


def make_scorecard(
    predictions: Predictions,
    *,
    slice_by: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> Scorecard:
    """Scores the labelled predictions.

    Args:
        predictions: of one split, under one or more modalities.
        slice_by: by manifest column, the value of each clip id. Numbers with many values are cut
            into thirds.
        seed: of the bootstrap.

    Raises:
        PredictionsError: no labelled clip, several splits or several models.
    """
    labelled = predictions.labelled()
    if not len(labelled):
        raise PredictionsError("no labelled clip among the predictions; there is nothing to score")
    split, weights = (_only_value(predictions, name) for name in ("split", "weights_sha256"))
    parts = {modality: labelled.of_modality(modality) for modality in labelled.modalities}
    intervals = {name: _uar_interval(part, seed) for name, part in parts.items()}
    unlabelled = set(predictions.column("clip_id")) - set(labelled.column("clip_id"))
    return Scorecard(
        split=split,
        label_set=predictions.label_set,
        scores={name: _score(part) for name, part in parts.items()},
        uar_intervals={name: found for name, found in intervals.items() if found is not None},
        slices=_make_slices(next(iter(parts.values())), slice_by or {}),
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


def _uar_interval(part: Predictions, seed: int) -> Interval | None:
    subjects = part.table["subject_id"].to_pylist()
    if None in subjects or len(set(subjects)) < 2:
        return None
    return bootstrap_interval(
        part.column("true_index"),
        part.column("predicted_index"),
        np.asarray(subjects),
        num_classes=len(part.label_set),
        seed=seed,
    )


def _make_slices(part: Predictions, slice_by: Mapping[str, Mapping[str, Any]]) -> tuple[Slice, ...]:
    clip_ids = part.column("clip_id").tolist()
    logits_NK, true_N = part.column("logits"), part.column("true_index")
    found: list[Slice] = []
    for column, by_clip in slice_by.items():
        values = [by_clip.get(clip_id) for clip_id in clip_ids]
        for value, rows in _slice_masks(values).items():
            scores = score_logits(logits_NK[rows], true_N[rows], part.label_set.classes)
            found.append(
                Slice(
                    column=column,
                    value=value,
                    num_clips=scores.num_clips,
                    uar=scores.uar,
                    war=scores.war,
                )
            )
    return tuple(found)


def _slice_masks(values: Sequence[Any]) -> dict[str, NDArray[np.bool_]]:
    """Rows of each value, by name and in order; many different numbers become their thirds."""
    known_N = np.asarray([value is not None for value in values])
    present = [value for value in values if value is not None]
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)
    if not are_numbers or len(set(present)) <= _MANY_VALUES:
        masks = {
            str(value): np.asarray([other == value for other in values])
            for value in sorted(set(present), key=lambda v: v if are_numbers else str(v))
        }
    else:
        low, high = np.quantile(np.asarray(present, dtype=np.float64), [1 / 3, 2 / 3])
        numbers_N = np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
        masks = {
            f"below {low:.3g}": numbers_N < low,
            f"{low:.3g} to {high:.3g}": (numbers_N >= low) & (numbers_N < high),
            f"from {high:.3g}": numbers_N >= high,
        }
    masks["unknown"] = ~known_N
    return {name: mask for name, mask in masks.items() if mask.any()}


def _flat(prefix: str, scores: ClassificationScores, interval: Interval | None) -> dict[str, float]:
    flat = {
        f"{prefix}/uar": scores.uar,
        f"{prefix}/war": scores.war,
        f"{prefix}/macro_f1": scores.macro_f1,
        f"{prefix}/num_clips": float(scores.num_clips),
    }
    if scores.ece is not None:
        flat[f"{prefix}/ece"] = scores.ece
    if interval is not None:
        flat |= {f"{prefix}/uar_low": interval.low, f"{prefix}/uar_high": interval.high}
    for item in scores.per_class:
        if item.recall is not None:
            flat[f"{prefix}/recall/{item.name}"] = item.recall
    return flat


def _modality_table(card: Scorecard) -> str:
    rows = []
    for modality, scores in card.scores.items():
        interval = card.uar_intervals.get(modality)
        span = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-"
        ece = "-" if scores.ece is None else f"{scores.ece:.3f}"
        figures = [f"{value:.3f}" for value in (scores.uar, scores.war, scores.macro_f1)]
        uar, war, f1 = figures
        rows.append([modality, str(scores.num_clips), uar, span, war, f1, ece])
    head = ["input", "clips", "UAR", "95 % interval", "WAR", "macro-F1", "ECE"]
    return markdown_table(head, rows)


def _recall_table(card: Scorecard) -> str:
    rows = []
    for index, name in enumerate(card.label_set.classes):
        recalls = [scores.per_class[index].recall for scores in card.scores.values()]
        shown = ["-" if recall is None else f"{recall:.3f}" for recall in recalls]
        rows.append([name, str(card.headline.per_class[index].support), *shown])
    return markdown_table(["class", "clips", *(f"recall, {name}" for name in card.scores)], rows)


def _slice_table(card: Scorecard) -> str:
    worst = set(card.worst_slices.values())
    rows = []
    for item in card.slices:
        mark = "worst" if item in worst else ""
        figures = [f"{item.uar:.3f}", f"{item.war:.3f}"]
        rows.append([item.column, item.value, str(item.num_clips), *figures, mark])
    return markdown_table(["column", "value", "clips", "UAR", "WAR", ""], rows)
