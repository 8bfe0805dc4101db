"""A hash of what a table says, whatever the order of its rows and the way that it is stored."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.row_checks import combined, entry_counts


def content_digest(table: pa.Table, key: str) -> str:
    """SHA-256 (hex) of a table's rows.

    Neither the order of rows and columns nor chunks, integer and float widths, dictionary encoding
    or columns without any value make a difference; every value that is not null does.

    Args:
        table: rows, one for each value of `key`.
        key: a column of unique values, to sort by.
    """
    order = pc.sort_indices(table, sort_keys=[(key, "ascending")])
    digest = hashlib.sha256(str(len(table)).encode())
    for name in sorted(table.column_names):
        column = table[name]
        if column.null_count == len(column):
            continue
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        digest.update(f"\x1f{name}\x1f".encode())
        _feed(digest, combined(_widened(column)).take(order))
    return digest.hexdigest()


def _widened(values: Any) -> Any:
    """Values in the widest type of their kind; only there are equal values equal bytes."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.large_string() if "string" in str(kind) else pa.large_binary())
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and kind != pa.uint64()):
        return values.cast(pa.int64())
    if pa.types.is_floating(kind):
        return values.cast(pa.float64())
    return values


def _feed(digest: Any, values: pa.Array) -> None:
    values = _widened(values)
    kind = values.type
    digest.update(np.asarray(values.is_null()).tobytes())
    if pa.types.is_map(kind):
        _feed_map(digest, values)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        digest.update(entry_counts(values).tobytes())
        _feed(digest, values.flatten())
    elif pa.types.is_struct(kind):
        for field, child in sorted(zip(kind.names, values.flatten(), strict=True), key=_first):
            digest.update(f"\x1f{field}\x1f".encode())
            _feed(digest, child)
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        _feed_text(digest, values)
    elif kind in (pa.int64(), pa.uint64(), pa.float64()):
        digest.update(pc.fill_null(values, 0).to_numpy(zero_copy_only=False).tobytes())
    else:
        # Dates, decimals and other rare guests among the further columns: slower, as exact.
        digest.update(repr(values.to_pylist()).encode())


def _feed_map(digest: Any, maps: pa.MapArray) -> None:
    """A map is the same whatever the order of its entries."""
    counts = entry_counts(maps)
    digest.update(counts.tobytes())
    row_of = pa.array(np.repeat(np.arange(len(maps)), counts))
    start = maps.offsets[0].as_py() if len(maps) else 0
    entries = pa.table(
        {
            "row": row_of,
            "key": maps.keys.slice(start, len(row_of)),
            "item": maps.items.slice(start, len(row_of)),
        }
    )
    by_key = pc.sort_indices(entries, sort_keys=[("row", "ascending"), ("key", "ascending")])
    _feed(digest, combined(entries["key"]).take(by_key))
    _feed(digest, combined(entries["item"]).take(by_key))


def _feed_text(digest: Any, values: pa.Array) -> None:
    values = pc.fill_null(values, b"" if pa.types.is_large_binary(values.type) else "")
    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
    digest.update(lengths.astype(np.int64).tobytes())
    data = values.buffers()[2]
    if data is not None and len(values):
        offsets = np.frombuffer(values.buffers()[1], dtype=np.int64)
        start, stop = offsets[values.offset], offsets[values.offset + len(values)]
        digest.update(memoryview(data)[start:stop])


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]
