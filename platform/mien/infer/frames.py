"""Where the face is in every frame of a file: one row a frame, whatever the file's length.

Frames are decoded one after the other and written in blocks, so memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.media.containers import clip_errors, open_media
from mien.media.errors import ClipError
from mien.media.faces import Face, FaceDetector, follow_face
from mien.media.image_folder import DEFAULT_FPS, list_pictures, read_picture
from mien.media.packets import video_stream
from mien.media.pictures import quarter_turns
from mien.media.storage import absolute, explained, file_system, is_folder, is_remote

Picture = NDArray[np.uint8]

SCHEMA = pa.schema(
    [
        ("frame", pa.int64()),
        ("time_s", pa.float64()),
        ("has_face", pa.bool_()),
        ("track", pa.int64()),
        ("score", pa.float64()),
        ("x0", pa.float64()),
        ("y0", pa.float64()),
        ("x1", pa.float64()),
        ("y1", pa.float64()),
    ]
)
"""``time_s`` since the first frame, from presentation times. The box is in pixels of the upright
frame. ``track`` counts on whenever the face that was followed is lost and another one is taken up:
it is a tracker's output and not a person's identity. All but the first three are null without a
face."""
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFaces:
    """What was written about a file's frames."""

    num_frames: int
    num_with_face: int
    num_tracks: int


def iter_frame_faces(
    path: str | Path, detector: FaceDetector | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of ``SCHEMA``, one for every frame of a file or folder, in order of presentation.

    Raises:
        ClipError: the file can't be used, or no frame of it can be decoded.
    """
    detector = detector or FaceDetector()
    last: Face | None = None
    track = -1
    for index, (time_s, picture) in enumerate(_all_frames(absolute(str(path)))):
        faces = detector.detect(picture)
        followed = follow_face([[last], faces])[1] if last is not None else None
        if followed is None and faces:
            followed = faces[0]
            track += 1
        yield _row(index, time_s, followed, track)
        last = followed or last


def write_frame_faces(
    path: str | Path, location: str | Path, detector: FaceDetector | None = None
) -> FrameFaces:
    """Writes the rows of a file's frames as .csv or .parquet, whole or not at all.

    Raises:
        ClipError: see :func:`iter_frame_faces`.
        ValueError: another suffix.
        StorageError: the location can't be written.
    """
    suffix = str(location).rpartition(".")[2].lower()
    writers = {"csv": pyarrow.csv.CSVWriter, "parquet": pq.ParquetWriter}
    if suffix not in writers:
        raise ValueError(f"{location}: expected a name that ends in .csv or .parquet")
    num_frames = num_with_face = 0
    track: int | None = None
    rows = iter_frame_faces(path, detector)
    with _replacing(absolute(str(location))) as partial, writers[suffix](partial, SCHEMA) as writer:
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(block, schema=SCHEMA))
            num_frames += len(block)
            num_with_face += sum(row["has_face"] for row in block)
            track = next((r["track"] for r in reversed(block) if r["has_face"]), track)
    return FrameFaces(
        num_frames=num_frames,
        num_with_face=num_with_face,
        num_tracks=0 if track is None else track + 1,
    )


def _row(index: int, time_s: float, face: Face | None, track: int) -> dict[str, Any]:
    row: dict[str, Any] = {"frame": index, "time_s": time_s, "has_face": face is not None}
    if face is None:
        return row | dict.fromkeys(SCHEMA.names[3:])
    x0, y0, x1, y1 = face.box.tolist()
    return row | {"track": track, "score": face.score, "x0": x0, "y0": y0, "x1": x1, "y1": y1}


def _all_frames(location: str) -> Iterator[tuple[float, Picture]]:
    """Every frame's time and picture."""
    with clip_errors(location):
        if is_folder(location):
            for index, name in enumerate(list_pictures(location)):
                yield index / DEFAULT_FPS, read_picture(name)
            return
        with open_media(location) as container:
            yield from _film(container, location)


def _film(container: Any, location: str) -> Iterator[tuple[float, Picture]]:
    stream = video_stream(container, location)
    stream.codec_context.thread_count = 1
    rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
    zero: int | None = None
    time_s = -1 / rate
    for frame in _decoded(container, stream):
        before_s = time_s
        time_s = before_s + 1 / rate
        if frame.pts is not None:
            zero = frame.pts if zero is None else zero
            stated_s = float((frame.pts - zero) * stream.time_base)
            # AVI and damaged files give times that stand still or run backwards.
            time_s = stated_s if stated_s > before_s else time_s
        yield max(0.0, time_s), _upright(frame)
    if time_s < 0:
        raise ClipError(
            "truncated",
            f"no frame of {location} can be decoded ({stream.codec_context.name}); the file is "
            "damaged or cut off. Copy or download it again.",
        )


def _upright(frame: Any) -> Picture:
    # threads=1: swscale would otherwise start threads of its own for every frame.
    picture: Picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
    turns = quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames in order of presentation; damaged places are passed over, as the decoder does."""
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            packet = None
        if packet is not None and packet.size == 0:
            continue
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            frames = []
        yield from frames
        if packet is None:
            return


@contextlib.contextmanager
def _replacing(location: str) -> Iterator[str]:
    """A path to write to; what was written is put in the location's place if nothing was raised."""
    with contextlib.ExitStack() as stack:
        if is_remote(location):
            partial = f"{stack.enter_context(tempfile.TemporaryDirectory())}/partial"
        else:
            os.makedirs(os.path.dirname(location), exist_ok=True)
            partial = f"{location}.{uuid.uuid4().hex}.part"
        try:
            yield partial
            with explained(location):
                if is_remote(location):
                    fs, path = file_system(location)
                    fs.put_file(partial, path)
                else:
                    os.replace(partial, location)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)
