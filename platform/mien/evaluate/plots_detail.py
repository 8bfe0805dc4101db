"""Pictures of a scorecard's slices and of its calibration."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.evaluate.metrics import softmax
from mien.evaluate.plot_style import COLOURS, GRID, INK, QUIET, head, ink
from mien.evaluate.predictions import Predictions
from mien.evaluate.scorecard import Scorecard

_BINS = 10


def plot_slices(card: Scorecard) -> Figure:
    """WAR of each slice with its interval; the worst of each column is marked, small ones pale.

    Raises:
        ValueError: the card has no slices.
    """
    if not card.slices:
        raise ValueError("the scorecard has no slices; give it columns to slice by")
    worst = set(card.worst_slices.values())
    figure = Figure(figsize=(7.6, 1.2 + 0.25 * len(card.slices)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ink(axes)
    for place, item in enumerate(card.slices):
        colour = COLOURS[4] if item in worst else COLOURS[0] if item.is_large else GRID
        if item.war_interval is not None:
            low, high = item.war_interval.low, item.war_interval.high
            axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot([item.war], [place], "o", color=colour, ms=5)
        axes.text(1.02, place, f"n={item.num_clips}", va="center", size=8, color=QUIET)
    axes.axvline(card.headline.war, color=QUIET, lw=1, ls=(0, (4, 3)))
    labels = [f"{item.column}: {item.value}" for item in card.slices]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("WAR, 95 % bootstrap over people (dashed: all clips; red: worst of its column)")
    head(axes, f"Slices, {card.split} split", f"{next(iter(card.scores))}")
    return figure


def plot_reliability(card: Scorecard, predictions: Predictions) -> Figure:
    """Accuracy by confidence of the headline modality, before and after the temperature.

    Args:
        card: the scores, for the temperature.
        predictions: the ones that it was made from.
    """
    modality = next(iter(card.scores))
    part = predictions.labelled().of_modality(modality)
    logits_NK, true_N = part.column("logits"), part.column("true_index")
    calibration = card.calibrations.get(modality)
    figure = Figure(figsize=(5.2, 4.8), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ink(axes)
    axes.plot([0, 1], [0, 1], color=QUIET, lw=1, ls=(0, (4, 3)))
    ece = f"as predicted (ECE {card.scores[modality].ece:.3f})"
    _draw_reliability(axes, softmax(logits_NK), true_N, COLOURS[0], ece)
    if calibration is not None:
        label = f"temperature {calibration.temperature:.2f} (ECE {calibration.ece_calibrated:.3f})"
        cooled_NK = softmax(logits_NK / calibration.temperature)
        _draw_reliability(axes, cooled_NK, true_N, COLOURS[1], label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence (largest probability)")
    axes.set_ylabel("share that is right")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    head(axes, f"Calibration, {card.split} split", f"n = {len(true_N)}")
    return figure


def _draw_reliability(
    axes: Axes,
    probabilities_NK: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    true_N: np.ndarray[tuple[int], np.dtype[np.int64]],
    colour: str,
    label: str,
) -> None:
    """A point for each bin of confidence, as large as the bin is full."""
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == true_N
    bin_N = np.minimum((confidence_N * _BINS).astype(np.int64), _BINS - 1)
    full = np.flatnonzero(np.bincount(bin_N, minlength=_BINS))
    places = [confidence_N[bin_N == b].mean() for b in full]
    shares = [right_N[bin_N == b].mean() for b in full]
    sizes = [12 + 160 * (bin_N == b).mean() for b in full]
    axes.plot(places, shares, color=colour, lw=1.4, label=label)
    axes.scatter(places, shares, s=sizes, color=colour, zorder=3)
