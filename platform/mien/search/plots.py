"""Pictures of a search, as matplotlib figures without global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mien.evaluate.plot_style import COLOURS, INK, QUIET, grid, ink, legend, new_figure
from mien.search.plan import Objective
from mien.search.space import Dimension, Space, shown
from mien.search.study import TrialRecord

_COMPLETE, _BEST, _PRUNED = COLOURS[0], COLOURS[4], COLOURS[5]
_MAX_COLUMNS = 4


def plot_history(trials: Sequence[TrialRecord], objective: Objective) -> Figure:
    """Every trial's score in order, those that were stopped early at their last value, and the
    best so far."""
    figure, axes = new_figure(8, 3.4)
    grid(axes)
    done = [trial for trial in trials if trial.scores is not None]
    numbers = [trial.number for trial in done]
    scores = [trial.scores[0] for trial in done if trial.scores is not None]
    best = (np.maximum if objective.goal == "maximize" else np.minimum).accumulate
    stopped = [trial for trial in trials if trial.state == "pruned" and trial.curve]
    axes.scatter(
        [trial.number for trial in stopped],
        [trial.curve[-1] for trial in stopped],
        marker="x",
        color=_PRUNED,
        label="stopped early",
        zorder=2,
    )
    axes.scatter(numbers, scores, color=_COMPLETE, label="complete", zorder=3)
    if scores:
        axes.step(numbers, best(scores), where="post", color=_BEST, label="best so far", zorder=1)
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        place = axes.get_xaxis_transform()
        axes.scatter(failed, [0.02] * len(failed), marker="|", color=INK, transform=place,
                     label="failed", clip_on=False)  # fmt: skip
    axes.set_xlabel("trial")
    axes.set_ylabel(objective.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, columns=4)
    return figure


def plot_importance(importance: Mapping[str, float]) -> Figure:
    """Share of the scores' variance that each setting explains."""
    figure, axes = new_figure(8, 0.9 + 0.34 * len(importance))
    names = list(importance)[::-1]
    shares = [importance[name] for name in names]
    axes.barh(names, shares, color=_COMPLETE, height=0.62)
    for row, share in enumerate(shares):
        axes.text(share + 0.01, row, f"{share:.0%}", va="center", color=INK, size=9)
    axes.set_xlim(0, max([*shares, 0.1]) * 1.15)
    axes.set_xlabel("share of the variance of the scores (fANOVA)")
    return figure


def plot_slices(trials: Sequence[TrialRecord], space: Space, objective: Objective) -> Figure:
    """The score over each setting, one panel each."""
    done = [trial for trial in trials if trial.scores is not None]
    columns = min(_MAX_COLUMNS, len(space.dimensions))
    rows = -(-len(space.dimensions) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.3 * rows + 0.3), layout="constrained", dpi=110)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for index, dimension in enumerate(space.dimensions):
        axes = panels[index]
        ink(axes)
        grid(axes)
        _draw_slice(axes, dimension, [t for t in done if dimension.name in t.values])
        axes.set_title(dimension.name, size=9, color=INK)
        if index % columns == 0:
            axes.set_ylabel(objective.metric)
    for axes in panels[len(space.dimensions) :]:
        axes.set_visible(False)
    return figure


def _draw_slice(axes: Axes, dimension: Dimension, trials: Sequence[TrialRecord]) -> None:
    scores = np.asarray([t.scores[0] for t in trials if t.scores is not None])
    order = np.asarray([t.number for t in trials])
    places = positions(dimension, trials)
    if len(places):
        axes.scatter(places, scores, c=order, cmap="viridis", s=22, edgecolor="white", lw=0.4)
    _set_ticks(axes, dimension)


def positions(dimension: Dimension, trials: Sequence[TrialRecord]) -> list[float]:
    """Where the trials' values lie on a setting's axis; choices are numbered."""
    values = [trial.values[dimension.name] for trial in trials]
    if dimension.kind == "choice":
        # True == 1 for `index`; types tell them apart.
        keys = [(type(choice), choice) for choice in dimension.choices]
        return [float(keys.index((type(value), value))) for value in values]
    return [float(value) for value in values if isinstance(value, int | float)]


def _set_ticks(axes: Axes, dimension: Dimension) -> None:
    if dimension.kind == "log_uniform":
        axes.set_xscale("log")
    if dimension.kind == "choice":
        names = [shown(choice) for choice in dimension.choices]
        is_long = sum(map(len, names)) > 18
        axes.set_xticks(range(len(names)), names, rotation=30 if is_long else 0,
                        ha="right" if is_long else "center", size=8)  # fmt: skip
        axes.set_xlim(-0.5, len(names) - 0.5)


