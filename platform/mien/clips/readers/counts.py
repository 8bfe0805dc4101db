"""Counting what a data set's folder gave beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.readers.reading import Part

Mask = npt.NDArray[np.bool_]


def count_lines(
    table: pa.Table,
    kept: Mask,
    parts: Sequence[Part],
    *,
    unit: str,
    first_left_out: Mapping[int, str],
) -> list[str]:
    """A line for each part, and one for its classes but where a fold's were not published.

    Args:
        table: all rows that a reader found.
        kept: which of them can be used.
        parts: what to count.
        unit: clips, pictures or frames; frames sums num_frames.
        first_left_out: why a row of `table` was left out, for rows that were.
    """
    weights = _weights(table, unit)
    lines = []
    for part in parts:
        members = _members(table, part)
        rows = members & kept
        published = part.published
        total = sum(published.values()) if isinstance(published, Mapping) else published
        line = f"{part.name}: {_beside(int(weights[rows].sum()), total, unit)}"
        left_out = np.flatnonzero(members & ~kept)
        if left_out.size:
            first = first_left_out[int(left_out[0])]
            line += f"; {left_out.size:,} left out, first {first}"
        lines.append(line)
        if isinstance(published, Mapping) or part.split is not None:
            lines += _class_lines(table, rows, published)
    return lines


def _weights(table: pa.Table, unit: str) -> npt.NDArray[np.int64]:
    if unit != "frames":
        return np.ones(len(table), dtype=np.int64)
    return np.asarray(pc.fill_null(pc.cast(table["num_frames"], pa.int64()), 0))


def _members(table: pa.Table, part: Part) -> Mask:
    if part.split is not None:
        return _is(pc.equal(table["split"], part.split))
    if part.test_fold is not None:
        return _is(pc.equal(table["fold"], part.test_fold))
    if part.train_fold is not None:
        return _is(pc.not_equal(table["fold"], part.train_fold))
    return np.ones(len(table), dtype=np.bool_)


def _is(condition: Any) -> Mask:
    return np.asarray(pc.fill_null(condition, False), dtype=np.bool_)


def _beside(found: int, published: int | None, unit: str) -> str:
    if published is None:
        return f"{found:,} {unit}"
    if found == published:
        return f"{found:,} {unit}, as published"
    more = "more" if found > published else "fewer"
    return f"{found:,} of the published {published:,} {unit} ({abs(found - published):,} {more})"


def _class_lines(
    table: pa.Table, rows: Mask, published: int | Mapping[str, int] | None
) -> list[str]:
    if "label" not in table.column_names:
        return []
    counts = pc.value_counts(table["label"].filter(pa.array(rows)).drop_null())
    found = {entry["values"]: entry["counts"] for entry in counts.to_pylist()}
    if not found and not isinstance(published, Mapping):
        return []
    if not isinstance(published, Mapping):
        return [f"  {', '.join(f'{name} {count:,}' for name, count in sorted(found.items()))}"]
    if found == published:
        return [f"  {', '.join(f'{name} {count:,}' for name, count in published.items())}"]
    names = [*published, *sorted(found.keys() - published.keys())]
    return [f"  {', '.join(_class_count(n, found.get(n, 0), published.get(n, 0)) for n in names)}"]


def _class_count(name: str, found: int, published: int) -> str:
    return f"{name} {found:,}" + ("" if found == published else f" (published {published:,})")
