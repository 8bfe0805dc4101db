"""Scores of a classification, as the expression benchmarks define them.

Definitions (datasets_and_metrics, section 4): WAR is accuracy. UAR is the mean recall over the
classes that occur among the true labels; the others are skipped and listed. Macro-F1 is the mean
over *all* classes of F1 = 2TP / (2TP + FP + FN), which counts 0 where that is 0 / 0.

Shapes: N clips, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """One class's scores."""

    name: str
    support: int
    """Clips whose true class this is."""
    precision: float
    """0 where the class is never predicted."""
    recall: float | None
    """None where no clip has this class."""
    f1: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationScores:
    """Scores of one set of predictions."""

    num_clips: int
    uar: float
    """Unweighted average recall, over the classes that occur."""
    war: float
    """Weighted average recall, that is accuracy."""
    macro_f1: float
    ece: float | None
    """Expected calibration error of the largest probability (15 bins); None without any."""
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """[K, K] clips by true class (row) and predicted class (column)."""
    absent: tuple[str, ...]
    """Classes that no clip has: not part of the UAR."""


def score_classes(
    true_N: IntArray,
    predicted_N: IntArray,
    classes: tuple[str, ...],
    probabilities_NK: FloatArray | None = None,
) -> ClassificationScores:
    """Scores of predicted against true class indices.

    Args:
        true_N: true class indices, in [0, K).
        predicted_N: predicted class indices, in [0, K).
        classes: names of the K classes.
        probabilities_NK: for the calibration error.

    Raises:
        ValueError: no clips, lengths that differ, or indices outside the classes.
    """
    true_N, predicted_N = np.asarray(true_N), np.asarray(predicted_N)
    _check_indices(true_N, predicted_N, len(classes))
    labels = np.arange(len(classes))
    matrix_KK = confusion_matrix(true_N, predicted_N, labels=labels)
    precision_K, recall_K, f1_K, support_K = precision_recall_fscore_support(
        true_N, predicted_N, labels=labels, zero_division=0.0
    )
    occurs_K = support_K > 0
    per_class = tuple(
        ClassScores(
            name=name,
            support=int(support_K[k]),
            precision=float(precision_K[k]),
            recall=float(recall_K[k]) if occurs_K[k] else None,
            f1=float(f1_K[k]),
        )
        for k, name in enumerate(classes)
    )
    ece = None
    if probabilities_NK is not None:
        ece = calibration_error(true_N, np.asarray(probabilities_NK))
    return ClassificationScores(
        num_clips=len(true_N),
        uar=float(recall_K[occurs_K].mean()),
        war=float((true_N == predicted_N).mean()),
        macro_f1=float(f1_K.mean()),
        ece=ece,
        per_class=per_class,
        confusion=tuple(tuple(int(n) for n in row) for row in matrix_KK),
        absent=tuple(name for name, occurs in zip(classes, occurs_K, strict=True) if not occurs),
    )


def score_logits(
    logits_NK: NDArray[Any], true_N: IntArray, classes: tuple[str, ...]
) -> ClassificationScores:
    """Scores of the class with the highest logit (the first one of equals).

    Raises:
        ValueError: logits that are not finite, or of a shape that does not fit.
    """
    logits_NK = np.asarray(logits_NK, dtype=np.float64)
    if logits_NK.ndim != 2 or logits_NK.shape[1] != len(classes):
        raise ValueError(f"expected logits [N, {len(classes)}], got shape {logits_NK.shape}")
    if not np.isfinite(logits_NK).all():
        bad = int((~np.isfinite(logits_NK).all(axis=1)).sum())
        raise ValueError(f"{bad} of {len(logits_NK)} clips have logits that are not finite")
    return score_classes(true_N, logits_NK.argmax(axis=1), classes, softmax(logits_NK))


def softmax(logits_NK: NDArray[Any]) -> FloatArray:
    """Probabilities [N, K] in float64."""
    shifted_NK = np.asarray(logits_NK, dtype=np.float64)
    shifted_NK = np.exp(shifted_NK - shifted_NK.max(axis=1, keepdims=True))
    result: FloatArray = shifted_NK / shifted_NK.sum(axis=1, keepdims=True)
    return result


def calibration_error(
    true_N: IntArray, probabilities_NK: FloatArray, *, num_bins: int = 15
) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of the top class, equal-width bins.

    The mean over clips of |accuracy - confidence| of the bin that the clip falls into.
    """
    confidence_N = probabilities_NK.max(axis=1)
    correct_N = probabilities_NK.argmax(axis=1) == np.asarray(true_N)
    bin_N = np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bin_N, weights=correct_N - confidence_N, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence_N))


def _check_indices(true_N: IntArray, predicted_N: IntArray, num_classes: int) -> None:
    if true_N.shape != predicted_N.shape or true_N.ndim != 1:
        raise ValueError(
            f"expected one true and one predicted class a clip, got shapes {true_N.shape} and "
            f"{predicted_N.shape}"
        )
    if not len(true_N):
        raise ValueError("no clips to score; does the split hold labelled clips?")
    for name, values in (("true", true_N), ("predicted", predicted_N)):
        if values.min() < 0 or values.max() >= num_classes:
            raise ValueError(
                f"{name} class indices must lie in [0, {num_classes}), got {values.min()} to "
                f"{values.max()}; unlabelled clips can't be scored"
            )
