"""Scores of parts of the clips: by age, skin, source, light, duration, sound ...

Numbers with many values become thirds of equal size; colours (``#6a4638``) become their lightness.
A part with few clips or people is listed, but not named as the worst one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mien.clips.manifest import Manifest
from mien.clips.schema import unknown_column
from mien.evaluate.bootstrap import Interval, mean_interval
from mien.evaluate.metrics import score_logits
from mien.evaluate.predictions import Predictions

USUAL_COLUMNS = (
    *("source", "sex", "gender", "age", "skin", "ancestry", "ethnicity", "duration_s"),
    *("light", "light_intensity", "exposure", "yaw_deg", "face_height", "fps", "scene"),
)
"""Columns that are looked at where nobody says which, if a manifest has them.

``duration_s`` and ``face_height`` are worked out from cut and frame rate, and from ``face_box``.
"""
MEASURED = ("has_audio", "face_share")
"""Columns of predictions that slice every scorecard."""
MAX_NAMES = 20
"""Different texts of a column that is still a division into parts."""
_MANY_NUMBERS = 8
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceRules:
    """What a slice needs to be judged by."""

    min_clips: int = 10
    min_people: int = 3
    """Not asked of clips whose people are unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Scores of the clips that share one value of a manifest column."""

    column: str
    value: str
    num_clips: int
    num_people: int | None
    """None where people are unknown."""
    uar: float
    war: float
    war_interval: Interval | None
    """95 % bootstrap over people; None with fewer than two of them."""
    is_large: bool
    """Has enough clips and people to be judged by."""


def slice_values(
    manifest: Manifest, columns: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """By column, the value of each clip id.

    Args:
        manifest: the clips.
        columns: which; None: those of ``USUAL_COLUMNS`` that the manifest has and that divide it.

    Raises:
        ManifestError: no such column.
        ValueError: a column of texts with too many different values.
    """
    clip_ids = manifest.column("clip_id")
    names = set(manifest.table.column_names)
    found: dict[str, dict[str, Any]] = {}
    for column in USUAL_COLUMNS if columns is None else columns:
        values = _values(manifest, column, names)
        if values is None:
            if columns is not None:
                raise unknown_column(column, [*manifest.table.column_names, *_WORKED_OUT])
            continue
        problem = _why_no_division(column, values)
        if problem is None:
            found[column] = dict(zip(clip_ids, values, strict=True))
        elif columns is not None:
            raise ValueError(problem)
    return found


def make_slices(
    part: Predictions, by_column: Mapping[str, Mapping[str, Any]], rules: SliceRules
) -> tuple[Slice, ...]:
    """Scores of every slice of labelled predictions of one modality."""
    clip_ids = part.column("clip_id").tolist()
    measured = {
        name: dict(zip(clip_ids, part.table[name].to_pylist(), strict=True))
        for name in MEASURED
        if part.table[name].null_count < len(part)
    }
    found: list[Slice] = []
    for column, by_clip in {**by_column, **measured}.items():
        masks = slice_masks([by_clip.get(clip_id) for clip_id in clip_ids])
        if len(masks) < 2 and column in MEASURED:
            continue  # every clip has sound: no division
        found += [_score_slice(part, column, value, rows, rules) for value, rows in masks.items()]
    return tuple(found)


def slice_masks(values: Sequence[Any]) -> dict[str, Mask]:
    """Rows of each value, by name and in order; many different numbers become their thirds."""
    known_N = np.asarray([value is not None for value in values])
    present = [value for value in values if value is not None]
    are_numbers = bool(present) and all(_is_number(value) for value in present)
    if not are_numbers or len(set(present)) <= _MANY_NUMBERS:
        masks = {
            _shown(value): np.asarray([other == value for other in values])
            for value in sorted(set(present), key=lambda v: v if are_numbers else str(v))
        }
    else:
        low, high = np.quantile(np.asarray(present, dtype=np.float64), [1 / 3, 2 / 3])
        numbers_N = np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
        masks = {
            f"below {low:.3g}": numbers_N < low,
            f"{low:.3g} to {high:.3g}": (numbers_N >= low) & (numbers_N < high),
            f"from {high:.3g}": numbers_N >= high,
        }
    masks["unknown"] = ~known_N
    return {name: mask for name, mask in masks.items() if mask.any()}


def is_large(people: Sequence[str | None], rules: SliceRules) -> bool:
    """Whether clips of these people are enough to be judged by."""
    enough_people = None in people or len(set(people)) >= rules.min_people
    return len(people) >= rules.min_clips and enough_people


def _score_slice(
    part: Predictions, column: str, value: str, rows: Mask, rules: SliceRules
) -> Slice:
    true_N, predicted_N = part.column("true_index")[rows], part.column("predicted_index")[rows]
    people = part.column("subject_id")[rows].tolist()
    scores = score_logits(part.column("logits")[rows], true_N, part.label_set.classes)
    knows_people = None not in people
    interval = None
    if knows_people and len(set(people)) > 1:
        interval = mean_interval(true_N == predicted_N, np.asarray(people))
    return Slice(
        column=column,
        value=value,
        num_clips=scores.num_clips,
        num_people=len(set(people)) if knows_people else None,
        uar=scores.uar,
        war=scores.war,
        war_interval=interval,
        is_large=is_large(people, rules),
    )


def _values(manifest: Manifest, column: str, names: set[str]) -> list[Any] | None:
    if column in names:
        return [_lightness(value) for value in manifest.column(column)]
    if column in _WORKED_OUT:
        values = _WORKED_OUT[column](manifest)
        return None if all(value is None for value in values) else values
    return None


def _durations(manifest: Manifest) -> list[float | None]:
    starts, ends = manifest.column("start_s"), manifest.column("end_s")
    frames = manifest.column("num_frames")
    rates = manifest.column("fps") if "fps" in manifest.table.column_names else [None] * len(frames)
    return [
        end - (start or 0.0) if end is not None else count / rate if count and rate else None
        for start, end, count, rate in zip(starts, ends, frames, rates, strict=True)
    ]


def _face_heights(manifest: Manifest) -> list[float | None]:
    return [None if box is None else box[3] - box[1] for box in manifest.column("face_box")]


_WORKED_OUT = {"duration_s": _durations, "face_height": _face_heights}


def _lightness(value: Any) -> Any:
    """CIE lightness (0-100) of a colour; anything else as it is."""
    if not (isinstance(value, str) and _COLOUR.fullmatch(value)):
        return value
    red_green_blue = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    pixel = np.asarray([[red_green_blue]], dtype=np.float32)
    return float(cv2.cvtColor(pixel, cv2.COLOR_RGB2Lab)[0, 0, 0])


def _why_no_division(column: str, values: Sequence[Any]) -> str | None:
    present = {
        value for value in values if value is not None and not isinstance(value, list | dict)
    }
    if not present:
        return f"column {column} holds no plain values; it can't divide the clips"
    if len(present) == 1:
        return f"column {column} is {next(iter(present))!r} for all clips; it divides nothing"
    if len(present) > MAX_NAMES and not all(_is_number(value) for value in present):
        return (
            f"column {column} holds {len(present)} different texts; slices need at most "
            f"{MAX_NAMES}: add a coarser column to the manifest"
        )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