def plot_parallel(
    trials: Sequence[TrialRecord],
    space: Space,
    objectives: Sequence[Objective],
    best: Sequence[int],
) -> Figure:
    """A line for each complete trial through all its settings to its scores; the best are marked.

    A line is dotted where it passes a setting that the trial did not have.
    """
    done = [trial for trial in trials if trial.scores is not None]
    scores = np.asarray([trial.scores for trial in done], dtype=np.float64)
    low, high = scores.min(axis=0), scores.max(axis=0)
    heights = (scores - low) / np.where(high > low, high - low, 1.0)
    names = [*space.names, *(objective.metric for objective in objectives)]
    figure, axes = new_figure(max(7, 1.3 * len(names)), 4.2)
    wish = 1 if objectives[0].goal == "maximize" else -1
    for rank, index in enumerate(np.argsort(wish * scores[:, 0], kind="stable")):
        trial = done[index]
        crossed = [_height(dimension, trial) for dimension in space.dimensions]
        is_best = trial.number in best
        strength = 1.0 if is_best else 0.15 + 0.45 * rank / len(done)
        _draw_line(axes, [*crossed, *heights[index]], is_best=is_best, alpha=strength)
    for place, dimension in enumerate(space.dimensions):
        _mark_axis(axes, place, shown(dimension.ends[0]), shown(dimension.ends[-1]))
    for place, (least, most) in enumerate(zip(low, high, strict=True), len(space.names)):
        _mark_axis(axes, place, f"{least:.3g}", f"{most:.3g}")
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names], size=8.5)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.spines[:].set_visible(False)
    return figure


def _draw_line(axes: Axes, heights: Sequence[float | None], *, is_best: bool, alpha: float) -> None:
    held = [(place, height) for place, height in enumerate(heights) if height is not None]
    for start, end in pairwise(held):
        axes.plot(
            *zip(start, end, strict=True),
            color=_BEST if is_best else _COMPLETE,
            alpha=alpha,
            lw=2.2 if is_best else 1.1,
            ls="-" if end[0] == start[0] + 1 else ":",
            zorder=3 if is_best else 2,
        )


def _height(dimension: Dimension, trial: TrialRecord) -> float | None:
    """Where a trial crosses a setting's axis, in [0, 1]; None where it has no value there."""
    if dimension.name not in trial.values:
        return None
    place = positions(dimension, [trial])[0]
    if dimension.kind == "choice":
        return place / max(1, len(dimension.choices) - 1)
    low, high = (float(end) for end in dimension.ends if isinstance(end, int | float))
    if dimension.kind == "log_uniform":
        place, low, high = np.log(place), np.log(low), np.log(high)
    return float((place - low) / (high - low))


def _mark_axis(axes: Axes, place: int, low: str, high: str) -> None:
    axes.axvline(place, color=QUIET, lw=0.9, zorder=1)
    style: dict[str, Any] = {"ha": "center", "size": 7.5, "color": QUIET}
    style["backgroundcolor"] = "white"
    axes.text(place, -0.04, low, va="top", **style)
    axes.text(place, 1.04, high, va="bottom", **style)


def plot_curves(trials: Sequence[TrialRecord], objective: Objective, best: int | None) -> Figure:
    """What every trial reported, epoch by epoch."""
    figure, axes = new_figure(8, 3.4)
    grid(axes)
    for trial in (t for t in trials if t.curve):
        is_best = trial.number == best
        axes.plot(
            range(1, len(trial.curve) + 1),
            trial.curve,
            color=_BEST if is_best else _PRUNED if trial.state == "pruned" else _COMPLETE,
            lw=2.2 if is_best else 1.1,
            alpha=1.0 if is_best else 0.6,
            ls="--" if trial.state == "pruned" else "-",
            marker="o" if len(trial.curve) < 30 else None,
            ms=2.5,
            zorder=3 if is_best else 2,
        )
    axes.plot([], [], color=_BEST, lw=2.2, label="best trial")
    axes.plot([], [], color=_COMPLETE, label="complete")
    axes.plot([], [], color=_PRUNED, ls="--", label="stopped early")
    axes.set_xlabel("report (epoch)")
    axes.set_ylabel(objective.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, columns=4)
    return figure


def plot_pareto(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], front: Sequence[int]
) -> Figure:
    """Trials by both objectives; those that no other one beats are joined and numbered."""
    figure, axes = new_figure(6.4, 4.6)
    grid(axes)
    done = [trial for trial in trials if trial.scores is not None]
    for is_front, colour in ((False, _COMPLETE), (True, _BEST)):
        points = sorted(
            (t.scores[0], t.scores[1], t.number)
            for t in done
            if t.scores is not None and (t.number in front) == is_front
        )
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        axes.scatter(xs, ys, color=colour, zorder=3, label="front" if is_front else "beaten")
        if is_front:
            # Between two of them nothing is known to be reached but what both allow.
            is_staircase_before = objectives[0].goal == "maximize"
            axes.step(xs, ys, color=colour, lw=1.2, zorder=2,
                      where="pre" if is_staircase_before else "post")  # fmt: skip
            for x, y, number in points:
                axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(5, 5),
                              size=8, color=INK)  # fmt: skip
    for name, objective in zip(("x", "y"), objectives, strict=True):
        wish = "larger is better" if objective.goal == "maximize" else "smaller is better"
        axes.set(**{f"{name}label": f"{objective.metric} ({wish})"})
    legend(axes, columns=4)
    return figure
