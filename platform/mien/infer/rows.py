"""What is said of windows and frames, and the tables they are written to.

Parquet, CSV or JSON lines; rows are written in blocks, so that a film of any length fits, and a
table appears under its name as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mien.media.storage import absolute, write_file_atomically

FORMATS = ("parquet", "csv", "jsonl")
EFFECTS = ("audio_effect", "video_effect")
FEATURES = ("features", "picture")
"""Columns of windows: the network's features and `picture_statistics`, lists of numbers."""
WEIGHTS_KEY = b"mien.weights_sha256"
"""Of a table's metadata: the model that predicted."""
PROBABILITIES_KEY = b"mien.probabilities"
"""Of a table's metadata: what the columns p_<class> are, and after which post-filter."""
UNITS_KEY = b"mien.action_units"
"""Of a table's metadata: unit of measure and calibration of the columns of action units."""
_RAW = "raw: softmax of the network's logits, as it was trained, without a temperature"
CALIBRATED = "calibrated"
"""What `PROBABILITIES_KEY` starts with where a temperature was applied."""
_ROWS_AT_ONCE = 1024

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """What the method says about one person in one window."""

    start_s: float
    """Since the file's first frame."""
    end_s: float
    has_audio: bool
    """Whether sound was used."""
    track: int | None = None
    """Number of the person's track in this file; None where faces are not looked for, and where
    nobody was found."""
    probabilities: tuple[float, ...] = ()
    """Of all classes in the label set's order; empty without a label."""
    faces: float | None = None
    """Share of the window's frames in which the person's face was found."""
    reason: str = ""
    """Why there is no label, else empty."""
    audio_effect: float | None = None
    """See `Answer.audio_effect`."""
    video_effect: float | None = None
    features: tuple[float, ...] = ()
    """See `Answer.features_D`."""
    picture: tuple[float, ...] = ()
    """See `Answer.picture_P`."""

    def best(self, classes: Sequence[str]) -> tuple[str | None, float | None]:
        """The most probable class and its probability."""
        return best(self.probabilities, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """What is known of one person in one frame, or of a frame without a person."""

    frame: int
    time_s: float
    """Since the film's first frame, from presentation times."""
    has_face: bool | None
    """None where faces are not looked for."""
    track: int | None = None
    score: float | None = None
    """The face detector's confidence."""
    box: tuple[float, ...] | None = None
    """x0, y0, x1, y1 in pixels of the upright frame."""
    probabilities: tuple[float, ...] = ()
    """Mean of the windows that the frame is in, after the post-filter where there is one; empty
    where no window has a label for this person."""
    raw_probabilities: tuple[float, ...] = ()
    """The same before the post-filter; empty without one."""
    units: tuple[float, ...] = ()
    """Probability of each action unit in this frame; empty where the method doesn't tell."""
    intensities: tuple[float, ...] = ()
    """Intensity of each action unit, 0 to 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows that are final."""

    windows: tuple[WindowRow, ...]
    frames: tuple[FrameRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a model's tables."""

    classes: tuple[str, ...]
    action_units: tuple[str, ...] = ()
    action_unit_calibration: str = ""
    """See `Method.action_unit_calibration`."""
    post_filter_frames: int = 1
    """See `PostFilter`; more than 1: frames also have their probabilities before it."""
    with_effects: bool = False
    with_features: bool = False
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """See `BatchedNetwork`; empty: probabilities are raw."""
    weights_sha256: str = ""
    """Of the model; kept in the metadata of Parquet tables."""

    @property
    def probabilities(self) -> str:
        """What the columns p_<class> are, in words."""
        if not self.temperatures:
            return _RAW
        told = ", ".join(f"{value:.3g} ({name})" for name, value in self.temperatures.items())
        return (
            f"{CALIBRATED}: softmax of the network's logits divided by {told}, fitted on the "
            "training's validation clips"
        )

    @property
    def window_schema(self) -> pa.Schema:
        """Of the table of windows."""
        return pa.schema(
            [
                ("input", pa.string()),
                ("start_s", pa.float64()),
                ("end_s", pa.float64()),
                ("track", pa.int64()),
                *self._answer_fields(),
                ("faces", pa.float64()),
                ("has_audio", pa.bool_()),
                *((name, pa.float64()) for name in EFFECTS if self.with_effects),
                ("reason", pa.string()),
                *((name, pa.list_(pa.float32())) for name in FEATURES if self.with_features),
            ],
            metadata={
                WEIGHTS_KEY: self.weights_sha256.encode(),
                PROBABILITIES_KEY: self.probabilities.encode(),
            },
        )

    @property
    def frame_schema(self) -> pa.Schema:
        """Of the table of frames."""
        return pa.schema(
            [
                ("input", pa.string()),
                ("frame", pa.int64()),
                ("time_s", pa.float64()),
                ("has_face", pa.bool_()),
                ("track", pa.int64()),
                ("score", pa.float64()),
                *((name, pa.float64()) for name in ("x0", "y0", "x1", "y1")),
                *self._answer_fields(),
                *((f"p_{name}_raw", pa.float64()) for name in self._raw_classes),
                *((unit, pa.float64()) for unit in self.action_units),
                *((f"{unit}_intensity", pa.float64()) for unit in self.action_units),
            ],
            metadata=self._frame_metadata(),
        )

    def _frame_metadata(self) -> dict[bytes, bytes]:
        told = self.probabilities + "; mean of the windows that a frame is in"
        if self._raw_classes:
            told += (
                f"; then the temporal post-filter: mean over {self.post_filter_frames} frames of "
                "the same person (p_<class>_raw: before it)"
            )
        found = {WEIGHTS_KEY: self.weights_sha256.encode(), PROBABILITIES_KEY: told.encode()}
        if self.action_units:
            calibration = self.action_unit_calibration or "the method states none"
            found[UNITS_KEY] = (
                "AU<n>: probability that the unit is present, 0 to 1; calibration: "
                f"{calibration}. AU<n>_intensity: FACS steps, 0 (absent) to 5 (E); null where the "
                "method does not tell."
            ).encode()
        return found

    def of_window(self, row: WindowRow, location: str) -> dict[str, Any]:
        """A row of the table of windows."""
        return {
            "input": location,
            "start_s": row.start_s,
            "end_s": row.end_s,
            "track": row.track,
            **self._answer(row.probabilities),
            "faces": row.faces,
            "has_audio": row.has_audio,
            **{name: getattr(row, name) for name in EFFECTS if self.with_effects},
            "reason": row.reason,
            **{name: getattr(row, name) or None for name in FEATURES if self.with_features},
        }

    def of_frame(self, row: FrameRow, location: str) -> dict[str, Any]:
        """A row of the table of frames."""
        raw = row.raw_probabilities or (None,) * len(self._raw_classes)
        units = dict(zip(self.action_units, row.units, strict=False))
        steps = zip(self.action_units, row.intensities, strict=False)
        return {
            "input": location,
            "frame": row.frame,
            "time_s": row.time_s,
            "has_face": row.has_face,
            "track": row.track,
            "score": row.score,
            **dict(zip(("x0", "y0", "x1", "y1"), row.box or (None,) * 4, strict=True)),
            **self._answer(row.probabilities),
            **dict(zip((f"p_{name}_raw" for name in self._raw_classes), raw, strict=True)),
            **{unit: units.get(unit) for unit in self.action_units},
            **{f"{unit}_intensity": value for unit, value in steps},
        }

    @property
    def _raw_classes(self) -> tuple[str, ...]:
        """Classes whose probabilities before the post-filter have columns."""
        return self.classes if self.post_filter_frames > 1 else ()

    def _answer_fields(self) -> list[tuple[str, pa.DataType]]:
        classes = [(f"p_{name}", pa.float64()) for name in self.classes]
        return [("label", pa.string()), ("probability", pa.float64()), *classes]

    def _answer(self, probabilities: tuple[float, ...]) -> dict[str, Any]:
        label, probability = best(probabilities, self.classes)
        values: Sequence[float | None] = probabilities or (None,) * len(self.classes)
        columns = {f"p_{name}": p for name, p in zip(self.classes, values, strict=True)}
        return {"label": label, "probability": probability, **columns}


def best(probabilities: Sequence[float], classes: Sequence[str]) -> tuple[str | None, float | None]:
    """The most probable class and its probability; None without probabilities."""
    if not probabilities:
        return None, None
    index = max(range(len(probabilities)), key=probabilities.__getitem__)
    return classes[index], probabilities[index]


def is_table(location: str) -> bool:
    """Whether a location is that of a table, by its ending."""
    return location.rpartition(".")[2].lower() in FORMATS


def table_format(location: str) -> str:
    """The format that a location's ending asks for.

    Raises:
        ValueError: another ending.
    """
    if not is_table(location):
        raise ValueError(f"{location}: expected a name that ends in .parquet, .csv or .jsonl")
    return location.rpartition(".")[2].lower()


@contextlib.contextmanager
def table_writer(
    location: str, schema: pa.Schema
) -> Iterator[Callable[[Sequence[dict[str, Any]]], None]]:
    """Takes rows; the table appears at its location, whole, when the block is left without error.

    Raises:
        ValueError: an unknown ending.
        StorageError: the location can't be written.
    """
    ending = table_format(location)
    with tempfile.TemporaryDirectory(prefix="mien-predict-") as folder:
        partial = os.path.join(folder, f"table.{ending}")
        with _opened(partial, ending, schema) as write:
            block: list[dict[str, Any]] = []

            def take(rows: Sequence[dict[str, Any]]) -> None:
                block.extend(rows)
                if len(block) >= _ROWS_AT_ONCE:
                    write(block)
                    block.clear()

            yield take
            if block:
                write(block)
        write_file_atomically(absolute(location), partial)


@contextlib.contextmanager
def _opened(
    path: str, ending: str, schema: pa.Schema
) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    if ending == "jsonl":
        with open(path, "w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row) + "\n" for row in rows)
        return
    maker = pq.ParquetWriter if ending == "parquet" else pyarrow.csv.CSVWriter
    with maker(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
