"""A plot of what was predicted over the time of a film: classes, and action units below them."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mien.infer.people import MAX_GAP_S
from mien.infer.rows import FrameRow
from mien.media.storage import write_bytes_atomically

_MOST_BINS = 1200
"""About one a pixel: a longer film's frames are averaged, so that memory and plot stay small."""
_MOST_PEOPLE = 6
_CLASS_PANEL_IN = 1.9
_UNIT_ROW_IN = 0.18

UNIT_NAMES = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU20": "lip stretcher",
    "AU22": "lip funneler",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU27": "mouth stretch",
    "AU28": "lip suck",
    "AU43": "eyes closed",
    "AU45": "blink",
}
"""Names of the Facial Action Coding System."""


class Timeline:
    """Collects frames and plots probabilities over time: of a person's classes as shares, of its
    action units as a row each. Where a person is not seen, or has no label, there is a gap.

    Args:
        classes: Names in the order of the probabilities.
        action_units: That the method tells of.
        location: A path or URI of a PNG.

    Raises:
        ValueError: another ending than .png.
    """

    def __init__(self, classes: Sequence[str], action_units: Sequence[str], location: str) -> None:
        if not location.lower().endswith(".png"):
            raise ValueError(f"{location}: expected a name that ends in .png")
        self._location = location
        self._classes = tuple(classes)
        self._units = tuple(action_units)
        self._bin_s = 0.1
        # By person and bin: sums over frames of the values of classes and units, and how many.
        self._sums: dict[int | None, dict[int, np.ndarray]] = defaultdict(dict)
        self._newest: list[FrameRow] = []
        """Rows of the newest frame, which lasts until the next one."""

    def add(self, frames: Iterable[FrameRow]) -> None:
        """Takes rows of frames, in order of time."""
        for row in frames:
            if self._newest and row.frame != self._newest[0].frame:
                self._count_newest(until_s=row.time_s)
            self._newest.append(row)

    def _count_newest(self, until_s: float) -> None:
        rows, self._newest = self._newest, []
        start_s = rows[0].time_s
        end_s = min(until_s, start_s + MAX_GAP_S)
        while end_s / self._bin_s > _MOST_BINS:
            self._halve()
        first = int(start_s / self._bin_s + 1e-6)
        past = max(first + 1, math.ceil(end_s / self._bin_s - 1e-6))
        for row in rows:
            if not row.probabilities:
                continue
            counted = np.array([*row.probabilities, *row.units, 1.0])
            bins = self._sums[row.track]
            for number in range(first, past):
                bins[number] = bins.get(number, 0) + counted

    def _halve(self) -> None:
        self._bin_s *= 2
        for track, bins in self._sums.items():
            joined: dict[int, np.ndarray] = {}
            for number, value in bins.items():
                joined[number // 2] = joined.get(number // 2, 0) + value
            self._sums[track] = joined
        if len(self._sums) > 50 * _MOST_PEOPLE:  # flickers of a long film
            kept = self._longest(10 * _MOST_PEOPLE)
            self._sums = defaultdict(dict, {track: self._sums[track] for track in kept})

    def _longest(self, count: int) -> list[int | None]:
        """The people who are there for the longest time, in order of appearance."""
        by_time = sorted(self._sums, key=lambda track: -len(self._sums[track]))[:count]
        return sorted(by_time, key=lambda track: -1 if track is None else track)

    def save(self, duration_s: float) -> None:
        """Writes the plot as PNG, whole or not at all.

        Raises:
            StorageError: the location can't be written.
        """
        buffer = io.BytesIO()
        self.figure(duration_s).savefig(buffer, format="png", dpi=110)
        write_bytes_atomically(self._location, buffer.getvalue())

    def figure(self, duration_s: float) -> Figure:
        """The plot; the film's last frame lasts until ``duration_s``."""
        if self._newest:
            self._count_newest(until_s=duration_s)
        people = self._longest(_MOST_PEOPLE)
        per_person = [_CLASS_PANEL_IN]
        per_person += [0.3 + _UNIT_ROW_IN * len(self._units)] if self._units else []
        heights = per_person * max(1, len(people))
        figure = Figure(figsize=(11, 1.2 + sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for index, track in enumerate(people):
            mine = panels[index * len(per_person) : (index + 1) * len(per_person)]
            edges, classes_KN, units_UN = self._means(track)
            self._draw_classes(mine[0], edges, classes_KN)
            mine[0].set_ylabel("probability" if track is None else f"person {track}")
            if self._units:
                self._draw_units(mine[1], edges, units_UN)
        if not people:
            panels[0].text(0.5, 0.5, "no window has a label", ha="center", va="center")
        else:
            names = panels[0].get_legend_handles_labels()
            figure.legend(*names, loc="outside upper center", ncols=min(8, len(self._classes)))
            if self._units:
                shades = panels[1].collections[0]
                figure.colorbar(shades, ax=panels[1::2].tolist(), label="unit is present", pad=0.01)
        panels[-1].set_xlim(0, max(duration_s, 1e-3))
        panels[-1].set_xlabel("seconds since the first frame; white: not seen, or without a label")
        left_out = len(self._sums) - len(people)
        if left_out > 0:
            panels[-1].set_title(f"{left_out} more people, in view for less time", fontsize=8)
        return figure

    def _draw_classes(self, panel: Axes, edges: np.ndarray, means_KN: np.ndarray) -> None:
        # Steps: each value stands from its bin's beginning to its end.
        steps, shares = np.repeat(edges, 2)[1:-1], np.repeat(means_KN, 2, axis=1)
        colours = [f"C{index}" for index in range(len(self._classes))]
        panel.stackplot(steps, shares, colors=colours, labels=self._classes, linewidth=0)
        panel.set_ylim(0, 1)

    def _draw_units(self, panel: Axes, edges: np.ndarray, means_UN: np.ndarray) -> None:
        rows = np.arange(len(self._units) + 1) - 0.5
        panel.pcolormesh(edges, rows, means_UN, cmap="viridis", vmin=0, vmax=1, rasterized=True)
        names = [f"{UNIT_NAMES.get(unit, '')}  {unit}" for unit in self._units]
        panel.set_yticks(range(len(self._units)), names, fontsize=8)
        panel.invert_yaxis()

    def _means(self, track: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edges of the bins [N + 1], means of classes [K, N] and units [U, N]; NaN: not there."""
        bins = self._sums[track]
        num_classes = len(self._classes)
        means_VN = np.full((num_classes + len(self._units), max(bins) + 1), np.nan)
        for number, value in bins.items():
            means_VN[:, number] = value[:-1] / value[-1]
        edges = np.arange(max(bins) + 2) * self._bin_s
        return edges, means_VN[:num_classes], means_VN[num_classes:]
