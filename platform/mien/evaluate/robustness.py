"""What is left of a model's UAR when clips are corrupted."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mien.evaluate.corruptions import SEVERITIES
from mien.evaluate.plot_style import INK, QUIET, head, ink
from mien.evaluate.report import Report, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Robustness:
    """UAR clean and under every corruption and severity."""

    clean: float
    chance: float
    """UAR of a guess."""
    num_clips: int
    uars: Mapping[tuple[str, int], float]
    """By name and severity (1 to 5)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions, in order."""
        return tuple(dict.fromkeys(name for name, _ in self.uars))

    def relative(self, name: str) -> float:
        """Mean UAR over the severities of a corruption, divided by the clean UAR; 1: unharmed."""
        return statistics.mean(self._of(name).values()) / self.clean

    @property
    def mean_relative(self) -> float:
        """Mean of all corruptions' relative scores."""
        return statistics.mean(self.relative(name) for name in self.names)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        data = {k: v for k, v in dataclasses.asdict(self).items() if k != "uars"}
        data["uars"] = {name: self._of(name) for name in self.names}
        data["relative"] = {name: self.relative(name) for name in self.names}
        return data | {"mean_relative": self.mean_relative}

    def report(self) -> Report:
        """A row for each corruption, worst first."""
        ordered = sorted(self.names, key=self.relative)
        rows = []
        for name in ordered:
            found = self._of(name)
            shown = [f"{found[s]:.3f}" if s in found else "-" for s in SEVERITIES]
            rows.append([name, *shown, f"{self.relative(name):.2f}"])
        table = Table(
            title="UAR by corruption and severity",
            head=["corruption", *(str(s) for s in SEVERITIES), "relative"],
            rows=rows,
            note="Relative: mean over severities, divided by the clean UAR. Pictures are corrupted "
            "after the face was found, so failures of the face detector are not in it.",
        )
        lead = [
            f"Clean UAR {self.clean:.3f} on {self.num_clips} clips; corrupted, "
            f"{self.mean_relative:.0%} of it is left on average. Worst: {ordered[0]} "
            f"({self.relative(ordered[0]):.0%}).",
            f"A guess has {self.chance:.3f}, which is {self.chance / self.clean:.0%} of the clean "
            "UAR: less can't be lost than down to there.",
        ]
        return Report(title="Robustness", lead=lead, tables=[table])

    def figure(self) -> Figure:
        """A row for each corruption, a column for each severity, coloured by what is left."""
        ordered = sorted(self.names, key=self.relative)
        shares = np.asarray(
            [[self._of(n).get(s, np.nan) / self.clean for s in SEVERITIES] for n in ordered]
        )
        figure = Figure(figsize=(6.2, 1.4 + 0.34 * len(ordered)), layout="constrained", dpi=110)
        axes = figure.add_subplot()
        ink(axes)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            text = "-" if np.isnan(share) else f"{share:.0%}"
            colour = "white" if share > 0.65 else INK
            axes.text(column, row, text, ha="center", va="center", size=8, color=colour)
        labels = [f"{name}  ({self.relative(name):.0%})" for name in ordered]
        axes.set_yticks(range(len(ordered)), labels)
        axes.set_xticks(range(len(SEVERITIES)), [str(s) for s in SEVERITIES])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(
            f"severity; share of the clean UAR (a guess: {self.chance / self.clean:.0%})"
        )
        axes.xaxis.label.set_color(QUIET)
        head(axes, "Robustness", f"clean UAR {self.clean:.3f}, n = {self.num_clips}")
        return figure

    def _of(self, name: str) -> dict[int, float]:
        return {severity: uar for (one, severity), uar in self.uars.items() if one == name}
