"""The columns of a manifest, their types, and the checks that every manifest passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SOFT_LABEL_TOLERANCE = 1e-3
"""Soft labels are stored as float32 and often rounded by hand; they must sum to 1 within this."""

MANIFEST_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("audio_uri", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("num_frames", pa.int32()),
        ("subject_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.string()),
        ("soft_label", pa.map_(pa.string(), pa.float32())),
        ("action_units", pa.map_(pa.string(), pa.list_(pa.float32()))),
        ("fold", pa.int32()),
        ("split", pa.string()),
        ("consent", pa.bool_()),
    ]
)
"""Known columns. Any other column is kept as it is: nuisances, attributes to slice results by."""

REQUIRED_COLUMNS = ("clip_id", "uri")


class ManifestError(ValueError):
    """A manifest that cannot be read or is not one: what is wrong and what to do about it."""


def naming(values: Iterable[Any], limit: int = 5) -> str:
    """The first few values as text, with the number of the others."""
    listed = [repr(v) for v in values]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def table_from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of plain Python values to a table with the schema's types; other columns inferred.

    Raises:
        ManifestError: a value that does not fit its column.
    """
    names = dict.fromkeys(MANIFEST_SCHEMA.names)
    for row in rows:
        names.update(dict.fromkeys(row))
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        known = name in MANIFEST_SCHEMA.names
        if name == "consent" and not any(name in row for row in rows):
            values = [True] * len(rows)
        kind = MANIFEST_SCHEMA.field(name).type if known else None
        columns[name] = _array(name, values, kind)
    return pa.table(columns)


def _array(name: str, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None and pa.types.is_map(kind):
        # Sorted, so that the order in which somebody filled a dict is not part of the data.
        values = [None if v is None else sorted(dict(v).items()) for v in values]
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
        wanted = f"expected {kind}" if kind is not None else "expected one type in all rows"
        raise ManifestError(f"manifest column {name!r}: {wanted}, but {error}") from error


def normalised(table: pa.Table) -> pa.Table:
    """The same rows with the schema's columns first, in its types; absent ones are null.

    An absent `consent` column means that the data set does not restrict use: all True.

    Raises:
        ManifestError: no `clip_id` or `uri` column, or a column of an unusable type.
    """
    missing = [name for name in REQUIRED_COLUMNS if name not in table.column_names]
    if missing:
        raise ManifestError(
            f"manifest without the column(s) {', '.join(missing)}; it has: "
            f"{', '.join(table.column_names)}. A manifest needs at least clip_id and uri; "
            "`mien ingest` makes one from a folder or a CSV."
        )
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise ManifestError(f"manifest with the same column twice: {naming(twice)}")
    columns = {f.name: _column(table, f) for f in MANIFEST_SCHEMA}
    extras = [name for name in table.column_names if name not in columns]
    return pa.table(columns | {name: table.column(name) for name in extras})


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        if field.name == "consent":
            return pa.array(np.ones(len(table), dtype=np.bool_))
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ManifestError(
            f"manifest column {field.name!r} is {column.type}, expected {field.type}: {error}"
        ) from error


def check(table: pa.Table) -> None:
    """Check a normalised table.

    Raises:
        ManifestError: names the clips (or row numbers) that are wrong, and what was expected.
    """
    for name in REQUIRED_COLUMNS:
        _check_filled(table, name)
    _check_unique(table)
    _check_times(table)
    _check_counts(table)
    _check_soft_labels(table)
    _check_action_units(table)


def _check_filled(table: pa.Table, name: str) -> None:
    column = table.column(name)
    empty = pc.or_kleene(pc.is_null(column), pc.equal(pc.utf8_trim_whitespace(column), ""))
    rows = np.flatnonzero(pc.fill_null(empty, True).to_numpy(zero_copy_only=False))
    if len(rows):
        raise ManifestError(
            f"manifest column {name!r} is empty in row(s) {naming(rows.tolist())} (counted from "
            "0); every clip needs one"
        )


def _check_unique(table: pa.Table) -> None:
    counted = pc.value_counts(table.column("clip_id"))
    twice = counted.filter(pc.greater(counted.field("counts"), 1)).field("values").to_pylist()
    if twice:
        raise ManifestError(
            f"duplicate clip id(s) in the manifest: {naming(sorted(twice))}. Clip ids must be "
            "unique; add the folder or a number to them."
        )


def _bad_clips(table: pa.Table, is_bad: pa.ChunkedArray) -> list[str]:
    clips: list[str] = table.column("clip_id").filter(pc.fill_null(is_bad, False)).to_pylist()
    return clips


def _check_times(table: pa.Table) -> None:
    start, end = table.column("start_s"), table.column("end_s")
    negative = _bad_clips(table, pc.less(start, 0.0))
    if negative:
        raise ManifestError(f"start_s is negative in clip(s) {naming(negative)}; expected >= 0")
    backwards = _bad_clips(table, pc.less_equal(end, pc.fill_null(start, 0.0)))
    if backwards:
        raise ManifestError(
            f"end_s is not after start_s in clip(s) {naming(backwards)}; both are seconds from the "
            "start of the file; leave them null for the whole file"
        )


def _check_counts(table: pa.Table) -> None:
    bad = _bad_clips(table, pc.less(table.column("num_frames"), 1))
    if bad:
        raise ManifestError(f"num_frames is less than 1 in clip(s) {naming(bad)}; leave it null")


def _check_soft_labels(table: pa.Table) -> None:
    column = table.column("soft_label")
    if column.null_count == len(column):
        return
    bad = {}
    for clip_id, pairs in zip(table.column("clip_id").to_pylist(), column.to_pylist(), strict=True):
        if pairs is None:
            continue
        shares = [share for _, share in pairs]
        off = any(s is None for s in shares) or abs(sum(shares) - 1) > SOFT_LABEL_TOLERANCE
        if off or min(shares) < 0:
            bad[clip_id] = dict(pairs)
    if bad:
        first = next(iter(bad.items()))
        raise ManifestError(
            f"soft labels must be >= 0 and sum to 1 (within {SOFT_LABEL_TOLERANCE}); not so in "
            f"clip(s) {naming(bad)}, e.g. {first[0]!r}: {first[1]}. Divide by their sum, or leave "
            "them null."
        )


def _check_action_units(table: pa.Table) -> None:
    column = table.column("action_units").combine_chunks()
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for chunk in chunks:
        values = pc.list_flatten(chunk.items)
        if len(values) == 0:
            continue
        low, high = pc.min_max(values).as_py().values()
        if low is not None and (low < 0 or high > 5):
            raise ManifestError(
                f"action unit intensities are 0 to 5 (FACS A-E = 1-5), found {low:g} to {high:g}; "
                "store uncoded units by leaving them out"
            )
