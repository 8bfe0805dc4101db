"""One picture of a semi-supervised training: thresholds, what they let in, what was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien.evaluate.plot_style import COLOURS, INK, QUIET, grid, ink

_PANELS = (
    ("threshold", "threshold"),
    ("accepted", "accepted pseudo-labels"),
    ("pseudo_share", "share of all pseudo-labels"),
    ("pseudo_accuracy", "accuracy of accepted ones"),
)


def plot_pseudo_labels(epochs: Sequence[Mapping[str, float]], classes: Sequence[str]) -> Figure:
    """A panel each for thresholds, accepted counts, histogram and accuracy, a line for each class.

    Args:
        epochs: of each epoch, ``threshold/CLASS``, ``accepted/CLASS``, ``pseudo_share/CLASS`` and,
            where truth is known, ``pseudo_accuracy/CLASS`` and ``pseudo_accuracy``.
        classes: names, in their order.
    """
    figure = Figure(figsize=(9.6, 6.8), layout="constrained", dpi=110)
    panels = figure.subplots(2, 2, sharex=True).flatten()
    for axes, (name, title) in zip(panels, _PANELS, strict=True):
        ink(axes)
        _panel(axes, epochs, classes, name)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        grid(axes)
        if name in ("threshold", "pseudo_accuracy"):
            axes.set_ylim(0, 1.03)
        else:
            axes.set_ylim(bottom=0)
    for axes in panels[2:]:
        axes.set_xlabel("epoch")
    lines = panels[0].get_lines()
    figure.legend(
        lines, list(classes), loc="outside lower center", ncols=min(8, len(classes)), frameon=False
    )
    figure.suptitle("Pseudo-labels", fontweight="bold", color=INK)
    return figure


def _panel(
    axes: Axes, epochs: Sequence[Mapping[str, float]], classes: Sequence[str], name: str
) -> None:
    numbers = range(1, len(epochs) + 1)
    for index, label in enumerate(classes):
        key = f"{name}/{label}"
        values = [epoch.get(key, float("nan")) for epoch in epochs]
        colour = COLOURS[index % len(COLOURS)]
        style = "-" if index < len(COLOURS) else "--"
        axes.plot(numbers, values, style, color=colour, marker=".", linewidth=1.4)
    if name == "pseudo_accuracy":
        whole = [epoch.get(name, float("nan")) for epoch in epochs]
        axes.plot(numbers, whole, color=QUIET, linewidth=2.4, alpha=0.6)
        if all(value != value for value in whole):
            axes.text(
                0.5, 0.5, "no truth known", transform=axes.transAxes, ha="center", color=QUIET
            )
