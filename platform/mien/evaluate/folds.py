"""Scores over the folds of a benchmark, under the two conventions that papers use.

Fold mean: each fold is scored, then averaged (DFEW, MAFW). Pooled: the predictions of all folds are
scored together. They differ, so a table says which one it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mien.evaluate.metrics import ClassificationScores, score_logits
from mien.evaluate.predictions import Predictions, PredictionsError

SCORES = ("uar", "war", "macro_f1")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldScores:
    """Scores of one input condition over all folds."""

    by_fold: Mapping[str, ClassificationScores]
    pooled: ClassificationScores

    def mean(self, score: str) -> float:
        """Mean over folds of ``uar``, ``war`` or ``macro_f1``."""
        return float(np.mean(self._values(score)))

    def deviation(self, score: str) -> float:
        """Sample standard deviation over folds; 0 for one fold."""
        values = self._values(score)
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def _values(self, score: str) -> list[float]:
        return [getattr(scores, score) for scores in self.by_fold.values()]


def score_folds(folds: Mapping[str, Predictions]) -> FoldScores:
    """Scores of the headline modality of each fold's predictions.

    Raises:
        PredictionsError: no fold, other label sets or modalities, or a clip in two folds.
    """
    if not folds:
        raise PredictionsError("no fold to score")
    first = next(iter(folds.values()))
    modality = first.modalities[0]
    parts = {}
    seen: dict[str, str] = {}
    for name, predictions in folds.items():
        if predictions.label_set != first.label_set or predictions.modalities[0] != modality:
            raise PredictionsError(f"fold {name} has another label set or input than the first one")
        parts[name] = predictions.labelled().of_modality(modality)
        for clip in parts[name].column("clip_id").tolist():
            if clip in seen:
                raise PredictionsError(
                    f"clip {clip!r} is tested in fold {seen[clip]} and fold {name}; folds of one "
                    "benchmark test each clip once"
                )
            seen[clip] = name
    classes = first.label_set.classes
    logits_NK = np.concatenate([part.column("logits") for part in parts.values()])
    true_N = np.concatenate([part.column("true_index") for part in parts.values()])
    return FoldScores(
        by_fold={
            name: score_logits(part.column("logits"), part.column("true_index"), classes)
            for name, part in parts.items()
        },
        pooled=score_logits(logits_NK, true_N, classes),
    )
