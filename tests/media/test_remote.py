"""Films in object storage: what is fetched of them, and in how many requests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from mien.media import packets, remote
from mien.media.decode import DecodedClip, decode_clip, probe_clip
from mien.media.remote import RemoteFile, RemoteReader, joined


@dataclass
class Traffic:
    """What a storage was asked for."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    questions: int = 0
    together: int = 0
    """Requests that were made side by side with others, and cost no time of their own."""

    @property
    def fetched(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    @property
    def turns(self) -> int:
        """Requests one after the other."""
        return len(self.ranges) + self.questions - self.together


class CountedStorage(MemoryFileSystem):
    """A bucket in memory that counts; files are opened for writing only."""

    protocol = "counted"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent, one for all instances
    traffic = Traffic()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("counted://", "memory://")))

    def cat_file(self, path: str, start: int = 0, end: int | None = None, **_: Any) -> bytes:
        data = bytes(super().cat_file(path, start=start, end=end))
        self.traffic.ranges.append((start, start + len(data)))
        return data

    def cat_ranges(self, paths: list[str], starts: Any, ends: Any, **options: Any) -> list[Any]:
        self.traffic.together += len(paths) - 1
        return list(super().cat_ranges(paths, starts, ends, **options))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self.traffic.questions += 1
        return dict(super().info(path, **options))


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    monkeypatch.setenv("MIEN_STORAGE_PATIENCE_S", "0")
    fsspec.register_implementation("counted", CountedStorage, clobber=True)
    CountedStorage.traffic = Traffic()
    yield CountedStorage.traffic
    CountedStorage.store.clear()


def upload(path: Path) -> str:
    fsspec.filesystem("counted").pipe_file(f"/bucket/{path.name}", path.read_bytes())
    traffic = CountedStorage.traffic
    traffic.ranges, traffic.questions, traffic.together = [], 0, 0
    return f"counted://bucket/{path.name}"


