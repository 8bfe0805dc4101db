"""One file with a trained method, all rows in memory: for short films, notebooks and tables.

`mien.infer.film_reading` gives the rows of films of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mien.clips.labels import LabelSet
from mien.evaluate.markdown import markdown_table
from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import BatchedNetwork
from mien.infer.rows import WindowRow
from mien.stream.plan import DEFAULT, LoadPlan
from mien_models.contract import Method, StreamSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePrediction:
    """The windows of a file, in order, and what a reader of the table should know."""

    uri: str
    label_set: LabelSet
    windows: tuple[WindowRow, ...]
    warnings: tuple[str, ...]

    def to_markdown(self) -> str:
        """The table for people, with the warnings below it."""
        table = windows_as_markdown(self.windows, self.label_set)
        return "\n".join([table, *(f"warning: {line}" for line in self.warnings)])


def windows_as_markdown(windows: Sequence[WindowRow], label_set: LabelSet) -> str:
    """Rows of windows as a table for people."""
    head = ["start s", "end s", "person", "label", "probability", "faces", "sound"]
    with_effects = any(row.video_effect is not None for row in windows)
    effects = ["sound adds", "picture adds"] if with_effects else []
    rows = []
    for row in windows:
        added = [row.audio_effect, row.video_effect] if with_effects else []
        told = ["-" if value is None else f"{value:+.2f}" for value in added]
        rows.append([*_shown(row, label_set), *told, *(f"{p:.2f}" for p in row.probabilities)])
    return markdown_table([*head, *effects, *label_set.classes], rows)


def _shown(row: WindowRow, label_set: LabelSet) -> list[str]:
    label, probability = row.best(label_set.classes)
    return [
        f"{row.start_s:.2f}",
        f"{row.end_s:.2f}",
        "-" if row.track is None else str(row.track),
        label or f"({row.reason})",
        "-" if probability is None else f"{probability:.2f}",
        "-" if row.faces is None else f"{row.faces:.0%}",
        "yes" if row.has_audio else "no",
    ]


def predict_file(
    path: str | Path,
    *,
    method: Method,
    label_set: LabelSet,
    stream: StreamSpec,
    plan: LoadPlan = DEFAULT,
    device: torch.device | str = "cpu",
    settings: FilmSettings | None = None,
) -> FilePrediction:
    """Predicts a video file, or a folder of frames, window by window, and keeps all rows.

    Args:
        path: a path or URI.
        method: restored from its package; moved to ``device``.
        label_set: of the package.
        stream: ``prediction_stream`` of the package.
        plan: how clips are read.
        device: where the network runs.
        settings: windows and people.

    Raises:
        ClipError: the file can't be used; says why.
        BrokenNetworkError: the network's answers are not numbers.
    """
    with BatchedNetwork(method, stream, device=device) as network:
        reading = FilmReading(str(path), network, settings, plan)
        windows = tuple(row for part in reading.parts() for row in part.windows)
    return FilePrediction(
        uri=reading.location,
        label_set=label_set,
        windows=windows,
        warnings=tuple(reading.warnings()),
    )
