"""Scores of action units' intensities, as papers on DISFA and FERA report them.

For each unit, between coded and predicted intensities over the frames that are coded for it, all
frames together: ICC(3,1), Pearson's r, MSE and MAE; then their means over units.

ICC(3,1) is Shrout and Fleiss (1979): two-way mixed, a single rater, consistency,
(BMS - EMS) / (BMS + (k - 1) EMS) with the mean squares between frames (BMS) and of the residual
(EMS). Of k = 2 raters x and y, BMS = var(x + y) / 2 and EMS = var(x - y) / 2, so that it is
2 cov(x, y) / (var(x) + var(y)).

Shapes: N frames, U units. Intensities are in FACS steps, 0 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.evaluate.report import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well predicted intensities agree with coded ones."""

    icc: float | None
    """ICC(3,1). None where the codes do not vary; 0 where only the predictions don't."""
    pearson_r: float | None
    """None where the codes or the predictions do not vary."""
    mse: float | None
    """In squared FACS steps. None, as `mae`, where nothing is coded."""
    mae: float | None
    """In FACS steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitIntensities:
    """One action unit's scores."""

    name: str
    num_coded: int
    """Frames in which its intensity was coded."""
    agreement: Agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityScores:
    """Scores of all units over all frames together."""

    units: tuple[UnitIntensities, ...]
    mean: Agreement
    """Over units; each figure over those that have it."""

    def sentence(self) -> str:
        """The headline in words."""
        icc, mae = _shown(self.mean.icc), _shown(self.mean.mae)
        return f"Intensities of action units: mean ICC(3,1) {icc}, mean MAE {mae}."

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Flat names for a tracker: ``test/au_icc``, ``test/au_icc/AU12``, and ``au_mae``."""
        found = {"": self.mean} | {f"/{unit.name}": unit.agreement for unit in self.units}
        metrics = {f"{prefix}/au_icc{name}": one.icc for name, one in found.items()}
        metrics |= {f"{prefix}/au_mae{name}": one.mae for name, one in found.items()}
        return {name: value for name, value in metrics.items() if value is not None}

    def table(self) -> Table:
        """A row for each unit and the means."""
        rows = [[unit.name, str(unit.num_coded), *_cells(unit.agreement)] for unit in self.units]
        rows.append(["mean", "", *_cells(self.mean)])
        return Table(
            title="Intensities of action units",
            head=["unit", "coded frames", "ICC(3,1)", "Pearson's r", "MSE", "MAE"],
            rows=rows,
            note="FACS steps, 0 to 5; frames without a coded intensity are left out. A figure that "
            "is not defined (-: codes that do not vary; r also of such predictions) is not in the "
            "mean.",
        )


def score_intensities(
    read_NU: NDArray[Any], coded_NU: NDArray[Any], units: Sequence[str]
) -> IntensityScores:
    """Scores of predicted against coded intensities.

    Args:
        read_NU: predicted intensities [N, U], FACS steps.
        coded_NU: coded intensities [N, U], FACS steps; NaN where not coded.
        units: names of the U units.

    Raises:
        ValueError: shapes that differ, predictions that are not finite.
    """
    read_NU, coded_NU = (np.asarray(each, dtype=np.float64) for each in (read_NU, coded_NU))
    if read_NU.shape != coded_NU.shape or read_NU.shape[1:] != (len(units),):
        raise ValueError(
            f"expected two arrays [N, {len(units)}] of predicted and coded intensities, got "
            f"{read_NU.shape} and {coded_NU.shape}"
        )
    if not np.isfinite(read_NU).all():
        raise ValueError("predicted intensities must be finite; only codes may be NaN (not coded)")
    found = []
    for column, name in enumerate(units):
        is_coded_N = ~np.isnan(coded_NU[:, column])
        agreement = _agreement(read_NU[is_coded_N, column], coded_NU[is_coded_N, column])
        num_coded = int(is_coded_N.sum())
        found.append(UnitIntensities(name=name, num_coded=num_coded, agreement=agreement))
    return IntensityScores(units=tuple(found), mean=_mean([unit.agreement for unit in found]))


def are_intensities(coded_NU: NDArray[Any]) -> bool:
    """Whether any code is above 1. Zeros and ones alone say that a unit occurs, not how strongly;
    an ICC with those would mean nothing."""
    return bool((coded_NU > 1).any())


def _agreement(read_N: NDArray[np.float64], coded_N: NDArray[np.float64]) -> Agreement:
    if not len(coded_N):
        return Agreement(icc=None, pearson_r=None, mse=None, mae=None)
    icc = pearson_r = None
    # Not by the variance: that of equal numbers is not always 0 in floating point.
    is_steady = np.ptp(read_N) == 0
    if np.ptp(coded_N) > 0:
        (read_variance, covariance), (_, coded_variance) = np.cov(read_N, coded_N)
        icc = 0.0 if is_steady else float(2 * covariance / (read_variance + coded_variance))
        if not is_steady:
            pearson_r = float(covariance / np.sqrt(read_variance * coded_variance))
    error_N = read_N - coded_N
    mse, mae = float(np.square(error_N).mean()), float(np.abs(error_N).mean())
    return Agreement(icc=icc, pearson_r=pearson_r, mse=mse, mae=mae)


def _mean(found: Sequence[Agreement]) -> Agreement:
    def over_units(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Agreement(
        icc=over_units([one.icc for one in found]),
        pearson_r=over_units([one.pearson_r for one in found]),
        mse=over_units([one.mse for one in found]),
        mae=over_units([one.mae for one in found]),
    )


def _cells(one: Agreement) -> list[str]:
    return [_shown(value) for value in (one.icc, one.pearson_r, one.mse, one.mae)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
