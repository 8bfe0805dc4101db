"""Pictures of a training that learnt classes stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mien.evaluate.continual import ContinualScores
from mien.evaluate.plot_style import COLOURS, INK, QUIET, grid, head, legend, new_figure


def plot_accuracy_matrix(scores: ContinualScores) -> Figure:
    """Accuracy on each task (column) after each stage (row)."""
    size = len(scores.stages)
    figure, axes = new_figure(3.4 + 0.55 * size, 2.0 + 0.5 * size)
    axes.imshow(np.nan_to_num(scores.matrix_TT, nan=0.0), cmap="Blues", vmin=0, vmax=1.15)
    for after in range(size):
        for task in range(after + 1):
            value = scores.matrix_TT[after, task]
            if not np.isnan(value):
                colour = "white" if value > 0.6 else INK
                axes.text(
                    task, after, f"{value:.2f}", ha="center", va="center", color=colour, size=8
                )
    axes.set_xticks(range(size), scores.stages, rotation=40, ha="right", rotation_mode="anchor")
    labels = [
        f"{stage} ({accuracy:.2f})"
        for stage, accuracy in zip(scores.stages, scores.accuracy_T, strict=True)
    ]
    axes.set_yticks(range(size), labels)
    axes.set_xlabel("accuracy on what this stage taught")
    axes.set_ylabel("after stage (all learnt so far)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    head(axes, f"Stage by stage, {scores.split}", "")
    return figure


def plot_over_stages(
    curves: Mapping[str, Sequence[Sequence[float]]], *, title: str, y_label: str
) -> Figure:
    """Mean over runs after each stage, with the range of the runs as a band.

    Args:
        curves: by name, the values of each run, one a stage.
        title: of the picture.
        y_label: what the values are.
    """
    figure, axes = new_figure(8.4, 4.8)
    for index, (name, runs) in enumerate(curves.items()):
        values_RT = np.asarray(runs, dtype=np.float64)
        stages_T = np.arange(values_RT.shape[1])
        colour = COLOURS[index % len(COLOURS)]
        line = "-" if index < len(COLOURS) else (0, (4, 2))
        mean_T = values_RT.mean(axis=0)
        axes.plot(stages_T, mean_T, color=colour, lw=1.8, marker="o", ms=3, label=name, ls=line)
        if len(values_RT) > 1 and index < 3:
            low_T, high_T = values_RT.min(axis=0), values_RT.max(axis=0)
            axes.fill_between(stages_T, low_T, high_T, color=colour, alpha=0.12, lw=0)
    axes.set_xlabel("later stages done")
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    grid(axes)
    legend(axes, 4)
    head(axes, title, "", pad=16 + 14 * ((len(curves) + 3) // 4))
    axes.title.set_color(QUIET)
    return figure
