"""A row for every frame of a file, in bounded memory."""

from __future__ import annotations

import csv
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mien.infer import frames as frames_module
from mien.infer.frames import SCHEMA, iter_frame_faces, write_frame_faces
from mien.media.decode import probe_clip
from mien.media.errors import ClipError
from mien.media.faces import FaceDetector

SHARED = Path(os.environ.get("MIEN_SHARED", Path(__file__).parents[3] / "shared"))
RED, BLUE = (220, 30, 30), (30, 30, 220)
Film = Callable[..., Path]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(max_side_px=64)


def test_every_frame_has_a_row(film: Film, tmp_path: Path, detector: FaceDetector) -> None:
    path = film([RED, BLUE])
    found = write_frame_faces(path, tmp_path / "faces.csv", detector)
    assert (found.num_frames, found.num_with_face, found.num_tracks) == (20, 0, 0)
    with open(tmp_path / "faces.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([i / 10 for i in range(20)])
    assert {row["has_face"] for row in rows} == {"false"}
    assert {row["x0"] for row in rows} == {""}


def test_parquet_in_blocks(
    film: Film, tmp_path: Path, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_ROWS_AT_ONCE", 8)
    write_frame_faces(film([RED, BLUE]), tmp_path / "faces.parquet", detector)
    table = pq.read_table(tmp_path / "faces.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["frame"].to_pylist() == list(range(20))


def test_damage_on_the_way_leaves_no_file(
    film: Film, tmp_path: Path, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = iter_frame_faces(film([RED]), detector)

    def stops_half_way(*_args: Any) -> Iterator[dict[str, Any]]:
        yield next(rows)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frames_module, "iter_frame_faces", stops_half_way)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="No space left"):
        write_frame_faces("x", tmp_path / "out" / "faces.csv", detector)
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_files_and_names(tmp_path: Path, detector: FaceDetector) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ClipError) as caught:
        list(iter_frame_faces(tmp_path / "text.mp4", detector))
    assert caught.value.reason == "not_a_video"
    with pytest.raises(ValueError, match=r"ends in \.csv or \.parquet"):
        write_frame_faces(tmp_path / "text.mp4", tmp_path / "faces.txt", detector)


def test_memory_does_not_grow_with_the_file(film: Film, detector: FaceDetector) -> None:
    """900 frames of 240 x 240 are 155 MB; a few of them at a time are less than 8."""
    path = film([RED, BLUE] * 45, side=240, tone=False)
    next(iter_frame_faces(path, detector))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_frame_faces(path, detector)) == 900
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not (SHARED / "clips/grid").is_dir(), reason="the shared clips are not here")
def test_a_face_in_every_frame_of_real_talkers(tmp_path: Path) -> None:
    for path in sorted((SHARED / "clips/grid").glob("*.mpg"))[:3]:
        found = write_frame_faces(path, tmp_path / "faces.parquet")
        assert found.num_frames == found.num_with_face == probe_clip(str(path)).num_frames
        assert found.num_tracks == 1
        table = pq.read_table(tmp_path / "faces.parquet")
        times = table["time_s"].to_pylist()
        assert times == pytest.approx([i / 25 for i in range(len(times))], abs=1e-3)
        assert min(table["score"].to_pylist()) > 0.6
        widths = [
            x1 - x0 for x0, x1 in zip(table["x0"].to_pylist(), table["x1"].to_pylist(), strict=True)
        ]
        assert max(widths) < 1.5 * min(widths)
