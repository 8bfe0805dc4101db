"""Bootstrap intervals over people: of a score, and of the difference of two models' scores.

Clips of one person are not independent, so people are drawn, with all of their clips; drawing clips
would give intervals that are too narrow. Shapes: N clips, G people, K classes, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Score = Literal["uar", "war", "macro_f1"]
NUM_DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A percentile bootstrap interval of a score."""

    low: float
    high: float
    level: float
    num_groups: int
    """Groups (people) that were drawn from."""

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How much better one model is than another on the same clips."""

    value: float
    """Score of the second minus score of the first."""
    interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    """Clips by person and class: enough for every score of every draw."""

    support_GK: FloatArray
    predicted_GK: FloatArray
    hits_GK: FloatArray


def bootstrap_interval(
    true_N: NDArray[Any],
    predicted_N: NDArray[Any],
    groups_N: NDArray[Any],
    *,
    num_classes: int,
    score: Score = "uar",
    num_draws: int = NUM_DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of one model's score. Classes that no clip of a draw has are skipped in its UAR.

    Args:
        true_N: true class indices.
        predicted_N: predicted class indices.
        groups_N: the person of each clip.
        num_classes: K.
        score: which.
        num_draws: bootstrap repetitions.
        level: coverage of the interval.
        seed: of the draws.

    Raises:
        ValueError: fewer than two groups, or an unknown score.
    """
    group_N = number_groups(groups_N)
    counts = _count(np.asarray(true_N), np.asarray(predicted_N), group_N, num_classes)
    draws_RG = draw_groups(int(group_N.max()) + 1, num_draws, seed)
    return percentiles(_scores(counts, draws_RG, score), level, draws_RG.shape[1])


def paired_difference(
    true_N: NDArray[Any],
    first_N: NDArray[Any],
    second_N: NDArray[Any],
    groups_N: NDArray[Any],
    *,
    num_classes: int,
    score: Score = "uar",
    num_draws: int = NUM_DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Score of the second model minus that of the first, with the same people drawn for both.

    Args:
        true_N: true class indices.
        first_N: classes that the first model predicts.
        second_N: classes that the second one predicts, of the same clips.
        groups_N: the person of each clip.
        num_classes: K.
        score: which.
        num_draws: bootstrap repetitions.
        level: coverage of the interval.
        seed: of the draws.

    Raises:
        ValueError: fewer than two groups, or an unknown score.
    """
    group_N = number_groups(groups_N)
    counts = [
        _count(np.asarray(true_N), np.asarray(predicted_N), group_N, num_classes)
        for predicted_N in (first_N, second_N)
    ]
    num_groups = int(group_N.max()) + 1
    draws_RG = draw_groups(num_groups, num_draws, seed)
    everybody_1G = np.ones((1, num_groups))
    first, second = (_scores(one, everybody_1G, score)[0] for one in counts)
    differences_R = _scores(counts[1], draws_RG, score) - _scores(counts[0], draws_RG, score)
    interval = percentiles(differences_R, level, num_groups)
    return Difference(value=float(second - first), interval=interval)


def mean_interval(
    values_N: NDArray[Any],
    groups_N: NDArray[Any],
    *,
    num_draws: int = NUM_DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of one value a clip, people drawn.

    Raises:
        ValueError: fewer than two groups.
    """
    group_N = number_groups(groups_N)
    num_groups = int(group_N.max()) + 1
    sums_G = np.bincount(group_N, np.asarray(values_N, dtype=np.float64), num_groups)
    sizes_G = np.bincount(group_N, minlength=num_groups)
    draws_RG = draw_groups(num_groups, num_draws, seed)
    return percentiles((draws_RG @ sums_G) / (draws_RG @ sizes_G), level, num_groups)


def number_groups(groups_N: NDArray[Any]) -> NDArray[np.int64]:
    """A number from 0 for each group.

    Raises:
        ValueError: fewer than two groups.
    """
    names, group_N = np.unique(np.asarray(groups_N), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a bootstrap over people needs at least two of them")
    return np.asarray(group_N, dtype=np.int64)


def draw_groups(num_groups: int, num_draws: int, seed: int) -> FloatArray:
    """How often each group is in each draw, [R, G]."""
    even_G = np.full(num_groups, 1 / num_groups)
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_groups, even_G, size=num_draws).astype(np.float64)


def _count(
    true_N: NDArray[Any], predicted_N: NDArray[Any], group_N: NDArray[Any], num_classes: int
) -> _Counts:
    support, predicted, hits = (
        np.zeros((int(group_N.max()) + 1, num_classes), dtype=np.float64) for _ in range(3)
    )
    np.add.at(support, (group_N, true_N), 1)
    np.add.at(predicted, (group_N, predicted_N), 1)
    np.add.at(hits, (group_N, true_N), true_N == predicted_N)
    return _Counts(support_GK=support, predicted_GK=predicted, hits_GK=hits)


def _scores(counts: _Counts, draws_RG: FloatArray, score: Score) -> FloatArray:
    hits_RK, support_RK = draws_RG @ counts.hits_GK, draws_RG @ counts.support_GK
    values_R: FloatArray
    if score == "war":
        values_R = hits_RK.sum(axis=1) / support_RK.sum(axis=1)
    elif score == "uar":
        values_R = _ratio(hits_RK, support_RK).sum(axis=1) / (support_RK > 0).sum(axis=1)
    elif score == "macro_f1":
        both_RK = support_RK + draws_RG @ counts.predicted_GK
        values_R = _ratio(2 * hits_RK, both_RK).mean(axis=1)
    else:
        raise ValueError(f"score is {score!r}; expected 'uar', 'war' or 'macro_f1'")
    return values_R


def _ratio(part_RK: FloatArray, whole_RK: FloatArray) -> FloatArray:
    """Part of the whole; 0 where there is no whole."""
    return np.divide(part_RK, whole_RK, out=np.zeros_like(part_RK), where=whole_RK > 0)


def percentiles(values_R: FloatArray, level: float, num_groups: int) -> Interval:
    """The interval that holds ``level`` of the draws."""
    low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, num_groups=num_groups)
