"""Whether a model's probabilities mean what they say, before and after temperature scaling.

The temperature is fitted on validation people, never on those who are scored (Guo et al. 2017).
Shapes: N clips, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from mien.evaluate.metrics import calibration_error, softmax

TEMPERATURES = (0.05, 20.0)
"""The range that is searched; a model without an error on validation would want 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Errors of the probabilities as they are and divided by the temperature."""

    temperature: float
    num_fitted: int
    """Validation clips that the temperature was fitted on."""
    ece: float
    ece_calibrated: float
    nll: float
    nll_calibrated: float


def negative_log_likelihood(logits_NK: NDArray[Any], true_N: NDArray[Any]) -> float:
    """Mean -log probability of the true class, in nats."""
    probabilities_NK = softmax(logits_NK)
    return float(log_loss(true_N, probabilities_NK, labels=np.arange(probabilities_NK.shape[1])))


def fit_temperature(logits_NK: NDArray[Any], true_N: NDArray[Any]) -> float:
    """The divisor of the logits with the least negative log likelihood, within ``TEMPERATURES``.

    Raises:
        ValueError: no clips.
    """
    if not len(true_N):
        raise ValueError("a temperature can't be fitted on no clips")
    logits_NK = np.asarray(logits_NK, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits_NK / np.exp(log_temperature), true_N)

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def usable_temperatures(calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """The temperature of each input that a model can ship with: those inside the range.

    At its ends the fit has found no best one: with no error on validation it would be 0, which
    makes every answer certain, with answers that say nothing endless.
    """
    low, high = TEMPERATURES
    found = {name: item.temperature for name, item in calibrations.items()}
    return {name: value for name, value in found.items() if 1.1 * low < value < 0.9 * high}


def calibrate(
    logits_NK: NDArray[Any],
    true_N: NDArray[Any],
    *,
    fitted_on_MK: NDArray[Any],
    fitted_true_M: NDArray[Any],
) -> Calibration:
    """Fits the temperature on one set of clips and measures it on another.

    Args:
        logits_NK: of the clips that are scored.
        true_N: their true class indices.
        fitted_on_MK: logits of the validation clips.
        fitted_true_M: their true class indices.

    Raises:
        ValueError: no validation clips.
    """
    temperature = fit_temperature(fitted_on_MK, fitted_true_M)
    cooled_NK = np.asarray(logits_NK, dtype=np.float64) / temperature
    true_N = np.asarray(true_N)
    return Calibration(
        temperature=temperature,
        num_fitted=len(fitted_true_M),
        ece=calibration_error(true_N, softmax(logits_NK)),
        ece_calibrated=calibration_error(true_N, softmax(cooled_NK)),
        nll=negative_log_likelihood(logits_NK, true_N),
        nll_calibrated=negative_log_likelihood(cooled_NK, true_N),
    )
