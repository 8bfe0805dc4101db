"""A film to the JSON that a server answers with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import BatchedNetwork
from mien.infer.rows import Columns, WindowRow, best
from mien.stream.plan import LoadPlan


class FilmTooLongError(ValueError):
    """A film that is longer than a server reads."""


class ReadingStoppedError(Exception):
    """Nobody waits for the answer any more."""


def read_film(
    location: str,
    network: BatchedNetwork,
    settings: FilmSettings,
    plan: LoadPlan,
    *,
    max_film_s: float = math.inf,
    is_stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Windows, frames, people and warnings of a film, as ``mien predict`` tells them.

    Args:
        location: of the film.
        network: answers for each window.
        settings: windows and people.
        plan: how training read its clips.
        max_film_s: longer films are refused as soon as that is known.
        is_stopped: asked while the film is read.

    Raises:
        ClipError: the film can't be used; says why.
        FilmTooLongError: it is longer than ``max_film_s``.
        ReadingStoppedError: ``is_stopped`` said so.
        BrokenNetworkError: the network's answers are not numbers.
    """
    reading = FilmReading(location, network, settings, plan)
    columns = Columns(classes=network.classes, action_units=network.action_units)
    windows: list[WindowRow] = []
    frames: list[dict[str, Any]] = []
    for part in reading.parts():
        windows += part.windows
        frames += [_row(columns.of_frame(row, "")) for row in part.frames]
        if is_stopped():
            raise ReadingStoppedError
        if reading.film.duration_s > max_film_s:
            raise FilmTooLongError(
                f"the film is longer than {max_film_s:g} s, the most that is read here; "
                "`mien predict` reads films of any length"
            )
    return {
        "duration_s": round(reading.film.duration_s, 3),
        "classes": list(network.classes),
        "action_units": list(network.action_units),
        "people": _people(windows, network.classes),
        "windows": [_row(columns.of_window(row, "")) for row in windows],
        "frames": frames,
        "warnings": reading.warnings(),
    }


def _row(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a table without the film's name, which stands once beside all rows."""
    return {name: value for name, value in values.items() if name != "input"}


def _people(windows: Sequence[WindowRow], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Each person in the whole film: the mean of the windows' probabilities."""
    found: dict[int | None, list[tuple[float, ...]]] = {}
    for row in windows:
        if row.probabilities:
            found.setdefault(row.track, []).append(row.probabilities)
    people = []
    for track, told in found.items():
        mean = tuple(np.mean(told, axis=0).tolist())
        label, probability = best(mean, classes)
        shares = {f"p_{name}": value for name, value in zip(classes, mean, strict=True)}
        person = {"track": track, "windows": len(told), "label": label, "probability": probability}
        people.append({**person, **shares})
    return people
