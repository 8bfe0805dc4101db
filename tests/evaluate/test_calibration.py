"""Temperatures that were planted are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.calibration import (
    TEMPERATURES,
    calibrate,
    fit_temperature,
    negative_log_likelihood,
    usable_temperatures,
)
from mien.evaluate.metrics import softmax
from mien.evaluate.predictions import PredictionsError, make_predictions
from mien.evaluate.scorecard import make_scorecard
from mien.evaluate.scorecard_report import scorecard_report


def planted(num_clips: int, seed: int, *, temperature: float) -> tuple[Any, Any]:
    """Logits whose labels are drawn from their own softmax, then too large by a temperature."""
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(0, 2, (num_clips, 4))
    true_N = np.array([rng.choice(4, p=row) for row in softmax(logits_NK)])
    return logits_NK * temperature, true_N


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    logits_NK, true_N = planted(6000, 0, temperature=temperature)
    assert fit_temperature(logits_NK, true_N) == pytest.approx(temperature, rel=0.06)


def test_other_people_profit() -> None:
    fitted = planted(4000, 1, temperature=3.0)
    scored = planted(4000, 2, temperature=3.0)
    found = calibrate(*scored, fitted_on_MK=fitted[0], fitted_true_M=fitted[1])
    assert found.ece > 0.15
    assert found.ece_calibrated < 0.03
    assert found.nll_calibrated < found.nll
    assert found.num_fitted == 4000


def test_likelihood_by_hand() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    value = negative_log_likelihood(logits, np.array([0, 1]))
    assert value == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)


def test_without_errors_the_search_ends_at_its_bound() -> None:
    found = fit_temperature(np.eye(3) * 2, np.arange(3))
    assert found == pytest.approx(TEMPERATURES[0], abs=0.01)
    with pytest.raises(ValueError, match="no clips"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))


def test_the_scorecard_fits_on_validation_only() -> None:
    labels = LabelSet(name="four", classes=("a", "b", "c", "d"))

    def predictions(prefix: str, seed: int, split: str) -> Any:
        logits_NK, true_N = planted(500, seed, temperature=3.0)
        names = [f"{prefix}{i}" for i in range(500)]
        return make_predictions(
            clip_ids=names, logits_NK=logits_NK, label_set=labels, true_N=true_N, split=split
        )

    test, val = predictions("t", 1, "test"), predictions("v", 2, "val")
    card = make_scorecard(test, validation=val)
    metrics = card.to_metrics()
    assert metrics["test/temperature"] == pytest.approx(3.0, rel=0.15)
    assert metrics["test/ece_calibrated"] < metrics["test/ece"] / 2
    assert "Calibration" in scorecard_report(card).to_markdown()
    assert "test/temperature" not in make_scorecard(test).to_metrics()
    with pytest.raises(PredictionsError, match="must be fitted on other clips"):
        make_scorecard(test, validation=predictions("t", 2, "val"))


def test_temperatures_at_the_ends_of_the_search_are_not_shipped() -> None:
    """A model without an error on validation would become certain of everything."""
    certain = np.eye(2)[[0, 1] * 20] * 2
    unsure = np.tile([0.3, -0.3], (40, 1))
    drawn, labels = planted(200, 5, temperature=2.0)
    found = {}
    for name, logits_NK, true_N in (
        ("certain", certain, np.array([0, 1] * 20)),
        ("unsure", unsure, np.array([0, 1] * 20)),
        ("usual", drawn, labels),
    ):
        found[name] = calibrate(logits_NK, true_N, fitted_on_MK=logits_NK, fitted_true_M=true_N)
    assert list(usable_temperatures(found)) == ["usual"]
