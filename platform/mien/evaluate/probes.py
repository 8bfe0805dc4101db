"""What a model's features tell that they should not: who it is, and where the head points.

The model is frozen; a small classifier or regression learns from its features. A model of
expressions that keeps faces apart by identity has learnt its training people, so a low identity
accuracy beside a high UAR (or AU F1) is what one wants.

Shapes: N clips, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mien.evaluate.bootstrap import (
    NUM_DRAWS,
    Interval,
    draw_groups,
    mean_interval,
    number_groups,
    percentiles,
)

FOLDS = 3
_RIDGE_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Share of clips whose person was named rightly, with its 95 % interval over people."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityProbe:
    """How well people are told apart by their features, on other clips of the same people."""

    linear: Accuracy
    """Multinomial logistic regression on standardised features."""
    nearest: Accuracy
    """The clip with the nearest direction (cosine)."""
    chance: float
    """Share of the person with the most clips."""
    num_people: int
    num_clips: int
    left_out: int
    """Clips of people with fewer clips than folds, or of nobody known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressionProbe:
    """How well a number (an angle of the head) is read from features of people never seen."""

    name: str
    r2: float
    """1: exactly; 0: no better than the mean."""
    interval: Interval
    mean_error: float
    """Mean absolute error, in the column's unit."""
    num_people: int
    num_clips: int


def identity_probe(
    features_ND: NDArray[Any], people: Sequence[str | None], *, seed: int = 0
) -> IdentityProbe:
    """Learns people from some of their clips and names them in the others, in turn.

    Args:
        features_ND: of each clip.
        people: of each clip, None where unknown.
        seed: of the folds.

    Raises:
        ValueError: fewer than two people with enough clips.
    """
    counts = Counter(people)
    kept = [row for row, who in enumerate(people) if who is not None and counts[who] >= FOLDS]
    people_N = np.asarray([people[row] for row in kept])
    if len(set(people_N.tolist())) < 2:
        raise ValueError(
            f"an identity probe needs two people with at least {FOLDS} clips each; these clips "
            f"have {len(set(people_N.tolist()))}"
        )
    chosen_ND = np.asarray(features_ND, dtype=np.float64)[kept]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    nearest = make_pipeline(Normalizer(), KNeighborsClassifier(1))
    return IdentityProbe(
        linear=_accuracy(linear, chosen_ND, people_N, folds),
        nearest=_accuracy(nearest, chosen_ND, people_N, folds),
        chance=max(Counter(people_N.tolist()).values()) / len(people_N),
        num_people=len(set(people_N.tolist())),
        num_clips=len(people_N),
        left_out=len(people) - len(people_N),
    )


def regression_probe(
    name: str,
    features_ND: NDArray[Any],
    values_N: NDArray[Any],
    people: Sequence[str],
) -> RegressionProbe:
    """Reads a number from the features of people whom the regression has not seen.

    Args:
        name: what the number is.
        features_ND: of each clip.
        values_N: the number of each clip, NaN where unknown.
        people: of each clip.

    Raises:
        ValueError: too few people, or a number that is the same everywhere.
    """
    known_N = ~np.isnan(np.asarray(values_N, dtype=np.float64))
    values = np.asarray(values_N, dtype=np.float64)[known_N]
    people_N = np.asarray(people)[known_N]
    if len(set(people_N.tolist())) < FOLDS or np.ptp(values) == 0:
        raise ValueError(
            f"a probe of {name} needs {FOLDS} people and values that differ; these clips have "
            f"{len(set(people_N.tolist()))} people and {len(set(values.tolist()))} values"
        )
    features = np.asarray(features_ND, dtype=np.float64)[known_N]
    model = make_pipeline(StandardScaler(), RidgeCV(_RIDGE_STRENGTHS))
    folds = GroupKFold(FOLDS)
    read_N = cross_val_predict(model, features, values, cv=folds, groups=people_N)
    interval = _r2_interval(values, read_N, people_N)
    errors = values - read_N
    return RegressionProbe(
        name=name,
        r2=float(1 - (errors**2).sum() / ((values - values.mean()) ** 2).sum()),
        interval=interval,
        mean_error=float(np.abs(errors).mean()),
        num_people=len(set(people_N.tolist())),
        num_clips=len(values),
    )


def _accuracy(
    model: Pipeline, features_ND: NDArray[Any], people_N: NDArray[Any], folds: StratifiedKFold
) -> Accuracy:
    named_N = cross_val_predict(model, features_ND, people_N, cv=folds)
    is_right_N = named_N == people_N
    return Accuracy(value=float(is_right_N.mean()), interval=mean_interval(is_right_N, people_N))


def _r2_interval(
    values_N: NDArray[np.float64], read_N: NDArray[np.float64], people_N: NDArray[Any]
) -> Interval:
    """People are drawn; every draw has its own mean to be better than."""
    group_N = number_groups(people_N)
    num_groups = int(group_N.max()) + 1
    draws_RG = draw_groups(num_groups, NUM_DRAWS, 0)

    def sums(of_N: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(draws_RG @ np.bincount(group_N, of_N, num_groups))

    count_R = sums(np.ones_like(values_N))
    spread_R = sums(values_N**2) - sums(values_N) ** 2 / count_R
    error_R = sums((values_N - read_N) ** 2)
    return percentiles(1 - error_R / np.maximum(spread_R, 1e-12), 0.95, num_groups)
