"""Pictures of a scorecard and of a training, as matplotlib figures without global state.

Every function returns a :class:`matplotlib.figure.Figure` that is drawn by the Agg canvas when it
is saved; pyplot and its list of open figures are never touched, so this works in any process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mien.evaluate.plot_style import COLOURS, INK, QUIET, grid, head, ink, legend, new_figure
from mien.evaluate.scorecard import Scorecard

_SAME_SCALE = 20.0
"""Curves whose largest values differ by more than this factor don't share a panel."""


def plot_confusion(card: Scorecard, modality: str | None = None) -> Figure:
    """Shares of each true class by predicted class, with counts; recall is on the diagonal.

    Args:
        card: the scores.
        modality: whose; None: the most complete one.
    """
    modality = modality or next(iter(card.scores))
    scores = card.scores[modality]
    names = [item.name for item in scores.per_class]
    counts_KK = np.asarray(scores.confusion)
    totals_K1 = counts_KK.sum(axis=1, keepdims=True)
    shares_KK = np.divide(counts_KK, totals_K1, out=np.zeros(counts_KK.shape), where=totals_K1 > 0)
    side = 2.6 + 0.62 * len(names)
    figure, axes = new_figure(side, side * 0.92)
    axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1.15)
    for row in range(len(names)):
        axes.add_patch(
            Rectangle((row - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=0.8)
        )
        for column in range(len(names)):
            _write_cell(axes, row, column, shares_KK[row, column], counts_KK[row, column])
    support = [f"{item.name} ({item.support})" for item in scores.per_class]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), support)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (clips)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figures = f"UAR {scores.uar:.3f}   WAR {scores.war:.3f}   n = {scores.num_clips}"
    head(axes, f"{card.split}, {modality}", figures)
    return figure


def plot_recalls(card: Scorecard) -> Figure:
    """Recall of each class, a bar for each modality; a line marks chance."""
    classes = card.label_set.classes
    figure, axes = new_figure(2.6 + 0.95 * len(classes), 4.2)
    width = 0.8 / len(card.scores)
    for index, (modality, scores) in enumerate(card.scores.items()):
        places = np.arange(len(classes)) + (index - (len(card.scores) - 1) / 2) * width
        recalls = [item.recall for item in scores.per_class]
        heights = [0.0 if recall is None else recall for recall in recalls]
        colour = COLOURS[index % len(COLOURS)]
        label = f"{modality}  (UAR {scores.uar:.2f})"
        axes.bar(places, heights, width * 0.92, color=colour, label=label, zorder=2)
        for place, recall in zip(places, recalls, strict=True):
            if recall is None:
                axes.text(place, 0.02, "no clips", rotation=90, ha="center", color=QUIET, size=8)
            elif recall == 0:
                axes.text(place, 0.01, "0", ha="center", color=colour, size=8)
    chance = 1 / len(classes)
    axes.axhline(chance, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.text(
        1.01, chance, "chance", transform=axes.get_yaxis_transform(), color=QUIET, va="center"
    )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_ylim(0, 1)
    axes.set_ylabel("recall")
    grid(axes)
    legend(axes, len(card.scores))
    head(axes, f"Recall by class, {card.split} split", "", pad=30)
    return figure


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str = "Training",
    x_label: str = "step",
    stage_starts: Mapping[str, float] | None = None,
) -> Figure:
    """Curves over steps, a panel for each metric group (``train/loss``: group ``train``) and scale.

    Args:
        curves: points (step, value) by metric name.
        title: of the whole picture.
        x_label: what steps are.
        stage_starts: step at which each stage began, drawn as a line with its name.

    Raises:
        ValueError: no curve has a point.
    """
    drawn = {name: points for name, points in curves.items() if points}
    if not drawn:
        raise ValueError("no curve has a point; nothing was logged yet")
    groups = _panels(drawn)
    figure = Figure(figsize=(8, 1.0 + 2.0 * len(groups)), layout="constrained", dpi=110)
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (group, names) in zip(panels, groups, strict=True):
        for index, name in enumerate(names):
            steps, values = np.asarray(drawn[name], dtype=np.float64).T
            colour, label = COLOURS[index % len(COLOURS)], name.removeprefix(f"{group}/")
            marker = "o" if len(steps) < 40 else None
            axes.plot(steps, values, color=colour, label=label, lw=1.6, marker=marker, ms=3)
        axes.set_ylabel(group, color=INK)
        grid(axes)
        ink(axes)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=4, loc="best")
        _mark_stages(axes, stage_starts or {}, with_names=axes is panels[0])
    panels[-1].set_xlabel(x_label, color=INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def _panels(curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[str, list[str]]]:
    """Names by group; one whose largest value is far from the others' gets a panel of its own."""
    panels: list[tuple[str, list[str]]] = []
    sizes: list[float] = []
    for name, points in curves.items():
        group = name.rpartition("/")[0] or name
        size = max(abs(value) for _, value in points) or 1.0
        for index, (other, names) in enumerate(panels):
            is_near = 1 / _SAME_SCALE <= size / sizes[index] <= _SAME_SCALE
            if other == group and is_near:
                names.append(name)
                break
        else:
            panels.append((group, [name]))
            sizes.append(size)
    return panels


def _mark_stages(axes: Axes, starts: Mapping[str, float], *, with_names: bool) -> None:
    for name, step in starts.items():
        axes.axvline(step, color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
        if with_names:
            place = axes.get_xaxis_transform()
            axes.text(step, 1.02, f" {name}", transform=place, color=QUIET, size=8, va="bottom")


def _write_cell(axes: Axes, row: int, column: int, share: float, count: int) -> None:
    if not count:
        return
    colour = "white" if share > 0.6 else INK
    axes.text(column, row - 0.1, f"{share:.0%}", ha="center", va="center", color=colour, size=9)
    axes.text(column, row + 0.24, str(count), ha="center", va="center", color=colour, size=6.5)
