"""What is wrong with a clip is said, and what can be used of it is used."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import fsspec
import numpy as np
import pytest

from mien.media import remote
from mien.media.decode import decode_clip, probe_clip
from mien.media.errors import ClipError
from mien.media.storage import StorageUnreachableError


def middle(num_source: int) -> list[int]:
    return [num_source // 2]


def fault(path: Path | str, **options: object) -> ClipError:
    """The error of decoding, which probing shares where it concerns the whole file."""
    with pytest.raises(ClipError) as caught:
        decode_clip(str(path), choose_frames=middle, **options)
    assert str(path) in str(caught.value)
    return caught.value


def test_missing_file(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.mp4").reason == "missing_file"
    with pytest.raises(ClipError, match="there is no"):
        probe_clip(str(tmp_path / "none.mp4"))


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert fault(tmp_path / "empty.mp4").reason == "empty_file"


@pytest.mark.parametrize(
    "text", ["not a film\n" * 200, "#EXTM3U\n#EXTINF:1,\nother.mp4\n", "ffconcat version 1.0\n"]
)
@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "list.m3u8"])
def test_text_is_no_film_and_opens_no_other_file(
    text: str, name: str, tmp_path: Path, films: SimpleNamespace
) -> None:
    films.write(tmp_path / "other.mp4", num_frames=3)
    (tmp_path / name).write_text(text)
    assert fault(tmp_path / name).reason == "not_a_video"


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so it steps down for the test."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    yield
    os.seteuid(user)


def test_no_permission(
    tmp_path: Path, films: SimpleNamespace, request: pytest.FixtureRequest
) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=3)
    path.chmod(0)
    request.getfixturevalue("ordinary_user")
    assert fault(path).reason == "no_permission"


def test_sound_without_pictures(tmp_path: Path, films: SimpleNamespace) -> None:
    path = tmp_path / "voice.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            films.tone(0.5, 44_100)[None], format="fltp", layout="mono"
        )
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    error = fault(path)
    assert error.reason == "no_video_stream"
    assert "audio" in str(error)


def test_nothing_is_left_of_the_film(tmp_path: Path, films: SimpleNamespace) -> None:
    path = films.write(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])  # moov is at the end
    assert fault(path).reason == "not_a_video"


def _fast_start(films: SimpleNamespace, path: Path, **options: object) -> Path:
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    written: Path = films.write(path, container_options=flags, **options)
    return written


def test_a_film_cut_at_two_thirds_is_used_as_far_as_it_goes(
    tmp_path: Path, films: SimpleNamespace
) -> None:
    path = _fast_start(films, tmp_path / "film.mp4", options={"g": "12"})
    truth = films.decode_all(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clip = decode_clip(str(path), choose_frames=range)
    assert 25 < clip.num_source_frames < 60
    assert clip.refused_packets >= 1
    np.testing.assert_array_equal(clip.frames_THWC[:20], np.stack(truth[:20]))


def test_a_film_cut_at_a_third_is_not_used(tmp_path: Path, films: SimpleNamespace) -> None:
    path = _fast_start(films, tmp_path / "film.mp4", options={"g": "12"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    error = fault(path)
    assert error.reason == "truncated"
    assert "should last 2.40 s" in str(error)
    clip = decode_clip(str(path), choose_frames=middle, min_decoded_fraction=0.1)
    assert 3 < clip.num_source_frames < 30


def test_damage_is_counted_and_the_nearest_frame_stands_in(
    tmp_path: Path, films: SimpleNamespace
) -> None:
    path = films.write(tmp_path / "film.avi", codec="mjpeg", pix_fmt="yuvj420p")
    mp4 = films.write(tmp_path / "film.mp4", codec="mjpeg", pix_fmt="yuvj420p")
    for film in (path, mp4):
        data = bytearray(film.read_bytes())
        starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
        for number in (10, 11, 12):
            data[starts[number] : starts[number] + 700] = bytes(700)
        film.write_bytes(data)
    clip = decode_clip(str(mp4), choose_frames=range)
    assert clip.num_source_frames == 60
    assert clip.refused_packets == 3
    numbers = [films.read_number(frame) for frame in clip.frames_THWC]
    assert numbers == [*range(10), 9, 9, 13, *range(13, 60)]
    assert clip.frame_indices.tolist() == list(range(60))
    assert clip.frame_times_s[10:13] == pytest.approx([0.36, 0.36, 0.52])
    clip = decode_clip(str(mp4), choose_frames=lambda num_source: [11])
    assert films.read_number(clip.frames_THWC[0]) in (9, 13)
    # AVI does not say when frames are shown: what can be decoded is the film.
    clip = decode_clip(str(path), choose_frames=range)
    assert (clip.num_source_frames, clip.refused_packets) == (57, 3)


def test_mostly_damaged(tmp_path: Path, films: SimpleNamespace) -> None:
    path = films.write(tmp_path / "film.mp4", codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    for number in range(5, 45):
        data[starts[number] : starts[number] + 700] = bytes(700)
    path.write_bytes(data)
    error = fault(path)
    assert error.reason == "truncated"
    assert "only 20 of 60 frames" in str(error)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.avi", "film.mpg"])
def test_random_damage_gives_frames_or_a_reason(
    name: str, tmp_path: Path, films: SimpleNamespace
) -> None:
    codec = {"mpg": "mpeg1video", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
    sound = films.tone(2.4, 44_100)[None]
    sound_codec = "mp2" if name.endswith(("mpg", "avi")) else "aac"
    path = films.write(
        tmp_path / name, codec=codec, options={"g": "12"}, sound=sound, sound_codec=sound_codec
    )
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    outcomes = []
    for _ in range(25):
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        places = rng.integers(len(data), size=60)
        data[places] ^= rng.integers(1, 256, size=60, dtype=np.uint8)
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data))].tobytes())
        try:
            clip = decode_clip(str(path), choose_frames=lambda num_source: [0, num_source - 1])
        except ClipError as error:
            outcomes.append(error.reason)
        else:
            assert clip.frames_THWC.shape == (2, 64, 96, 3)
            outcomes.append("decoded")
    assert "decoded" in outcomes or name == "film.mp4"  # without its last bytes an MP4 has no index


def test_flipped_bits_among_the_frames_lose_no_frame_of_the_rest(
    tmp_path: Path, films: SimpleNamespace
) -> None:
    """The index is whole: groups of pictures without damage come out as they were."""
    path = _fast_start(films, tmp_path / "film.mp4", options={"g": "12", "bf": "2"})
    truth = films.decode_all(path)
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    rng = np.random.default_rng(1)
    for group in range(5):
        data = bytearray(whole)
        for at, size in places[12 * group : 12 * group + 12]:
            for place in rng.integers(5, size, size=3):
                data[at + int(place)] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        clip = decode_clip(str(path), choose_frames=range)
        assert clip.num_source_frames == 60
        for number in (n for n in range(60) if n // 12 != group):
            np.testing.assert_array_equal(clip.frames_THWC[number], truth[number])


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.flv", "film.mpg"])
@pytest.mark.parametrize("fraction", [0.55, 0.7, 0.85, 0.99])
def test_a_cut_film_shows_its_beginning(
    name: str, fraction: float, tmp_path: Path, films: SimpleNamespace
) -> None:
    codec = "mpeg2video" if name.endswith("mpg") else "libx264"
    path = _fast_start(films, tmp_path / name, codec=codec, options={"g": "12"})
    truth = films.decode_all(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    clip = decode_clip(str(path), choose_frames=range, min_decoded_fraction=0.2)
    assert 15 < clip.num_source_frames <= 60
    whole = clip.num_source_frames - 5  # the last ones may be damaged or stand in for others
    np.testing.assert_array_equal(clip.frames_THWC[:whole], np.stack(truth[:whole]))


def test_a_damaged_header_is_explained(tmp_path: Path, films: SimpleNamespace) -> None:
    path = _fast_start(films, tmp_path / "film.mp4")

    def scramble(data: bytearray, at: int) -> None:
        data[at : at + 400] = bytes(range(200, 250)) * 8

    films.patch_box(path, b"trak", scramble)
    assert fault(path).reason in ("not_a_video", "no_video_stream", "truncated")


def test_a_name_that_is_not_utf8(tmp_path: Path, films: SimpleNamespace) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=5)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    os.rename(path, name)
    clip = decode_clip(name, choose_frames=range)
    assert clip.num_source_frames == 5


def test_names_that_ffmpeg_would_read_as_something_else(
    tmp_path: Path, films: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=5)
    monkeypatch.chdir(tmp_path)
    for name in ("http:film.mp4", "a%03d.mp4", "concat:a.mp4|b.mp4", "ümläut ?.mp4"):
        path = path.rename(tmp_path / name)
        assert decode_clip(name, choose_frames=middle).num_source_frames == 5


def test_an_empty_window(tmp_path: Path, films: SimpleNamespace) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=25)
    error = fault(path, start_s=3.0)
    assert error.reason == "too_few_frames"
    assert "from 3.0 s to its end" in str(error)


def test_objects_in_a_bucket(
    tmp_path: Path, films: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=30, options={"g": "12"})
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/film.mp4", path.read_bytes())
    fs.pipe_file("/bucket/empty.mp4", b"")
    local = decode_clip(str(path), choose_frames=range)
    for head_bytes in (2**20, 64):
        monkeypatch.setattr(remote, "HEAD_BYTES", head_bytes)
        monkeypatch.setattr(remote, "WHOLE_BYTES", head_bytes)
        clip = decode_clip("memory://bucket/film.mp4", choose_frames=range)
        np.testing.assert_array_equal(local.frames_THWC, clip.frames_THWC)
    assert fault("memory://bucket/none.mp4").reason == "missing_file"
    assert fault("memory://bucket/empty.mp4").reason == "empty_file"
    assert fault("nosuchscheme://bucket/film.mp4").reason == "storage_unreadable"
    fs.rm("/bucket", recursive=True)


class ClientError(Exception):
    """Object-store clients raise types of their own."""


@pytest.mark.parametrize("error_type", [ConnectionResetError, ClientError])
@pytest.mark.parametrize("is_read_piecewise", [False, True])
def test_a_storage_that_breaks_off_is_not_a_damaged_film(
    error_type: type[Exception],
    is_read_piecewise: bool,
    tmp_path: Path,
    films: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=30)
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/film.mp4", path.read_bytes())
    file_type = type(fs.open("/bucket/film.mp4"))

    def read(self: object, *args: object, **options: object) -> bytes:
        raise error_type("connection reset by peer")

    if is_read_piecewise:
        monkeypatch.setattr(remote, "HEAD_BYTES", 64)
        monkeypatch.setattr(remote, "WHOLE_BYTES", 64)
    monkeypatch.setattr(file_type, "read", read)
    monkeypatch.setattr(type(fs), "cat_file", read)
    monkeypatch.setenv("MIEN_STORAGE_PATIENCE_S", "0")
    with pytest.raises(StorageUnreachableError, match="connection reset"):
        decode_clip("memory://bucket/film.mp4", choose_frames=range)
    fs.rm("/bucket", recursive=True)


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    error = fault(tmp_path / "none.mp4")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.reason, str(copy)) == (ClipError, error.reason, str(error))


def test_impossible_times_in_the_index(tmp_path: Path, films: SimpleNamespace) -> None:
    """All frames of the file at one time: they are counted instead."""
    path = films.write(tmp_path / "film.mp4", options={"bf": "0"})

    def stop_the_clock(data: bytearray, at: int) -> None:
        num_entries = struct.unpack_from(">I", data, at + 4)[0]
        for entry in range(num_entries):
            struct.pack_into(">I", data, at + 12 + 8 * entry, 0)

    films.patch_box(path, b"stts", stop_the_clock)
    clip = decode_clip(str(path), choose_frames=range, min_decoded_fraction=0.0)
    assert [films.read_number(frame) for frame in clip.frames_THWC] == list(range(60))
