"""The columns of a manifest, and how rows or a foreign table are brought into them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa


class ManifestError(ValueError):
    """A manifest that cannot be read or written, or whose rows cannot be right."""


SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("audio_uri", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("num_frames", pa.int32()),
        pa.field("subject_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("label", pa.string()),
        pa.field("soft_label", pa.map_(pa.string(), pa.float32())),
        pa.field("action_units", pa.map_(pa.string(), pa.list_(pa.float32()))),
        pa.field("fold", pa.int32()),
        pa.field("split", pa.string()),
        pa.field("face_box", pa.list_(pa.float32())),
        pa.field("consent", pa.bool_(), nullable=False),
        pa.field("licence", pa.string()),
    ]
)
"""Columns that Mien knows. Further columns are kept as they are.

``soft_label`` is class name -> share (shares sum to 1); ``action_units`` is unit -> intensity of
each frame, 0-5; ``face_box`` is x0, y0, x1, y1 of the subject's face, in pixels of the upright
picture or, where all four are at most 1, in shares of its sides. A manifest without the column
``consent`` consents to everything; an empty cell in that column is no consent. ``licence`` says
what the clip may be used for, best as an SPDX identifier (``CC-BY-4.0``).
"""

REQUIRED = ("clip_id", "uri")

_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def conform(table: pa.Table) -> pa.Table:
    """The table with all of `SCHEMA`'s columns, in its order and types, then the further ones.

    Raises:
        ManifestError: a required column is missing, or a column has another type.
    """
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise ManifestError(
            f"no column {' and no column '.join(missing)}; a manifest needs "
            f"{' and '.join(REQUIRED)}, this table has: {', '.join(table.column_names) or 'none'}"
        )
    twice = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if twice:
        raise ManifestError(f"columns given twice: {', '.join(twice)}")
    columns = {field.name: _known_column(table, field) for field in SCHEMA}
    extras = [name for name in table.column_names if name not in columns]
    columns |= {name: table[name] for name in extras}
    return pa.table(columns).combine_chunks()


def _known_column(table: pa.Table, field: pa.Field) -> Any:
    if field.name not in table.column_names:
        if field.name == "consent":
            return pa.repeat(pa.scalar(True), len(table))
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    if field.name == "label" and pa.types.is_integer(_value_type(column.type)):
        raise ManifestError(
            f"column label holds numbers ({column.type}); manifests hold class names, because the "
            "order of classes differs between data sets. Replace each number by its class's name"
        )
    try:
        column = column.cast(field.type)
    except _ARROW_ERRORS as error:
        raise ManifestError(
            f"column {field.name} must be {field.type}, is {column.type}: {error}"
        ) from error
    return column.fill_null(False) if field.name == "consent" else column


def _value_type(type_: Any) -> Any:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def table_from_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """One table row for each mapping; a key that a row lacks is null there.

    Raises:
        ManifestError: a value that its column cannot hold; names column and clip.
    """
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    types = {field.name: field.type for field in SCHEMA}
    if not rows:
        return SCHEMA.empty_table()
    return pa.table({name: _column(name, rows, types.get(name)) for name in names})


def _column(name: str, rows: Sequence[Mapping[str, Any]], type_: Any) -> pa.Array:
    values = [row.get(name) for row in rows]
    is_map = type_ is not None and pa.types.is_map(type_)
    try:
        # Sorted, so that equal mappings become equal bytes in the file.
        return pa.array([_entries(v) for v in values] if is_map else values, type_)
    except _ARROW_ERRORS as error:
        clip, value = _culprit(rows, name, type_)
        raise ManifestError(
            f"column {name} must be {type_ or 'of one type'}; clip {clip!r} has {value!r:.200}: "
            f"{error}"
        ) from error


def _entries(value: Any) -> Any:
    if value is None:
        return None
    return sorted((value if isinstance(value, Mapping) else dict(value)).items())


def _culprit(rows: Sequence[Mapping[str, Any]], name: str, type_: Any) -> tuple[Any, Any]:
    """The clip id and value of the first row which does not fit its column."""
    for row in rows:
        value = row.get(name)
        try:
            is_map = type_ is not None and pa.types.is_map(type_)
            pa.array([_entries(value) if is_map else value], type_)
        except _ARROW_ERRORS:
            return row.get("clip_id"), value
    return rows[0].get("clip_id"), rows[0].get(name)


def unknown_column(name: str, columns: Sequence[str]) -> ManifestError:
    """The error for a column that is not there; names the nearest one."""
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ManifestError(f"no column {name!r}.{hint} There are: {', '.join(columns)}")
