"""One film for a person who looks at it: a table, and on request a file, a plot, a film."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from mien.clips.labels import LabelSet
from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import BatchedNetwork
from mien.infer.overlay import OverlayWriter
from mien.infer.predict import windows_as_markdown
from mien.infer.rows import Columns, Part, WindowRow, table_writer
from mien.infer.timeline import Timeline
from mien.stream.plan import LoadPlan

_SHOWN_ROWS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user wants of films."""

    label_set: LabelSet
    settings: FilmSettings
    plan: LoadPlan
    out: str | None = None
    """A table's location."""
    rows: Literal["windows", "frames"] = "windows"
    """What a row of it is."""
    overlay: str | None = None
    """Location of a film with what was found."""
    timeline: str | None = None
    """Location of a plot over time."""
    weights_sha256: str = ""
    """Of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmReport:
    """What was found in one film."""

    text: str
    is_cut_off: bool


def report_film(location: str, network: BatchedNetwork, wishes: Wishes) -> FilmReport:
    """Predicts a film, writes what is wished for, and tells about it.

    Raises:
        ClipError: the file can't be used; nothing is written then.
        ValueError: a location has an unknown ending or can't be written.
    """
    reading = FilmReading(location, network, wishes.settings, wishes.plan)
    columns = Columns(
        classes=wishes.label_set.classes,
        action_units=network.action_units,
        action_unit_calibration=network.action_unit_calibration,
        post_filter_frames=wishes.settings.post_filter_frames,
        with_effects=network.with_effects,
        with_features=network.with_features,
        temperatures=network.temperatures,
        weights_sha256=wishes.weights_sha256,
    )
    timeline = None
    if wishes.timeline is not None:
        timeline = Timeline(wishes.label_set.classes, network.action_units, wishes.timeline)
    shown: list[WindowRow] = []
    num_rows = 0
    with ExitStack() as stack:
        write = None
        if wishes.out is not None:
            is_frames = wishes.rows == "frames"
            schema = columns.frame_schema if is_frames else columns.window_schema
            write = stack.enter_context(table_writer(wishes.out, schema))
        overlay = None
        if wishes.overlay is not None:
            overlay = stack.enter_context(
                OverlayWriter(reading.location, wishes.overlay, wishes.label_set.classes)
            )
        for part in reading.parts():
            if write is not None:
                write(list(_table_rows(part, columns, wishes, reading.location)))
            if overlay is not None:
                overlay.draw(part.frames)
            if timeline is not None:
                timeline.add(part.frames)
            shown += part.windows[: _SHOWN_ROWS - len(shown)]
            num_rows += len(part.windows)
    if timeline is not None:
        timeline.save(reading.film.duration_s)
    return FilmReport(
        text="\n".join(_lines(reading, shown, num_rows, wishes)),
        is_cut_off=reading.film.missing_s > 0,
    )


def _table_rows(
    part: Part, columns: Columns, wishes: Wishes, location: str
) -> Iterator[dict[str, object]]:
    if wishes.rows == "frames":
        return (columns.of_frame(row, location) for row in part.frames)
    return (columns.of_window(row, location) for row in part.windows)


def _lines(
    reading: FilmReading, shown: list[WindowRow], num_rows: int, wishes: Wishes
) -> Iterator[str]:
    yield windows_as_markdown(shown, wishes.label_set)
    if num_rows > len(shown):
        where = f"{wishes.out} holds all" if wishes.out else "--out FILE.csv keeps all"
        yield f"... and {num_rows - len(shown)} more rows; {where}"
    yield from (f"warning: {line}" for line in reading.warnings())
    for location in (wishes.out, wishes.overlay, wishes.timeline):
        if location is not None:
            yield f"wrote {location}"
