"""The manifest: one row a clip, in one Parquet file, on a disk or in a bucket.

A `Manifest` never changes; `filter`, `by_ids` and `with_column` give new ones that share memory.
Relative uris are kept relative to the manifest's folder (its *base*), so a data set can be moved as
a whole; `ClipRef.uri` is always resolved.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mien.clips.schema import (
    MANIFEST_SCHEMA,
    ManifestError,
    check,
    naming,
    normalised,
    table_from_rows,
)
from mien.media import storage

__all__ = ["MANIFEST_SCHEMA", "ClipRef", "Manifest", "ManifestError"]

FILE_NAME = "manifest.parquet"
"""Looked for where a folder is given instead of a file."""

_HASH_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRef:
    """One clip by reference: where its bytes are, which part of them, and what is known of it."""

    clip_id: str
    uri: str
    """Video file or folder of frames; absolute."""
    audio_uri: str | None = None
    """Sound, where it is not in the video file; absolute."""
    start_s: float | None = None
    """First second of the clip within the file; None: from its start."""
    end_s: float | None = None
    """End of the clip within the file, exclusive; None: to its end."""
    num_frames: int | None = None
    subject_id: str | None = None
    """The person; None where unknown."""
    source: str | None = None
    """Where the clip comes from: a film, a video, a session."""
    label: str | None = None
    """Class name; None: unlabelled."""
    soft_label: Mapping[str, float] | None = None
    """Share of each class name, summing to 1."""
    fold: int | None = None
    split: str | None = None
    consent: bool | None = True
    """False or None: not to be used; `Manifest.consented` leaves such clips out."""


_REF_COLUMNS = tuple(ClipRef.__dataclass_fields__)


class Manifest:
    """An immutable table of clips."""

    __slots__ = ("_base", "_rows_by_id", "_table")

    def __init__(self, table: pa.Table, base: str | None = None) -> None:
        """Take a table; `base` is the folder that its relative uris are resolved against.

        Raises:
            ManifestError: missing columns, duplicate or empty ids, impossible times, soft labels
                that do not sum to 1, action units outside of 0-5.
        """
        self._table: pa.Table = normalised(table)
        self._base = None if base is None else storage.absolute(base)
        self._rows_by_id: dict[str, int] | None = None
        check(self._table)

    @classmethod
    def _trusted(cls, table: pa.Table, base: str | None) -> Manifest:
        """Rows of a manifest that was checked already."""
        self = cls.__new__(cls)
        self._table, self._base, self._rows_by_id = table, base, None
        return self

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], base: str | None = None) -> Manifest:
        """Build a manifest from one mapping a clip; keys that are no schema column become extras.

        Raises:
            ManifestError: as for `Manifest(...)`, or a value that does not fit its column.
        """
        return cls(table_from_rows(rows), base)

    @classmethod
    def read(cls, uri: str) -> Manifest:
        """Read a manifest from a local path or any fsspec uri; a folder means its manifest.parquet.

        Raises:
            ManifestError: unreachable, not a Parquet file, or not a valid manifest.
        """
        uri = str(uri)
        try:
            if storage.is_folder(uri):
                uri = storage.join(uri, FILE_NAME)
            data = storage.read_bytes(uri)
        except storage.StorageError as error:
            raise ManifestError(f"cannot read the manifest: {error}") from error
        try:
            table = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowInvalid, OSError) as error:
            raise ManifestError(
                f"{uri} is not a Parquet file ({len(data)} bytes): {error}. A manifest is written "
                "by `mien ingest`, which also reads CSV files."
            ) from error
        try:
            return cls(table, storage.parent(uri))
        except ManifestError as error:
            raise ManifestError(f"{uri}: {error}") from error

    def write(self, uri: str) -> Manifest:
        """Write the manifest, whole or not at all, and return it as it reads from there.

        Uris that lie below the new folder are stored relative to it, all others absolute.

        Raises:
            ManifestError: the place cannot be written.
        """
        uri = str(uri)
        moved = self._rebased(storage.parent(uri))
        sink = pa.BufferOutputStream()
        pq.write_table(moved.table, sink, compression="zstd")
        try:
            storage.write_bytes_atomically(uri, sink.getvalue().to_pybytes())
        except (storage.StorageError, OSError) as error:
            raise ManifestError(f"cannot write the manifest to {uri}: {error}") from error
        return moved

    def _rebased(self, folder: str) -> Manifest:
        if self._base is None or self._base == folder:
            return Manifest._trusted(self._table, folder)
        table = self._table
        for name in ("uri", "audio_uri"):
            values = [
                None if v is None else storage.relative_to(storage.join(self._base, v), folder)
                for v in table.column(name).to_pylist()
            ]
            position = table.column_names.index(name)
            table = table.set_column(position, name, pa.array(values, pa.string()))
        return Manifest._trusted(table, folder)

    @property
    def table(self) -> pa.Table:
        """All columns, the schema's first; uris as stored."""
        return self._table

    @property
    def base(self) -> str | None:
        """The folder that relative uris are resolved against."""
        return self._base

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names that occur, sorted."""
        return self._distinct("label")

    @property
    def subjects(self) -> tuple[str, ...]:
        """The people that occur, sorted."""
        return self._distinct("subject_id")

    def _distinct(self, name: str) -> tuple[str, ...]:
        values = pc.unique(self._table.column(name)).to_pylist()
        return tuple(sorted(v for v in values if v is not None))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} clips, {len(self.labels)} labels, base={self._base!r})"

    def __iter__(self) -> Iterator[ClipRef]:
        for batch in self._table.select(_REF_COLUMNS).to_batches(max_chunksize=_HASH_ROWS):
            for row in batch.to_pylist():
                yield self._as_ref(row)

    def ref(self, i: int) -> ClipRef:
        """The clip in row `i`; uris resolved."""
        return self._as_ref({name: self._table[name][i].as_py() for name in _REF_COLUMNS})

    def _as_ref(self, row: dict[str, Any]) -> ClipRef:
        for name in ("uri", "audio_uri"):
            if row[name] is not None and self._base is not None:
                row[name] = storage.join(self._base, row[name])
        if row["soft_label"] is not None:
            row["soft_label"] = dict(row["soft_label"])
        return ClipRef(**row)

    def column(self, name: str) -> list[Any]:
        """One column as Python values, in row order; uris as stored.

        Raises:
            ManifestError: no such column; names the nearest.
        """
        if name not in self._table.column_names:
            near = difflib.get_close_matches(name, self._table.column_names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ManifestError(
                f"the manifest has no column {name!r}.{hint} It has: "
                f"{', '.join(self._table.column_names)}."
            )
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def row_of(self, clip_id: str) -> int:
        """The row number of a clip id.

        Raises:
            ManifestError: no such clip; names the nearest.
        """
        if self._rows_by_id is None:
            self._rows_by_id = {c: i for i, c in enumerate(self.column("clip_id"))}
        if clip_id not in self._rows_by_id:
            near = difflib.get_close_matches(str(clip_id), self._rows_by_id, n=1)
            hint = f" The nearest id is {near[0]!r}." if near else ""
            raise ManifestError(f"no clip {clip_id!r} among the {len(self)} of the manifest.{hint}")
        return self._rows_by_id[clip_id]

    def by_ids(self, ids: Iterable[str]) -> Manifest:
        """The clips with these ids, in this order.

        Raises:
            ManifestError: an unknown id, or the same id twice.
        """
        rows = [self.row_of(clip_id) for clip_id in ids]
        if len(set(rows)) < len(rows):
            ids_again = [self.ref(r).clip_id for r in set(rows) if rows.count(r) > 1]
            raise ManifestError(f"by_ids was given the same id twice: {naming(sorted(ids_again))}")
        return Manifest._trusted(self._table.take(pa.array(rows, pa.int64())), self._base)

    def filter(
        self, condition: Callable[[ClipRef], bool] | Sequence[bool] | npt.NDArray[np.bool_]
    ) -> Manifest:
        """The rows that pass: a mask (also an Arrow one), a pyarrow expression, or a function.

        Raises:
            ManifestError: a mask of the wrong length.
        """
        if not isinstance(condition, pc.Expression):
            if callable(condition):
                condition = [bool(condition(ref)) for ref in self]
            if len(condition) != len(self):
                raise ManifestError(
                    f"the mask has {len(condition)} values for {len(self)} clips; expected as many"
                )
            if not isinstance(condition, pa.Array | pa.ChunkedArray):
                condition = pa.array(np.asarray(condition, dtype=np.bool_))
        return Manifest._trusted(self._table.filter(condition), self._base)

    def consented(self) -> Manifest:
        """The clips that may be used: consent is True. False and null are left out."""
        return self.filter(pc.fill_null(self._table.column("consent"), False))

    def with_column(self, name: str, values: Sequence[Any]) -> Manifest:
        """The same clips with one column added or replaced.

        Raises:
            ManifestError: wrong length, wrong type, or a value that no manifest may hold.
        """
        if len(values) != len(self):
            raise ManifestError(f"column {name!r}: {len(values)} values for {len(self)} clips")
        column = table_from_rows([{name: value} for value in values]).column(name)
        table = self._table
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
        return Manifest(table, self._base)

    def content_hash(self) -> str:
        """sha256 over what the rows say, independent of row order, column order and storage.

        Uris count as stored (relative ones do not change when the data set is moved), and null
        values do not count, so adding an empty column keeps the hash.
        """
        digest = hashlib.sha256()
        order = pc.sort_indices(self._table.column("clip_id"))
        for start in range(0, len(self), _HASH_ROWS):
            for row in self._table.take(order[start : start + _HASH_ROWS]).to_pylist():
                said = {k: _plain(v) for k, v in row.items() if v is not None}
                digest.update(json.dumps(said, sort_keys=True, default=str).encode() + b"\n")
        return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Maps come as lists of pairs, in the order in which they were written; sort them."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return sorted(value, key=lambda pair: str(pair[0]))
    return value
