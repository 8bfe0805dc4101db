"""Which rows of a model's reference are of which clips, for those who know the clips' ids.

A reference holds features of faces and travels with its model, so no ids are in it; but when a
person is to be forgotten, their rows must be found. Each row has a salted hash of its clip's id:
whoever has the file can try ids, so it is pseudonymous, not anonymous.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_COLUMN = "clip_key"
_SALT_KEY = b"mien.clip_salt"


def with_clip_keys(table: pa.Table, clip_ids: Sequence[str]) -> pa.Table:
    """The table with a key for each row's clip, and the salt, a new one each time."""
    salt = secrets.token_hex(16)
    keyed = table.append_column(_COLUMN, pa.array([_key(salt, clip) for clip in clip_ids]))
    metadata = {**(table.schema.metadata or {}), _SALT_KEY: salt.encode()}
    return keyed.replace_schema_metadata(metadata)


def rows_of_clips(data: bytes, clip_ids: Collection[str]) -> int | None:
    """How many rows of a reference (Parquet) are of these clips; None: it has no keys."""
    is_theirs = _is_of_clips(_table(data), clip_ids)
    return None if is_theirs is None else pc.sum(is_theirs).as_py() or 0


def without_rows_of_clips(data: bytes, clip_ids: Collection[str]) -> bytes:
    """The reference without the rows of these clips; as it is, where it has no keys."""
    table = _table(data)
    is_theirs = _is_of_clips(table, clip_ids)
    if is_theirs is None:
        return data
    buffer = io.BytesIO()
    pq.write_table(table.filter(pc.invert(is_theirs)), buffer)
    return buffer.getvalue()


def _table(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


def _is_of_clips(table: pa.Table, clip_ids: Collection[str]) -> pa.ChunkedArray | None:
    salt = (table.schema.metadata or {}).get(_SALT_KEY)
    if salt is None or _COLUMN not in table.column_names:
        return None
    wanted = pa.array([_key(salt.decode(), clip) for clip in clip_ids], pa.string())
    return pc.is_in(table[_COLUMN], value_set=wanted)


def _key(salt: str, clip_id: str) -> str:
    return hashlib.sha256(f"{salt}:{clip_id}".encode()).hexdigest()