LAYOUTS = {
    "index_at_end.mp4": {},
    "index_first.mp4": {"container_options": {"movflags": "faststart"}},
    "long.mkv": {},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def long_film(
    request: pytest.FixtureRequest, films: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Forty seconds with sound."""
    rng = np.random.default_rng(0)
    hiss = (0.2 * rng.standard_normal((1, 40 * 44_100))).astype(np.float32)
    path = tmp_path_factory.mktemp("long") / request.param
    options = {"preset": "ultrafast", "g": "12", "bf": "2", "qp": "20"}
    return films.write(
        path,
        num_frames=1000,
        options=options,
        sound=hiss,
        is_interleaved=True,
        **LAYOUTS[path.name],
    )


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes in the proportion to our film that the real ones have to a long one."""
    for name, size in (
        ("HEAD_BYTES", 2**15),
        ("WHOLE_BYTES", 2**16),
        ("_FIRST_PIECE", 2**14),
        ("_SMALL_GAP", 2**13),
    ):
        monkeypatch.setattr(remote, name, size)


def same(found: DecodedClip, expected: DecodedClip) -> None:
    np.testing.assert_array_equal(found.frames_THWC, expected.frames_THWC)
    np.testing.assert_array_equal(found.frame_times_s, expected.frame_times_s)
    assert (found.audio is None) == (expected.audio is None)
    if expected.audio is not None:
        np.testing.assert_array_equal(found.audio, expected.audio)
    assert found.num_source_frames == expected.num_source_frames
    assert found.duration_s == expected.duration_s


def test_a_small_film_is_one_request(
    films: SimpleNamespace, tmp_path: Path, traffic: Traffic
) -> None:
    path = films.write(tmp_path / "film.mp4", sound=films.tone(2.4, 44_100)[None])
    clip = decode_clip(upload(path), choose_frames=range)
    assert (len(traffic.ranges), traffic.questions) == (1, 0)
    same(clip, decode_clip(str(path), choose_frames=range))


@pytest.mark.usefixtures("small_requests")
def test_two_seconds_of_a_long_film(long_film: Path, traffic: Traffic) -> None:
    window: dict[str, Any] = {
        "choose_frames": lambda num_source: [0, 30, num_source - 1],
        "start_s": 22.3,
        "end_s": 24.3,
    }
    clip = decode_clip(upload(long_film), **window)
    same(clip, decode_clip(str(long_film), **window))
    # 2 of 40 s, with a second before and after, are a tenth; then the index.
    assert traffic.fetched < 0.25 * long_film.stat().st_size
    assert traffic.turns <= 12


@pytest.mark.usefixtures("small_requests")
def test_few_frames_of_a_long_film(long_film: Path, traffic: Traffic) -> None:
    if long_film.suffix == ".mkv":
        pytest.skip("Matroska's index knows key frames only: everything is read")
    chosen: dict[str, Any] = {
        "choose_frames": lambda num_source: [num_source * k // 16 for k in range(16)],
        "with_audio": False,
    }
    clip = decode_clip(upload(long_film), **chosen)
    same(clip, decode_clip(str(long_film), **chosen))
    assert traffic.fetched < 0.35 * long_film.stat().st_size
    assert traffic.turns <= 8
    info_traffic = len(traffic.ranges)
    assert probe_clip(f"counted://bucket/{long_film.name}") == probe_clip(str(long_film))
    assert len(traffic.ranges) - info_traffic <= 6


@pytest.mark.usefixtures("small_requests")
def test_everything_of_a_long_film(
    long_film: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sound all of it is needed, and none of it is fetched twice but what lies in the head."""
    clip = decode_clip(upload(long_film), choose_frames=lambda num_source: [7, num_source - 3])
    expected = decode_clip(str(long_film), choose_frames=lambda num_source: [7, num_source - 3])
    same(clip, expected)
    assert traffic.fetched <= long_film.stat().st_size
    assert traffic.turns <= 20
    monkeypatch.setattr(remote, "KEPT_BYTES", 2**17)  # too large to be held
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 2**17)
    clip = decode_clip(
        f"counted://bucket/{long_film.name}", choose_frames=lambda num_source: [7, num_source - 3]
    )
    same(clip, expected)


@pytest.mark.usefixtures("small_requests")
def test_fragments_are_read_through(
    films: SimpleNamespace, tmp_path: Path, traffic: Traffic
) -> None:
    path = films.write(
        tmp_path / "film.mp4",
        num_frames=400,
        options={"g": "12"},
        container_options={"movflags": "frag_keyframe+empty_moov"},
        sound=films.tone(16.0, 44_100)[None],
    )
    for window in ({}, {"start_s": 9.0, "end_s": 11.0}):
        clip = decode_clip(upload(path), choose_frames=lambda num_source: [0, 30], **window)
        same(clip, decode_clip(str(path), choose_frames=lambda num_source: [0, 30], **window))


@pytest.mark.usefixtures("small_requests")
def test_an_index_that_names_wrong_key_frames(
    films: SimpleNamespace, tmp_path: Path, traffic: Traffic
) -> None:
    """The packets themselves tell better; then everything is read."""
    path = films.write(tmp_path / "film.mp4", num_frames=400, options={"g": "12", "qp": "20"})

    def move_third(data: bytearray, at: int) -> None:
        assert struct.unpack_from(">4I", data, at + 4)[1:] == (1, 13, 25)
        struct.pack_into(">I", data, at + 16, 30)

    films.patch_box(path, b"stss", move_third)
    chosen = [26, 31, 33, 350]
    clip = decode_clip(upload(path), choose_frames=lambda num_source: chosen)
    assert [films.read_number(frame) for frame in clip.frames_THWC[:3]] == chosen[:3]
    same(clip, decode_clip(str(path), choose_frames=lambda num_source: chosen))
    assert traffic.fetched > 0.9 * path.stat().st_size


@given(
    start=st.integers(0, 5000),
    size=st.integers(0, 3000),
    fetched=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 900)), max_size=6),
)
def test_any_range_reads_as_the_file(start: int, size: int, fetched: list[tuple[int, int]]) -> None:
    data = np.random.default_rng(0).bytes(4321)
    fsspec.filesystem("memory").pipe_file("/ranges/file", data)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in (("HEAD_BYTES", 300), ("WHOLE_BYTES", 400), ("_FIRST_PIECE", 256)):
            monkeypatch.setattr(remote, name, value)
        monkeypatch.setattr(remote, "_SMALL_GAP", 64)
        file = RemoteFile("memory://ranges/file")
        assert file.fetch((at, min(at + length, 4321)) for at, length in fetched if at < 4321)
        reader = RemoteReader(file)
        reader.seek(start)
        assert reader.read(size) == data[start : start + size]
        assert reader.tell() == start + len(data[start : start + size])
        file.is_hollow = True
        hollow = file.read_at((0, 4321))
    assert len(hollow) == 4321
    known = np.frombuffer(hollow, np.uint8)
    assert np.all((known == 0) | (known == np.frombuffer(data, np.uint8)))
    for at, length in [(start, size), *fetched]:
        assert hollow[at : at + length] == data[at : at + length]


def test_ranges_close_together_are_one() -> None:
    assert joined([(50, 60), (0, 10), (12, 20), (15, 18)], gap=2) == [(0, 20), (50, 60)]
    assert joined([]) == []


def test_a_film_that_changes_under_the_reader(
    films: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/film.mp4", bytes(5000))
    monkeypatch.setattr(remote, "HEAD_BYTES", 100)
    monkeypatch.setattr(remote, "WHOLE_BYTES", 200)
    file = RemoteFile("memory://bucket/film.mp4")
    fs.pipe_file("/bucket/film.mp4", bytes(2000))
    with pytest.raises(ValueError, match="changed while it was read"):
        file.read_at((2500, 2600))
    fs.rm("/bucket", recursive=True)
