"""A plot of what was predicted over the time of a film."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mien.infer.rows import WindowRow
from mien.media.storage import write_bytes_atomically

_MOST_BINS = 1200
"""About one a pixel: a longer film's windows are averaged, so that memory and plot stay small."""
_MOST_PEOPLE = 6


class Timeline:
    """Collects windows and plots the classes' probabilities over time, a panel a person.

    Args:
        classes: Names in the order of the probabilities.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._bin_s = 0.1
        # By person and bin: sums of the probabilities, and how many windows.
        self._sums: dict[int | None, dict[int, np.ndarray]] = defaultdict(dict)

    def add(self, windows: Iterable[WindowRow]) -> None:
        """Takes rows of windows, in order of time."""
        for row in windows:
            if not row.probabilities:
                continue
            while row.end_s / self._bin_s > _MOST_BINS:
                self._halve()
            counted = np.array([*row.probabilities, 1.0])
            bins = self._sums[row.track]
            first = int(row.start_s / self._bin_s + 1e-6)
            for number in range(first, max(first + 1, int(row.end_s / self._bin_s + 1 - 1e-6))):
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

    def save(self, location: str, duration_s: float) -> None:
        """Writes the plot as PNG, whole or not at all.

        Raises:
            ValueError: another ending than .png.
            StorageError: the location can't be written.
        """
        if not location.lower().endswith(".png"):
            raise ValueError(f"{location}: expected a name that ends in .png")
        buffer = io.BytesIO()
        self.figure(duration_s).savefig(buffer, format="png", dpi=110)
        write_bytes_atomically(location, buffer.getvalue())

    def figure(self, duration_s: float) -> Figure:
        """The plot."""
        people = self._longest(_MOST_PEOPLE)
        figure = Figure(figsize=(11, 1.2 + 1.9 * max(1, len(people))), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(max(1, len(people)), 1, sharex=True, squeeze=False)[:, 0]
        colours = [f"C{index}" for index in range(len(self._classes))]
        for panel, track in zip(panels, people, strict=False):
            edges, shares = self._shares(track)
            panel.stackplot(edges, shares, colors=colours, labels=self._classes, linewidth=0)
            panel.set_ylabel("probability" if track is None else f"person {track}")
            panel.set_ylim(0, 1)
        if not people:
            panels[0].text(0.5, 0.5, "no window has a label", ha="center", va="center")
        else:
            names = panels[0].get_legend_handles_labels()
            figure.legend(*names, loc="outside upper center", ncols=min(8, len(self._classes)))
        panels[-1].set_xlim(0, max(duration_s, 1e-3))
        panels[-1].set_xlabel("seconds since the first frame")
        left_out = len(self._sums) - len(people)
        if left_out > 0:
            panels[-1].set_title(f"{left_out} more people, in view for less time", fontsize=8)
        return figure

    def _shares(self, track: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Edges of the bins, doubled to make steps, and shares [K, 2 bins]; NaN: not there."""
        bins = self._sums[track]
        last = max(bins)
        shares = np.full((last + 1, len(self._classes)), np.nan)
        for number, value in bins.items():
            shares[number] = value[:-1] / value[-1]
        edges = np.arange(last + 2) * self._bin_s
        return np.repeat(edges, 2)[1:-1], np.repeat(shares, 2, axis=0).T
