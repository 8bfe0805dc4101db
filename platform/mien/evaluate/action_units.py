"""Scores of action units, as the AU benchmarks define them.

F1 of the positive class of each unit, at a probability of 0.5 or more; frames where a unit is not
coded are left out of that unit only. Papers average in two ways, which differ: over folds (the F1
of each fold, then the mean) and pooled (all frames of all folds together). Both are given.

Shapes: N frames, U units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from mien.evaluate.report import Table

THRESHOLD = 0.5
"""Never tuned on test frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitScores:
    """One action unit's scores."""

    name: str
    num_coded: int
    """Frames in which it was coded at all."""
    num_positive: int
    f1: float | None
    """None where it is not coded anywhere; 0 where there is neither a positive nor a hit."""
    accuracy: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionUnitScores:
    """Scores of all units under both conventions."""

    pooled: tuple[UnitScores, ...]
    """Over the frames of all folds."""
    by_fold: Mapping[str, tuple[UnitScores, ...]]

    @property
    def pooled_f1(self) -> float:
        """Mean over units of the pooled F1; units without codes are skipped."""
        return _mean([unit.f1 for unit in self.pooled])

    @property
    def fold_mean_f1(self) -> float:
        """Mean over folds of each fold's mean over units; folds without codes are skipped."""
        return _mean([self.fold_f1(name) for name in self.by_fold])

    @property
    def pooled_accuracy(self) -> float:
        """Mean over units of the pooled accuracy."""
        return _mean([unit.accuracy for unit in self.pooled])

    def fold_mean_of(self, name: str) -> float | None:
        """A unit's F1, averaged over the folds that code it; None where none does."""
        found = [unit.f1 for units in self.by_fold.values() for unit in units if unit.name == name]
        return _mean(found) if any(value is not None for value in found) else None

    def fold_f1(self, fold: str) -> float | None:
        """Mean over units of a fold's F1; None where it codes none of them."""
        value = _mean([unit.f1 for unit in self.by_fold[fold]])
        return None if np.isnan(value) else value

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Flat names for a tracker: ``test/au_f1``, ``test/au_f1/AU12``; coded units alone."""
        known = {unit.name: unit.f1 for unit in self.pooled if unit.f1 is not None}
        metrics = {f"{prefix}/au_f1/{name}": f1 for name, f1 in known.items()}
        return metrics | ({f"{prefix}/au_f1": self.pooled_f1} if known else {})

    def table(self) -> Table:
        """A row for each unit and the averages."""
        rows = [
            [
                unit.name,
                str(unit.num_coded),
                str(unit.num_positive),
                _shown(unit.f1),
                _shown(self.fold_mean_of(unit.name)),
                _shown(unit.accuracy),
            ]
            for unit in self.pooled
        ]
        averages = (self.pooled_f1, self.fold_mean_f1, self.pooled_accuracy)
        rows.append(["mean", "", "", *(_shown(value) for value in averages)])
        head = ["unit", "coded frames", "positive", "F1, pooled", "F1, mean of folds", "accuracy"]
        note = f"Positive from a probability of {THRESHOLD}; frames without a code are left out."
        return Table(title="Action units", head=head, rows=rows, note=note)


def score_action_units(
    folds: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], units: Sequence[str]
) -> ActionUnitScores:
    """Scores of predicted probabilities against coded presence.

    Args:
        folds: by fold, probabilities [N, U] and truth [N, U] (1 present, 0 absent, NaN not coded).
        units: names of the U units.

    Raises:
        ValueError: no fold, shapes that differ, truth other than 0, 1 and NaN, probabilities
            outside of [0, 1].
    """
    if not folds:
        raise ValueError("no frames of any fold to score")
    for name, (probabilities_NU, truth_NU) in folds.items():
        _check(name, np.asarray(probabilities_NU), np.asarray(truth_NU), len(units))
    everything = [np.concatenate(parts) for parts in zip(*folds.values(), strict=True)]
    return ActionUnitScores(
        pooled=_score(everything[0], everything[1], units),
        by_fold={name: _score(*arrays, units) for name, arrays in folds.items()},
    )


def presence(intensities_NU: NDArray[Any], *, threshold: float) -> NDArray[np.float64]:
    """Truth of coded intensities: 1 from the threshold on (DISFA: 2), NaN stays NaN."""
    intensities_NU = np.asarray(intensities_NU, dtype=np.float64)
    present_NU = (intensities_NU >= threshold).astype(np.float64)
    return np.where(np.isnan(intensities_NU), np.nan, present_NU)


def _score(
    probabilities_NU: NDArray[Any], truth_NU: NDArray[Any], units: Sequence[str]
) -> tuple[UnitScores, ...]:
    found = []
    for column, name in enumerate(units):
        coded_N = ~np.isnan(truth_NU[:, column])
        truth_N = truth_NU[coded_N, column].astype(np.int64)
        predicted_N = (probabilities_NU[coded_N, column] >= THRESHOLD).astype(np.int64)
        is_coded = bool(coded_N.any())
        f1 = float(f1_score(truth_N, predicted_N, zero_division=0.0)) if is_coded else None
        accuracy = float(accuracy_score(truth_N, predicted_N)) if is_coded else None
        found.append(
            UnitScores(
                name=name,
                num_coded=len(truth_N),
                num_positive=int(truth_N.sum()),
                f1=f1,
                accuracy=accuracy,
            )
        )
    return tuple(found)


def _check(
    fold: str, probabilities_NU: NDArray[Any], truth_NU: NDArray[Any], num_units: int
) -> None:
    if probabilities_NU.shape != truth_NU.shape or truth_NU.shape[1:] != (num_units,):
        raise ValueError(
            f"fold {fold}: expected two arrays [N, {num_units}], got {probabilities_NU.shape} and "
            f"{truth_NU.shape}"
        )
    if not np.isin(truth_NU[~np.isnan(truth_NU)], (0, 1)).all():
        raise ValueError(
            f"fold {fold}: truth must be 0, 1 or NaN (not coded); use presence() on intensities"
        )
    if not ((probabilities_NU >= 0) & (probabilities_NU <= 1)).all():
        raise ValueError(f"fold {fold}: probabilities must lie in [0, 1], not be logits")


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _shown(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"
