"""The manifest: which clips there are, one row a clip, in one Parquet file.

Rows stay in Arrow memory; a `ClipRef` is made when a clip is asked for. Relative uris are relative
to the manifest's folder, so that a data set can be moved as a whole; a `ClipRef` holds absolute
ones. What the columns are stands in `mien.clips.schema`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mien.clips.content import content_digest
from mien.clips.row_checks import check_rows
from mien.clips.schema import (
    SCHEMA,
    conform,
    table_from_rows,
    unknown_column,
)
from mien.clips.schema import ManifestError as ManifestError
from mien.media import storage

FILE_NAME = "manifest.parquet"
"""What is read where a folder is named instead of a file."""
PLACES = ("uri", "audio_uri")
"""Columns that hold locations."""
ROWS_AT_ONCE = 1024
"""Rows that iteration turns into Python objects at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRef:
    """One clip: where it is and what is known about it. No media is read to make one."""

    clip_id: str
    uri: str
    """Absolute path or URI of a video file or of a folder of frames."""
    audio_uri: str | None = None
    """Absolute path or URI of the sound, where it is not in the video file."""
    start_s: float | None = None
    """Start in the file, seconds; None: its beginning."""
    end_s: float | None = None
    """End in the file, seconds; None: its end."""
    num_frames: int | None = None
    subject_id: str | None = None
    source: str | None = None
    """What the clip was cut from (a film, a recording session)."""
    label: str | None = None
    """Class name."""
    soft_label: dict[str, float] | None = None
    """Share of each class; they sum to 1."""
    fold: int | None = None
    split: str | None = None
    """Part of the official split: train, val or test."""
    face_box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 of the subject's face in the upright picture: pixels, or shares of the sides
    where all are at most 1."""
    consent: bool = True
    licence: str | None = None
    """What the clip may be used for, e.g. ``CC-BY-4.0``."""


REF_COLUMNS = [name for name in SCHEMA.names if name != "action_units"]


class Manifest:
    """An immutable table of clips.

    Raises:
        ManifestError: a required column is missing, a column has another type, or rows cannot be
            right (doubled clip ids, end before start, shares that do not sum to 1, ...).
    """

    __slots__ = ("_base", "_refs", "_table")

    def __init__(self, table: pa.Table, *, base: str | None = None) -> None:
        """Make a manifest of an Arrow table.

        Args:
            table: rows with at least the columns `clip_id` and `uri`.
            base: folder that relative uris are relative to. Without one, they wait for the folder
                which the manifest is written to, and cannot be resolved before.
        """
        table = conform(table.replace_schema_metadata(None))
        check_rows(table)
        base = None if base is None else storage.absolute(str(base))
        self._set(_relative_to(table, base) if base is not None else table, base)

    def _set(self, table: pa.Table, base: str | None) -> None:
        self._table = table
        self._base = base
        self._refs = table.select(REF_COLUMNS)

    @classmethod
    def _of_checked(cls, table: pa.Table, base: str | None) -> Manifest:
        manifest = cls.__new__(cls)
        manifest._set(table, base)
        return manifest

    @classmethod
    def read(cls, uri: str) -> Manifest:
        """Read a manifest from a path or any URI that fsspec knows (s3://, gs://, memory://).

        A folder stands for the `manifest.parquet` in it.

        Raises:
            ManifestError: unreadable (says what to check), no Parquet, or rows that are not right.
        """
        uri = str(uri)
        try:
            if storage.is_folder(uri):
                uri = storage.join(uri, FILE_NAME)
            data = storage.read_bytes(uri)
        except storage.StorageError as error:
            raise ManifestError(f"cannot read the manifest {uri}: {error}") from error
        try:
            table = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError) as error:
            raise ManifestError(
                f"{uri} is not a manifest: expected a Parquet file, Arrow says: {error}. Make a "
                "manifest of a folder or a CSV file with `mien ingest`"
            ) from error
        try:
            return cls(table, base=storage.parent(uri))
        except ManifestError as error:
            raise ManifestError(f"manifest {uri}: {error}") from error

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any] | ClipRef], base: str | None = None
    ) -> Manifest:
        """Make a manifest of mappings with the columns' names as keys, or of `ClipRef`s.

        Args:
            rows: keys that `SCHEMA` lacks become further columns.
            base: see `__init__`.
        """
        table = table_from_rows(asdict(r) if isinstance(r, ClipRef) else r for r in rows)
        return cls(table, base=base)

    def write(self, uri: str) -> Manifest:
        """Write the manifest to a path or URI, whole or not at all.

        Clips below the file's folder are written with relative uris, others with absolute ones.

        Returns:
            The manifest as it reads from there.

        Raises:
            ManifestError: the place cannot be written to.
        """
        uri = str(uri)
        folder = storage.parent(uri)
        table = self._table
        if self._base is not None and self._base != folder:
            table = _relative_to(_resolved(table, self._base), folder)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        try:
            storage.write_bytes_atomically(uri, sink.getvalue().to_pybytes())
        except (storage.StorageError, OSError) as error:
            raise ManifestError(f"cannot write the manifest to {uri}: {error}") from error
        return self._of_checked(table, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """One Arrow buffer: out of band where the pickler can, and read in place by Ray workers."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)
        return _unpickled, (sink.getvalue(), self._base)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} clips, base={self._base!r})"

    def __iter__(self) -> Iterator[ClipRef]:
        for batch in self._refs.to_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                yield self._ref(row)

    @property
    def table(self) -> pa.Table:
        """The rows, with uris as they are stored (relative below `base`)."""
        return self._table

    @property
    def base(self) -> str | None:
        """The folder that relative uris are relative to."""
        return self._base

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return self._distinct("label")

    @property
    def subjects(self) -> tuple[str, ...]:
        """The people that occur, sorted."""
        return self._distinct("subject_id")

    def _distinct(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(pc.unique(self._table[name]).drop_null().to_pylist()))

    def ref(self, index: int) -> ClipRef:
        """The clip in row `index`.

        Raises:
            IndexError: no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a manifest of {len(self)} clips")
        return self._ref(self._refs.slice(index, 1).to_pylist(maps_as_pydicts="strict")[0])

    def _ref(self, row: dict[str, Any]) -> ClipRef:
        for place in PLACES:
            if row[place] is not None:
                row[place] = self._resolve(row[place])
        if row["face_box"] is not None:
            row["face_box"] = tuple(row["face_box"])
        return ClipRef(**row)

    def _resolve(self, uri: str) -> str:
        if self._base is None and not storage.is_absolute(uri):
            raise ManifestError(
                f"uri {uri!r} is relative to nothing: give Manifest(..., base=FOLDER), or write "
                "the manifest to its folder and read it from there"
            )
        return storage.join(self._base or "", uri)

    def column(self, name: str) -> list[Any]:
        """The values of a column, None where there is none; uris as they are stored.

        Raises:
            ManifestError: no such column; names the nearest one.
        """
        if name not in self._table.column_names:
            raise unknown_column(name, self._table.column_names)
        values: list[Any] = self._table[name].to_pylist(maps_as_pydicts="strict")
        return values

    def by_ids(self, clip_ids: Sequence[str]) -> Manifest:
        """The clips with these ids, in this order.

        Raises:
            ManifestError: an id that the manifest lacks, or one that is asked for twice.
        """
        wanted = pa.array(clip_ids, pa.string())
        rows = pc.index_in(wanted, value_set=self._table["clip_id"])
        if rows.null_count:
            unknown = wanted.filter(pc.is_null(rows)).to_pylist()
            raise ManifestError(
                f"{len(unknown)} clip ids are not in the manifest: {', '.join(unknown[:5])}"
                f"{', ...' if len(unknown) > 5 else ''}"
            )
        if pc.count_distinct(rows).as_py() < len(rows):
            twice = sorted(clip for clip, times in Counter(clip_ids).items() if times > 1)
            raise ManifestError(f"clips asked for more than once: {', '.join(twice[:5])}")
        return self._of_checked(self._table.take(rows), self._base)

    def filter(self, keep: Any | Callable[[ClipRef], bool]) -> Manifest:
        """The clips that pass a filter, in the manifest's order.

        Args:
            keep: one boolean a row (Arrow, numpy or a list; null drops the row), a
                `pyarrow.compute` expression over the columns, or a predicate on `ClipRef`.

        Raises:
            ManifestError: not as many booleans as rows, or an expression that does not fit.
        """
        if callable(keep) and not isinstance(keep, pc.Expression):
            keep = [bool(keep(ref)) for ref in self]
        try:
            if not isinstance(keep, (pc.Expression, pa.Array, pa.ChunkedArray)):
                keep = pa.array(np.asarray(keep, dtype=np.bool_))
            return self._of_checked(self._table.filter(keep).combine_chunks(), self._base)
        except (pa.ArrowException, TypeError) as error:
            raise ManifestError(
                f"cannot filter a manifest of {len(self)} clips: {error}; expected a boolean for "
                "each row, a pyarrow expression over its columns or a predicate on ClipRef"
            ) from error

    def with_absolute_uris(self) -> Manifest:
        """The same clips, found from anywhere."""
        if self._base is None:
            return self
        return self._of_checked(_resolved(self._table, self._base), None)

    def consented(self) -> Manifest:
        """The clips whose people consent; nothing of the others is read."""
        return self.filter(self._table["consent"])

    def content_hash(self) -> str:
        """SHA-256 (hex) of the rows, whatever their order and the way that they are stored."""
        return content_digest(self._table, "clip_id")


def _unpickled(buffer: pa.Buffer, base: str | None) -> Manifest:
    with pa.ipc.open_stream(buffer) as stream:
        return Manifest._of_checked(stream.read_all(), base)


def _relative_to(table: pa.Table, folder: str) -> pa.Table:
    """The table with the uris below a folder made relative to it."""
    prefix = folder.rstrip("/") + "/"
    for name in PLACES:
        places = table[name]
        is_below = pc.starts_with(places, prefix)
        relative = pc.utf8_slice_codeunits(places, len(prefix))
        column = pc.if_else(is_below, relative, places)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _resolved(table: pa.Table, base: str) -> pa.Table:
    """The table with absolute uris."""
    for name in PLACES:
        places = table[name]
        is_relative = pc.invert(
            pc.or_(pc.starts_with(places, "/"), pc.match_substring(places, "://"))
        )
        joined = pc.binary_join_element_wise(base.rstrip("/"), places, "/")
        column = pc.if_else(is_relative, joined, places)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
