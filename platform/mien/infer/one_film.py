"""One film to its tables and its record, in whatever process."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.inputs import table_name, version_of
from mien.infer.network import BatchedNetwork
from mien.infer.rows import Columns, Part, table_writer
from mien.media.containers import clip_errors
from mien.media.errors import ClipError
from mien.media.storage import join, read_bytes, remove, write_bytes_atomically
from mien.stream.plan import DEFAULT, LoadPlan

RECORDS = "records"
Kind = Literal["windows", "frames"]
KINDS: tuple[Kind, ...] = ("windows", "frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmRecord:
    """What became of one input."""

    input: str
    status: Literal["done", "incomplete", "failed"]
    """``incomplete``: the file ends before its header says; what there is was predicted."""
    reason: str = ""
    """As `ClipError.reason`; empty of what is done."""
    message: str = ""
    num_windows: int = 0
    num_frames: int = 0
    num_people: int = 0
    """Tracks of faces that were predicted; 0 where faces are not looked for."""
    duration_s: float = 0.0
    seconds: float = 0.0
    """That it took."""
    warnings: tuple[str, ...] = ()
    source_version: str = ""
    """See `version_of`."""
    asked: str = ""
    """Of the model and the settings: other ones make another answer."""

    def to_json(self) -> str:
        """The record as a line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> FilmRecord:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: it is none, or one of another version of Mien.
        """
        try:
            data = json.loads(text)
            return cls(**{**data, "warnings": tuple(data["warnings"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a record of `mien predict`: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderJob:
    """Tables of many films in one folder."""

    out: str
    """Folder or prefix of the results."""
    columns: Columns
    asked: str
    """Hash of the model and the settings."""
    format: str = "parquet"
    settings: FilmSettings = field(default_factory=FilmSettings)
    plan: LoadPlan = DEFAULT

    def table(self, kind: Kind, location: str) -> str:
        """Where an input's table lies."""
        return join(self.out, f"{kind}/{table_name(location)}.{self.format}")

    def record(self, location: str) -> str:
        """Where an input's record lies."""
        return join(self.out, f"{RECORDS}/{table_name(location)}.json")


def predict_into_folder(
    job: FolderJob, location: str, network: BatchedNetwork, *, may_be_done: bool
) -> FilmRecord:
    """Writes an input's tables and then, as the mark that they are whole, its record.

    What was done before, of the same file by the same model with the same settings, is not done
    again. Tables have one name for each input, so that whatever is done twice is there once.

    Raises:
        ValueError: the storage of the results or the network is unusable; not for a bad input.
    """
    started = time.monotonic()
    try:
        with clip_errors(location):
            version = version_of(location)
        if may_be_done and (known := _known(job, location, version)) is not None:
            return known
        reading = FilmReading(location, network, job.settings, job.plan)
        with _tables(job, location) as take:
            for part in reading.parts():
                take(part)
    except ClipError as error:
        record = FilmRecord(
            input=location, status="failed", reason=error.reason, message=str(error)
        )
        for kind in KINDS:  # of an earlier state of the file
            remove(job.table(kind, location))
    else:
        record = _record(reading)
        record = dataclasses.replace(record, source_version=version, asked=job.asked)
    record = dataclasses.replace(record, seconds=round(time.monotonic() - started, 3))
    write_bytes_atomically(job.record(location), record.to_json().encode("utf-8", "replace"))
    return record


def _known(job: FolderJob, location: str, version: str) -> FilmRecord | None:
    """The record of an input that need not be done again."""
    record = FilmRecord.from_json(read_bytes(job.record(location)))
    is_same = (record.source_version, record.asked) == (version, job.asked)
    return record if is_same and record.status != "failed" else None


@contextmanager
def _tables(job: FolderJob, location: str) -> Iterator[Callable[[Part], None]]:
    """Takes the rows of both tables; they appear when the block is left without error."""
    with (
        table_writer(job.table("windows", location), job.columns.window_schema) as windows,
        table_writer(job.table("frames", location), job.columns.frame_schema) as frames,
    ):

        def take(part: Part) -> None:
            windows([job.columns.of_window(row, location) for row in part.windows])
            frames([job.columns.of_frame(row, location) for row in part.frames])

        yield take


def _record(reading: FilmReading) -> FilmRecord:
    warnings = tuple(reading.warnings())
    is_cut_off = reading.film.missing_s > 0
    return FilmRecord(
        input=reading.location,
        status="incomplete" if is_cut_off else "done",
        reason="truncated" if is_cut_off else "",
        message=next((line for line in warnings if "cut off" in line), "") if is_cut_off else "",
        num_windows=reading.num_windows,
        num_frames=reading.num_frames,
        num_people=reading.num_people,
        duration_s=round(reading.film.duration_s, 3),
        warnings=warnings,
    )
