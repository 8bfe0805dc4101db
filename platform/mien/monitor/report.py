"""A comparison for people: what to look at, with a picture of each part, and for machines."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mien.evaluate.plot_style import COLOURS, grid, head, legend, new_figure
from mien.evaluate.report import Report, Table
from mien.monitor.sample import Floats, Sample, thinned
from mien.monitor.signals import Comparison, Signal, confidence_edges

_MOST_POINTS = 600


def verdict(found: Comparison) -> str:
    """One sentence."""
    if found.loud:
        told = "; ".join(f"{signal.name} ({signal.change})" for signal in found.loud)
        return f"A person should look: {told}."
    silent = [signal.name for signal in found.signals if signal.figure is None]
    return "Quiet: nothing moved further than chance and its threshold." + (
        f" Not measured: {', '.join(silent)}." if silent else ""
    )


def monitor_report(found: Comparison, reference: Sample, new: Sample, *, title: str) -> Report:
    """The comparison as tables."""
    lead = [
        verdict(found),
        f"{_size(new)} against the reference's {_size(reference)}.",
    ]
    figures = Table(
        title="Signals",
        head=["signal", "", "figure", "by chance up to", "threshold", "p", "change"],
        rows=[_row(signal) for signal in found.signals],
        note=f"Look: the figure is above its threshold and above what chance gives. All signals "
        f"together alarm by chance in {found.level:.0%} of comparisons at most. Chance is a "
        "bootstrap over films or people, each sample with its own spread.",
    )
    meaning = Table(
        title="What the figures are",
        head=["signal", "figure", "why this threshold"],
        rows=[[signal.name, signal.what, signal.reason] for signal in found.signals],
    )
    return Report(title=title, lead=lead, tables=[figures, meaning])


def to_json(found: Comparison, reference: Sample, new: Sample) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "look": bool(found.loud),
        "level": found.level,
        "reference": {"rows": len(reference), "units": reference.num_units},
        "new": {"rows": len(new), "units": new.num_units},
        "weights_sha256": new.weights_sha256 or reference.weights_sha256,
        "signals": [
            {**dataclasses.asdict(signal), "look": signal.is_loud} for signal in found.signals
        ],
    }


def figures(reference: Sample, new: Sample) -> dict[str, Figure]:
    """Pictures by name: class mix, confidence, and the features where both have them."""
    known = [sample.rows(sample.has_label_N) for sample in (reference, new)]
    if not all(sample.has_label_N.any() for sample in (reference, new)):
        return {}
    drawn = {"class_mix": _plot_classes(*known), "confidence": _plot_confidence(*known)}
    if reference.features_ND is not None and new.features_ND is not None:
        drawn["features"] = _plot_features(*known)
    return drawn


def _size(sample: Sample) -> str:
    return f"{len(sample)} clips or windows of {sample.num_units} films or people"


def _row(signal: Signal) -> list[str]:
    if signal.figure is None:
        return [signal.name, "not measured", "", "", f"{signal.threshold:.2f}", "", signal.why_not]
    return [
        signal.name,
        "LOOK" if signal.is_loud else "quiet",
        f"{signal.figure:.3f}",
        f"{signal.by_chance:.3f}",
        f"{signal.threshold:.2f}",
        f"{signal.p_value:.4f}",
        signal.change,
    ]


def _plot_classes(reference: Sample, new: Sample) -> Figure:
    names = reference.classes
    figure, axes = new_figure(2.6 + 0.95 * len(names), 3.6)
    for index, (label, sample) in enumerate((("reference", reference), ("new", new))):
        best_N = sample.probabilities_NK.argmax(axis=1)
        shares_K = np.bincount(best_N, minlength=len(names)) / len(best_N)
        places = np.arange(len(names)) + (index - 0.5) * 0.4
        axes.bar(places, shares_K, 0.37, color=COLOURS[index], label=label, zorder=2)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("share of predictions")
    grid(axes)
    legend(axes, 2)
    head(axes, "Class mix", "", pad=26)
    return figure


def _plot_confidence(reference: Sample, new: Sample) -> Figure:
    figure, axes = new_figure(6.4, 3.4)
    edges = np.linspace(0, 1, 21).tolist()
    for index, (label, sample) in enumerate((("reference", reference), ("new", new))):
        values_N = sample.probabilities_NK.max(axis=1)
        weights_N = np.full(len(values_N), 1 / len(values_N))
        axes.hist(
            values_N,
            edges,
            weights=weights_N,
            histtype="step",
            linewidth=2,
            color=COLOURS[index],
            label=label,
        )
    for edge in confidence_edges(reference):
        axes.axvline(edge, ymax=0.04, color="#6b7a83", linewidth=0.8)
    axes.set_xlabel("largest probability (ticks: tenths of the reference)")
    axes.set_ylabel("share of predictions")
    grid(axes)
    legend(axes, 2)
    head(axes, "Confidence", "", pad=26)
    return figure


def _plot_features(reference: Sample, new: Sample) -> Figure:
    """On the two axes along which both together vary most."""
    clouds = [_points(sample) for sample in (reference, new)]
    both = np.concatenate(clouds)
    centre = both.mean(axis=0)
    _, spread, axes_DD = np.linalg.svd(both - centre, full_matrices=False)
    explained = float((spread[:2] ** 2).sum() / max((spread**2).sum(), np.finfo(float).tiny))
    figure, axes = new_figure(5.2, 4.6)
    for index, (label, cloud) in enumerate(zip(("reference", "new"), clouds, strict=True)):
        places = (cloud - centre) @ axes_DD[:2].T
        colour = COLOURS[index]
        axes.scatter(places[:, 0], places[:, 1], 9, colour, alpha=0.5, linewidths=0, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    legend(axes, 2)
    head(axes, "Features", f"two axes, {explained:.0%} of the variance", pad=26)
    return figure


def _points(sample: Sample) -> Floats:
    chosen = thinned(sample, _MOST_POINTS).features_ND
    assert chosen is not None
    return chosen.astype(np.float64)
