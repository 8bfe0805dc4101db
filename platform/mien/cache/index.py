"""What is in a shard, in a small file beside it that is written last: no index, no shard.

The file is Parquet, named by the SHA-256 of its bytes; the settings that its entries were made with
and the shard's name stand in its metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from mien.cache.errors import CacheError
from mien.cache.settings import CacheSettings

_SETTINGS, _DIGEST, _SHARD = b"mien.settings", b"mien.settings_digest", b"mien.shard"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One clip of a cache, or what was wrong with it."""

    clip_id: str
    clip: str
    """`clip_digest` of the reference."""
    content: str
    """`content_stamps` of its files when they were read."""
    row: int | None
    """Row group of the shard; None: the clip could not be decoded."""
    num_frames: int
    size_bytes: int
    reason: str | None = None
    """Of the `ClipError`."""
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """The entries of one shard."""

    settings: CacheSettings
    settings_digest: str
    """As it was when the shard was made: another version of Mien may make other crops."""
    shard: str | None
    """File name; None where no clip could be decoded."""
    entries: tuple[Entry, ...]


_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("clip", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("row", pa.int32()),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)
assert _SCHEMA.names == [field.name for field in fields(Entry)]


def index_bytes(
    settings: CacheSettings, settings_digest: str, shard: str | None, entries: Sequence[Entry]
) -> bytes:
    """The index file of a shard."""
    about = {_SETTINGS: settings.to_json(), _DIGEST: settings_digest, _SHARD: shard or ""}
    table = pa.Table.from_pylist([asdict(entry) for entry in entries], _SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(about), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def index_name(data: bytes) -> str:
    """The name that an index file with these bytes has."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"


def parse_index(data: bytes, location: str) -> Index:
    """The entries in an index file.

    Raises:
        CacheError: it is damaged, or another program's.
    """
    if index_name(data) != location.rsplit("/", 1)[-1]:
        raise CacheError(
            f"{location} is damaged: its content is not what its name says. What it lists is made "
            f"anew; `mien cache prune` removes it."
        )
    try:
        table = pq.read_table(pa.BufferReader(data))
        about = table.schema.metadata
        return Index(
            settings=CacheSettings.from_json(about[_SETTINGS].decode()),
            settings_digest=about[_DIGEST].decode(),
            shard=about[_SHARD].decode() or None,
            entries=tuple(Entry(**row) for row in table.to_pylist()),
        )
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CacheError(
            f"{location} was written by another version of Mien ({error}); `mien cache prune` "
            "removes it"
        ) from error
