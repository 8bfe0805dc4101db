"""Whether an exported file says what the package says, on clips that were really decoded.

Every film is read as ``mien predict`` reads it. What the method is asked there is asked of the file
too, one window at a time and several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch

from mien.export.graph import Arrays, Runner, told
from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import Answer, BatchedNetwork
from mien.stream.batches import Row, collate
from mien.stream.plan import LoadPlan
from mien.track.export import ExportError
from mien_models.contract import ClipBatch, Method

TOLERANCE = 1e-4
"""Largest difference of any output that is allowed, in float32."""
MOST_WINDOWS = 64
"""Windows that are compared, at most."""
_BATCH_SIZES = (1, 3, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A file against the package."""

    num_windows: int
    largest_difference: float
    """Of any output of any window."""
    class_agreement: float
    """Share of the windows with the same most probable class."""


class _KeptQuestions(BatchedNetwork):
    """Answers as ever, and keeps what it was asked."""

    def __init__(self, method: Method) -> None:
        self.rows: list[Row] = []
        super().__init__(method, method.prediction_stream())

    def ask(self, row: Row) -> Future[Answer]:
        self.rows.append(row)
        return super().ask(row)


def windows_of(locations: Sequence[str], method: Method, plan: LoadPlan) -> list[Row]:
    """What the method is asked about films, up to `MOST_WINDOWS` windows.

    Raises:
        ClipError: a film can't be used; says why.
        ExportError: nobody's face is in any of them.
    """
    rows: list[Row] = []
    settings = FilmSettings()
    for location in locations:
        network = _KeptQuestions(method)
        with network:
            for _ in FilmReading(location, network, settings, plan).parts():
                if len(rows) + len(network.rows) >= MOST_WINDOWS:
                    break
            rows += network.rows
        if len(rows) >= MOST_WINDOWS:
            break
    if not rows:
        raise ExportError(
            f"the export can't be checked: nobody's face was found in {', '.join(locations[:3])}; "
            "name films with faces, as in --check FILM.mp4"
        )
    return rows[:MOST_WINDOWS]


def inputs_of(batch: ClipBatch) -> Arrays:
    """A batch as a graph's inputs."""
    tensors = [batch.video_BTCHW]
    if batch.audio_BFM is not None:
        tensors += [batch.audio_BFM, batch.audio_frames_B, batch.has_audio_B]
    return tuple(tensor.numpy() for tensor in tensors)


def compare(run: Runner, method: Method, rows: Sequence[Row], *, name: str) -> Comparison:
    """Asks a file and the package the same.

    Args:
        run: the file.
        method: of the package, in evaluation mode, on the CPU.
        rows: of `windows_of`.
        name: of the file, for errors.

    Raises:
        ExportError: an output differs by more than `TOLERANCE`, or a batch can't be computed.
    """
    differences, agreed = [], []
    for batch in _batches(rows, method):
        with torch.inference_mode():
            expected = [output.numpy() for output in told(method.predict(batch))]
        found = _found(run, batch, name)
        pairs = list(zip(found, expected, strict=True))
        differences += [float(np.abs(a - b).max(initial=0)) for a, b in pairs]
        agreed += (found[0].argmax(1) == expected[0].argmax(1)).tolist()
    # NaN is larger than any tolerance.
    worst = max(differences, key=lambda value: (np.isnan(value), value))
    if not worst <= TOLERANCE:
        raise ExportError(
            f"{name} differs from the package by {worst:.2g} in an output of one of {len(rows)} "
            f"windows, allowed is {TOLERANCE:.2g} (float32); it was not kept. The method's "
            "predict() must not draw at random or depend on frames without a face"
        )
    return Comparison(
        num_windows=len(rows),
        largest_difference=worst,
        class_agreement=float(np.mean(agreed)),
    )


def _batches(rows: Sequence[Row], method: Method) -> Iterator[ClipBatch]:
    """All rows in batches of each size in turn."""
    stream = method.prediction_stream().for_prediction("all")
    for size in _BATCH_SIZES:
        for start in range(0, len(rows), size):
            yield collate(rows[start : start + size], stream)


def _found(run: Callable[[Arrays], Arrays], batch: ClipBatch, name: str) -> Arrays:
    try:
        return run(inputs_of(batch))
    except Exception as error:  # of torch, or of onnxruntime, which has classes of its own
        raise ExportError(f"{name} does not take {len(batch)} clips at once: {error}") from error
