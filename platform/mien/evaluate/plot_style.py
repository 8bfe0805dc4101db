"""The look of Mien's pictures: colours, axes, heads; without pyplot or other global state."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, QUIET, GRID = "#1c2b33", "#6b7a83", "#dfe5e8"
COLOURS = ("#1f6f8b", "#e08e45", "#7a5ea8", "#4c9f70", "#c8553d", "#8a8d91")
"""Told apart by people who don't see red and green; one a modality or curve, in order."""


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ink(axes)
    return figure, axes


def ink(axes: Axes) -> None:
    """Quiet frame and ticks."""
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)


def grid(axes: Axes) -> None:
    """Horizontal lines behind the data."""
    axes.grid(axis="y", color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)


def head(axes: Axes, title: str, figures: str, pad: float = 8) -> None:
    """A title to the left, figures to the right."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=pad)
    if figures:
        axes.set_title(figures, loc="right", fontsize=9, color=QUIET, pad=pad)


def legend(axes: Axes, columns: int) -> None:
    """One line of names above the axes."""
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.3,
        handlelength=1.2,
    )
