"""Taking a person's rows out of a manifest's file; every other row stays as it is, bit by bit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mien.clips.content import content_digest
from mien.clips.forget.person import is_of
from mien.clips.schema import ManifestError
from mien.media.storage import read_bytes, write_bytes_atomically


def remove_person(uri: str, name: str) -> int:
    """Rewrites a manifest without a person's rows, whole or not at all.

    Columns, types and metadata stay; what would be written is read back and compared before the old
    file is replaced.

    Returns:
        The number of rows that were removed; 0 leaves the file untouched.

    Raises:
        ManifestError: what was written is not what should be.
        StorageError: the place can't be read or written.
    """
    table = _read(read_bytes(uri))
    is_theirs = is_of(table["subject_id"], name)
    removed: int = pc.sum(is_theirs).as_py() or 0
    if not removed:
        return 0
    kept = _without_unused_names(table.filter(pc.invert(is_theirs)))
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    if not _is_same(_read(data), kept) or mentions(_read(data), name):
        raise ManifestError(f"{uri} could not be written without change; it is as it was")
    write_bytes_atomically(uri, data)
    return removed


def rows_left(uri: str, name: str) -> int:
    """Reads a manifest anew and counts a person's rows in it."""
    return mentions(_read(read_bytes(uri)), name)


def mentions(table: pa.Table, name: str) -> int:
    """Rows of a person, or 1 if their name is only left in a column's dictionary."""
    column = table["subject_id"]
    rows: int = pc.sum(is_of(column, name)).as_py() or 0
    if not rows and pa.types.is_dictionary(column.type):
        return int(any(name in chunk.dictionary.to_pylist() for chunk in column.chunks))
    return rows


def _read(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


def _without_unused_names(table: pa.Table) -> pa.Table:
    """The table with dictionaries that hold only what its rows use.

    Filtering leaves the removed person's name in a column's dictionary, and so in the file.
    """
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table[field.name].cast(field.type.value_type)
            table = table.set_column(number, field, _encoded(plain, field.type))
    return table


def _encoded(column: pa.ChunkedArray, kind: Any) -> pa.Array:
    return column.combine_chunks().dictionary_encode().cast(kind)


def _is_same(one: pa.Table, other: pa.Table) -> bool:
    """Same schema, same order, same values; NaN is like NaN."""
    return bool(
        one.schema.equals(other.schema, check_metadata=True)
        and one["clip_id"].equals(other["clip_id"])
        and content_digest(one, "clip_id") == content_digest(other, "clip_id")
    )
