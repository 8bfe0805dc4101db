"""Recordings that are folders of pictures with action units coded for each picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mien.clips.readers.reading import DatasetError
from mien.clips.readers.tree import Tree
from mien.media.image_folder import DEFAULT_FPS

Codes = Mapping[str, Sequence[float]]
"""Action unit -> value of each frame; NaN where it was not coded."""

OCCURRENCE = "occurrence"
"""Value of the column `au_coding`: 0 absent, 1 present."""
INTENSITY = "intensity"
"""0 absent, 1 to 5 the intensities A to E; from which one on is present is the metric's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedRecording:
    """One recording: its pictures' folder and the codes of some of its frames."""

    folder: str
    """Path below the root."""
    picture_of: Mapping[int, str]
    """Frame number -> name of its picture."""
    codes_of: Mapping[int, Mapping[str, float]]
    """Frame number -> unit -> value; NaN where it was not coded."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its rows: subject_id, fold, split, ..."""


@dataclass(slots=True)
class FrameCounts:
    """Sums over recordings."""

    coded: int = 0
    without_picture: int = 0
    first_without: str = ""

    def notes(self) -> list[str]:
        """What the user should know."""
        if not self.without_picture:
            return []
        return [
            f"{self.without_picture:,} of {self.coded:,} coded frames have no picture, first "
            f"{self.first_without}; they are in no row and are not scored."
        ]


def recording_rows(
    tree: Tree, recording: CodedRecording, window: int | None, counts: FrameCounts
) -> Iterator[dict[str, Any]]:
    """Manifest rows of a recording: one, or one for every `window` consecutive pictures.

    A row begins and ends at a coded picture of the recording; pictures between without codes are
    NaN. Times are those at which a folder of pictures is shown.
    """
    coded = [number for number in recording.codes_of if number in recording.picture_of]
    lacking = [number for number in recording.codes_of if number not in recording.picture_of]
    counts.coded += len(recording.codes_of)
    counts.without_picture += len(lacking)
    if lacking and not counts.first_without:
        counts.first_without = f"frame {min(lacking)} of {recording.folder}"
    if not coded:
        return
    pictures = tree.pictures(recording.folder)
    number_of = {name: number for number, name in recording.picture_of.items()}
    numbers = [number_of.get(name) for name in pictures]
    positions = [n for n, number in enumerate(numbers) if number in recording.codes_of]
    begin, end = positions[0], positions[-1] + 1
    step = window or end - begin
    for start in range(begin, end, step):
        stop = min(start + step, end)
        yield _row(tree, recording, numbers[start:stop], start, stop, len(pictures))


def _row(
    tree: Tree,
    recording: CodedRecording,
    numbers: Sequence[int | None],
    start: int,
    stop: int,
    num_pictures: int,
) -> dict[str, Any]:
    is_whole = start == 0 and stop == num_pictures
    units = sorted({u for codes in recording.codes_of.values() for u in codes}, key=_unit_number)
    frames = [recording.codes_of.get(n, {}) if n is not None else {} for n in numbers]
    return {
        "clip_id": recording.folder if is_whole else f"{recording.folder}#{start}-{stop}",
        "uri": tree.uri(recording.folder),
        "start_s": None if is_whole else start / DEFAULT_FPS,
        "end_s": None if is_whole else stop / DEFAULT_FPS,
        "num_frames": stop - start,
        "action_units": {unit: [f.get(unit, math.nan) for f in frames] for unit in units},
        **recording.columns,
    }


def _unit_number(unit: str) -> int:
    return int(unit.removeprefix("AU"))


def code(text: str, missing: frozenset[int], highest: int, where: str) -> float:
    """The value of a cell; NaN for a code that stands for missing.

    Raises:
        DatasetError: neither a code from 0 to `highest` nor one for missing.
    """
    try:
        value = int(float(text))
    except ValueError:
        value = -(10**6)
    if value in missing:
        return math.nan
    if not 0 <= value <= highest:
        raise DatasetError(
            f"{where}: {text!r} is no code; expected 0 to {highest}, or "
            f"{', '.join(map(str, sorted(missing)))} for not coded"
        )
    return float(value)


def csv_table(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a comma-separated text, without blank lines."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    return (rows[0], rows[1:]) if rows else ([], [])
