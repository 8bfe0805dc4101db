"""Shards: Parquet files with one clip in each row group, so that a clip is one ranged read.

Any reader of Parquet opens them (``ray.data.read_parquet``, pandas, DuckDB). A shard is named by
the SHA-256 of its bytes, and its pages carry checksums that are verified whenever a clip is read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.cache.errors import CacheError
from mien.cache.images import ImageFormat, decode_frames, encode_frames
from mien.media import storage
from mien.stream.prepare import ChooseFrames, PreparedClip

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("frames", pa.list_(pa.binary()), nullable=False),
        pa.field("frame_times_s", pa.list_(pa.float64()), nullable=False),
        pa.field("has_face", pa.list_(pa.bool_()), nullable=False),
        pa.field("audio", pa.binary()),
        pa.field("audio_rate_hz", pa.int32(), nullable=False),
    ]
)
"""``frames``: one JPEG or PNG a frame. ``audio``: float32 samples, little-endian, mono."""

_CLIP_IDS = b"mien.clip_ids"
_KEPT_FOOTERS = 256
_FOOTER_GUESS_BYTES = 64 << 10


def to_row(
    clip_id: str, pieces: Iterable[PreparedClip], image_format: ImageFormat
) -> dict[str, Any]:
    """A prepared clip as a shard holds it; its sound is in the first piece."""
    row: dict[str, Any] = {name: [] for name in ("frames", "frame_times_s", "has_face")}
    for piece in pieces:
        row.setdefault(
            "audio", None if piece.audio is None else piece.audio.astype("<f4").tobytes()
        )
        row.setdefault("audio_rate_hz", piece.audio_rate_hz)
        row["frames"] += encode_frames(piece.frames_NSSC, image_format)
        row["frame_times_s"] += piece.frame_times_N.tolist()
        row["has_face"] += piece.has_face_N.tolist()
    return {"clip_id": clip_id, **row}


def size_bytes(row: dict[str, Any]) -> int:
    """About what a row takes in a shard."""
    return sum(map(len, row["frames"])) + len(row["audio"] or b"")


def shard_of(rows: Sequence[pa.Table]) -> bytes:
    """The file with these rows, each a table of one row, in this order."""
    clip_ids = json.dumps([row["clip_id"][0].as_py() for row in rows])
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        SCHEMA.with_metadata({_CLIP_IDS: clip_ids}),
        # Pictures don't get smaller, and the rest is little.
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for row in rows:
            writer.write_table(row.replace_schema_metadata({_CLIP_IDS: clip_ids}))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def shard_name(data: bytes) -> str:
    """The name that a shard with these bytes has."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """A row group of a shard."""

    location: str
    row: int


class ShardReader:
    """Reads clips out of shards; keeps the footers of those that it read last."""

    def __init__(self) -> None:
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._lock = Lock()

    def clip(self, place: ShardPlace, clip_id: str, choose_frames: ChooseFrames) -> PreparedClip:
        """The wanted frames of a clip, and its sound; other frames are not decompressed.

        Raises:
            CacheError: the shard is gone or damaged.
        """
        row = self.row(place, clip_id)
        pictures = row["frames"][0].values
        times_s = row["frame_times_s"][0].values.to_numpy()
        has_face = row["has_face"][0].values.to_numpy(zero_copy_only=False)
        wanted = np.asarray(choose_frames(len(pictures)), dtype=np.int64)
        sound = row["audio"][0].as_buffer()
        try:
            frames_NSSC = decode_frames([memoryview(pictures[i].as_buffer()) for i in wanted])
        except ValueError as error:
            raise _damaged(place.location, error) from error
        return PreparedClip(
            frames_NSSC=frames_NSSC,
            frame_numbers_N=wanted,
            frame_times_N=times_s[wanted],
            has_face_N=has_face[wanted],
            audio=None if sound is None else np.frombuffer(sound, dtype="<f4").copy(),
            audio_rate_hz=row["audio_rate_hz"][0].as_py(),
            num_frames=len(pictures),
        )

    def row(self, place: ShardPlace, clip_id: str) -> pa.Table:
        """The row of a clip, as a table.

        Raises:
            CacheError: the shard is gone or damaged, or that row is another clip's.
        """
        try:
            footer = self._footer(place.location)
            window = _row_group_window(place.location, footer, place.row)
            with pq.ParquetFile(
                pa.PythonFile(window, mode="r"), metadata=footer, page_checksum_verification=True
            ) as file:
                row = file.read_row_group(place.row, use_threads=False)
            if row.schema != SCHEMA or row["clip_id"][0].as_py() != clip_id:
                raise _damaged(place.location, f"row {place.row} is not clip {clip_id}")
        except (pa.ArrowException, OSError, IndexError) as error:
            raise _damaged(place.location, error) from error
        return row

    def _footer(self, location: str) -> pq.FileMetaData:
        with self._lock:
            if location in self._footers:
                self._footers.move_to_end(location)
                return self._footers[location]
        footer = _read_footer(location)
        with self._lock:
            self._footers[location] = footer
            while len(self._footers) > _KEPT_FOOTERS:
                self._footers.popitem(last=False)
        return footer


def shard_clip_ids(location: str) -> list[str]:
    """The ids of a shard's clips, by row; its footer says them.

    Raises:
        CacheError: the shard is gone or damaged.
    """
    try:
        clip_ids: list[str] = json.loads(_read_footer(location).metadata[_CLIP_IDS])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise error if isinstance(error, CacheError) else _damaged(location, error) from error
    return clip_ids


def _read_footer(location: str) -> pq.FileMetaData:
    tail = _read_tail(location, _FOOTER_GUESS_BYTES)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1":
        raise _damaged(location, "it does not end as a Parquet file does")
    if length > len(tail):
        tail = _read_tail(location, length)
    # Parquet's reader wants a whole file: magic bytes, then (nothing,) footer, magic bytes.
    return pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))


def _read_tail(location: str, num_bytes: int) -> bytes:
    return _read(location, -num_bytes, None)


def _row_group_window(location: str, footer: pq.FileMetaData, row: int) -> _Window:
    group = footer.row_group(row)
    columns = [group.column(index) for index in range(group.num_columns)]
    start = min(column.data_page_offset for column in columns)
    end = max(column.data_page_offset + column.total_compressed_size for column in columns)
    return _Window(_read(location, start, end), start)


def _read(location: str, start: int | None, end: int | None) -> bytes:
    try:
        return storage.read_range(location, start, end)
    except storage.StorageError as error:
        if error.reason != "missing_file":
            raise
        raise CacheError(
            f"{location} is gone: the cache was pruned or clips were forgotten while it was in "
            "use. Run the same command again, it goes on with the cache as it is now. If it is "
            f"still missed then, type `{_check_command(location)}` first."
        ) from error


class _Window(io.RawIOBase):
    """A part of a file, at its place: Parquet's reader seeks as if it were the whole."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = memoryview(data)
        self._start = start
        self._position = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = (0, self._position, self._start + len(self._data))
        self._position = bases[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        start = self._position - self._start
        end = len(self._data) if size < 0 else start + size
        part = bytes(self._data[max(0, start) : max(0, end)])
        self._position += len(part)
        return part


def _damaged(location: str, cause: object) -> CacheError:
    return CacheError(
        f"{location} is damaged ({cause}). Type `{_check_command(location)}`, then the same "
        "command again: what was in it is made anew."
    )


def _check_command(location: str) -> str:
    cache = storage.parent(storage.parent(location))
    return f"mien cache check --cache {cache} --drop-damaged"
