"""What must hold for the rows of a manifest; whole columns at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.schema import ManifestError

SHARES_TOLERANCE = 1e-3
"""How far the shares of a soft label may be from 1: they may be percentages that were rounded."""
MAX_INTENSITY = 5.0
"""FACS intensities A to E are 1 to 5; 0 is absent."""
NAMED = 5
"""Offenders that an error names; the rest is counted."""


def check_rows(table: pa.Table) -> None:
    """Check a table that has the columns of `SCHEMA`.

    Raises:
        ManifestError: empty or doubled clip ids, empty places, impossible times, soft labels that
            do not sum to 1, intensities outside of [0, 5], face boxes that are none.
    """
    _check_ids(table)
    for name in ("uri", "audio_uri", "subject_id", "source", "label", "split", "licence"):
        _check_text(table, name, may_be_null=name != "uri")
    _check_times(table)
    _check_soft_labels(table)
    _check_action_units(table)
    _check_face_boxes(table)


def _fail_where(
    table: pa.Table, is_bad: Any, describe: Callable[[dict[str, Any]], str], advice: str
) -> None:
    """Raise about the rows where `is_bad` holds (null: not bad)."""
    rows = np.flatnonzero(np.asarray(pc.fill_null(is_bad, False)))
    if rows.size == 0:
        return
    named = table.take(pa.array(rows[:NAMED])).to_pylist(maps_as_pydicts="lossy")
    listed = "; ".join(describe(row) for row in named)
    more = f" and {rows.size - NAMED} more" if rows.size > NAMED else ""
    raise ManifestError(f"{listed}{more}. {advice}")


def _check_ids(table: pa.Table) -> None:
    ids = table["clip_id"]
    is_empty = pc.or_kleene(pc.is_null(ids), pc.equal(pc.utf8_trim_whitespace(ids), ""))
    _fail_where(
        table,
        is_empty,
        lambda row: f"no clip_id for the clip at {row['uri']!r}",
        "Give every row a clip_id of its own",
    )
    counts = pc.value_counts(ids)
    if len(counts) == len(ids):
        return
    doubled = counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    listed = ", ".join(f"{d['values']!r} ({d['counts']} rows)" for d in doubled[:NAMED])
    more = f" and {len(doubled) - NAMED} more" if len(doubled) > NAMED else ""
    raise ManifestError(
        f"clip ids given more than once: {listed}{more}. Each row needs a clip_id of its own"
    )


def _check_text(table: pa.Table, name: str, *, may_be_null: bool) -> None:
    is_bad = pc.equal(pc.utf8_trim_whitespace(table[name]), "")
    if not may_be_null:
        is_bad = pc.or_kleene(is_bad, pc.is_null(table[name]))
    _fail_where(
        table,
        is_bad,
        lambda row: f"clip {row['clip_id']!r} has an empty {name}",
        "Leave out (null) what is not known" if may_be_null else "Every clip needs one",
    )


def _check_times(table: pa.Table) -> None:
    start, end = table["start_s"], table["end_s"]
    is_bad = pc.invert(pc.is_finite(start))
    is_bad = pc.or_kleene(is_bad, pc.less(start, 0.0))
    is_bad = pc.or_kleene(is_bad, pc.invert(pc.is_finite(end)))
    is_bad = pc.or_kleene(is_bad, pc.less_equal(end, pc.fill_null(start, 0.0)))
    _fail_where(
        table,
        is_bad,
        lambda row: f"clip {row['clip_id']!r}: start_s={row['start_s']}, end_s={row['end_s']}",
        "Expected 0 <= start_s < end_s, in seconds",
    )
    _fail_where(
        table,
        pc.less(table["num_frames"], 1),
        lambda row: f"clip {row['clip_id']!r} has num_frames={row['num_frames']}",
        "Expected at least 1, or null where it is not known",
    )


def _check_soft_labels(table: pa.Table) -> None:
    maps = combined(table["soft_label"])
    lengths = entry_counts(maps)
    shares = maps.items.to_numpy(zero_copy_only=False).astype(np.float64)
    first = maps.offsets[0].as_py() if len(maps) else 0
    shares = shares[first : first + int(lengths.sum())]
    row_of = np.repeat(np.arange(len(maps)), lengths)
    sums = np.bincount(row_of, weights=shares, minlength=len(maps))
    has_negative = np.bincount(row_of, weights=shares < 0, minlength=len(maps)) > 0
    # A missing share is NaN here, so that its sum is not close to 1 either.
    is_bad = ~(np.abs(sums - 1) <= SHARES_TOLERANCE) | has_negative
    is_bad &= np.asarray(maps.is_valid())
    _fail_where(
        table,
        pa.array(is_bad),
        lambda row: f"clip {row['clip_id']!r} has soft_label {row['soft_label']}",
        "The shares of a soft label must be 0 or more and sum to 1",
    )


def _check_action_units(table: pa.Table) -> None:
    maps = combined(table["action_units"])
    intensities = pc.list_flatten(maps.items)
    if len(intensities) == 0:
        return
    bounds = pc.min_max(intensities).as_py()
    if bounds["min"] is None or (bounds["min"] >= 0 and bounds["max"] <= MAX_INTENSITY):
        return
    for clip_id, units in zip(table["clip_id"], maps, strict=True):
        for unit, values in units.as_py() or ():
            # Written so that NaN passes.
            wrong = [v for v in values or () if v is not None and (v < 0 or v > MAX_INTENSITY)]
            if wrong:
                raise ManifestError(
                    f"clip {clip_id.as_py()!r} has intensity {wrong[0]} for {unit}; action units "
                    "are coded from 0 (absent) to 5 (E), NaN where they were not coded"
                )


def _check_face_boxes(table: pa.Table) -> None:
    boxes = combined(table["face_box"])
    has_four = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(boxes), 4), False))
    corners_N4 = np.full((len(boxes), 4), np.nan)
    whole = boxes.filter(pa.array(has_four))
    corners_N4[has_four] = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    is_box = np.isfinite(corners_N4).all(1) & (corners_N4[:, :2] < corners_N4[:, 2:]).all(1)
    _fail_where(
        table,
        pa.array(~is_box & np.asarray(boxes.is_valid())),
        lambda row: f"clip {row['clip_id']!r} has face_box {row['face_box']}",
        "Expected four numbers x0 < x1, y0 < y1 in the order x0, y0, x1, y1",
    )


def combined(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def entry_counts(maps: pa.MapArray) -> npt.NDArray[np.int64]:
    """How many entries each map or list has; 0 for null."""
    offsets = np.asarray(maps.offsets).astype(np.int64)
    return np.where(np.asarray(maps.is_valid()), np.diff(offsets), 0)
