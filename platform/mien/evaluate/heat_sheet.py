"""A picture of heat maps over the frames of several clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mien.evaluate.plot_style import INK, QUIET

MOST_CLIPS = 16
MOST_FRAMES = 8
_STRENGTH = 0.65


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatRow:
    """One clip of a sheet."""

    frames_SHWC: npt.NDArray[np.uint8]
    heat_SHW: npt.NDArray[np.float32]
    """0 to 1."""
    times_S: npt.NDArray[np.float32]
    """Seconds from the clip's start."""
    title: str
    note: str
    share_S: npt.NDArray[np.float32] | None = None
    """How much each frame counts for the network itself."""


def overlay(
    frame_HWC: npt.NDArray[np.uint8], heat_HW: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """A grey frame with its heat in colour, the stronger the more of it."""
    colour_HWC = matplotlib.colormaps["inferno"](heat_HW)[..., :3]
    grey_HW1 = frame_HWC.mean(axis=2, keepdims=True) / 255
    weight_HW1 = _STRENGTH * heat_HW[..., None]
    mixed = (1 - weight_HW1) * grey_HW1 + weight_HW1 * colour_HWC
    shown: npt.NDArray[np.uint8] = (mixed * 255).round().astype(np.uint8)
    return shown


def heat_sheet(rows: Sequence[HeatRow], title: str) -> Figure:
    """Each clip a line: its frames with their heat. At most 16 clips of 8 frames.

    A bar below a frame is as long as the frame's share against the largest one of its clip.
    """
    rows = rows[:MOST_CLIPS]
    columns = min(MOST_FRAMES, max(len(row.frames_SHWC) for row in rows))
    size = (1.3 * columns, 1.75 * len(rows) + 0.5)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    lines = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for subfigure, row in zip(lines, rows, strict=True):
        subfigure.suptitle(row.title, x=0.01, ha="left", fontsize=9, color=INK)
        subfigure.supxlabel(row.note, x=0.01, ha="left", fontsize=7.5, color=QUIET)
        shown = np.linspace(0, len(row.frames_SHWC) - 1, columns).round().astype(int)
        places = subfigure.subplots(1, columns, squeeze=False)[0]
        for axes, number in zip(places, shown, strict=True):
            axes.imshow(overlay(row.frames_SHWC[number], row.heat_SHW[number]))
            axes.set_title(f"{row.times_S[number]:.2f} s", fontsize=7, color=QUIET, pad=2)
            axes.axis("off")
            if row.share_S is not None:
                _draw_bar(axes, float(row.share_S[number] / row.share_S.max()))
    return figure


def _draw_bar(axes: Axes, length: float) -> None:
    bar = Rectangle((0, -0.07), length, 0.05, transform=axes.transAxes, color=INK, clip_on=False)
    axes.add_patch(bar)
