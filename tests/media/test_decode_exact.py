"""Decoding only the wanted frames gives the same bytes as decoding everything."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from types import SimpleNamespace

import av
import av.error
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.media import packets, video
from mien.media.containers import MediaFile
from mien.media.decode import decode_clip, probe_clip

X264 = {"bf": "3", "preset": "fast"}
VFR_TICKS = [40 * number + (17 if number % 3 else 0) + 300 * (number > 30) for number in range(60)]

CONTAINERS = {
    "gop12.mp4": {"options": X264 | {"g": "12"}},
    "gop250.mp4": {"options": X264 | {"g": "250"}},
    "no_b_frames.mp4": {"options": {"bf": "0", "g": "12"}},
    "open_gop.mp4": {"options": X264 | {"g": "12", "x264-params": "open-gop=1"}},
    "pyramid.mp4": {"options": {"bf": "8", "g": "30", "x264-params": "b-pyramid=normal:b-adapt=0"}},
    "fragmented.mp4": {
        "options": X264 | {"g": "12"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "variable_rate.mp4": {"options": X264 | {"g": "12"}, "ticks": VFR_TICKS},
    "variable_rate.mkv": {"options": X264 | {"g": "12"}, "ticks": VFR_TICKS},
    "ten_bit.mp4": {"options": X264 | {"g": "12"}, "pix_fmt": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}},
    "h264.mkv": {"options": X264 | {"g": "12"}},
    "h264.mov": {"options": X264 | {"g": "12"}},
    "h264.ts": {"options": X264 | {"g": "12"}},
    "h264.flv": {"options": X264 | {"g": "12"}},
    "h264.avi": {"options": X264 | {"g": "12"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"bf": "2", "g": "12"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime"}},
    "vp9_hidden.webm": {
        "codec": "libvpx-vp9",
        "options": {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "vp8_hidden.webm": {
        "codec": "libvpx",
        "options": {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "4"},
    },
    "flv1.flv": {"codec": "flv", "options": {"g": "12"}},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}},
}


@pytest.fixture(scope="session", params=list(CONTAINERS))
def film(
    request: pytest.FixtureRequest, films: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[np.ndarray]]:
    path = tmp_path_factory.mktemp("films") / request.param
    films.write(path, **CONTAINERS[request.param])
    return path, films.decode_all(path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_choice_equals_a_full_decode(
    film: tuple[Path, list[np.ndarray]], data: st.DataObject
) -> None:
    path, truth = film
    chosen = sorted(
        data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=1, max_size=12), label="chosen")
    )
    clip = decode_clip(str(path), choose_frames=lambda num_source: chosen, with_audio=False)
    assert clip.num_source_frames == len(truth) == 60
    assert clip.frame_indices.tolist() == chosen
    assert clip.refused_packets == 0
    np.testing.assert_array_equal(clip.frames_THWC, np.stack([truth[index] for index in chosen]))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_window_equals_a_full_decode(
    film: tuple[Path, list[np.ndarray]], data: st.DataObject
) -> None:
    path, truth = film
    shown_s = np.array(VFR_TICKS if "variable" in path.name else 40 * np.arange(60)) / 1000
    first = data.draw(st.integers(0, 59), label="first")
    last = data.draw(st.integers(first, 59), label="last")
    # A window begins with a frame, or anywhere after the frame before.
    early_s = data.draw(st.sampled_from([0.0, 0.004, 0.019]), label="early")
    start_s = max(0.0, float(shown_s[first]) - early_s)
    end_s = float(shown_s[last + 1]) - early_s if last < 59 else None
    chosen = sorted(data.draw(st.sets(st.integers(0, last - first), min_size=1, max_size=5)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        # A film of hours would seek as these few seconds do with so small numbers.
        monkeypatch.setattr(packets, "_SEEK_FROM_S", 0.1)
        monkeypatch.setattr(packets, "_BACK_OFF_S", (0.1, 0.4, 1.6))
        clip = decode_clip(
            str(path),
            choose_frames=lambda num_source: chosen,
            start_s=start_s,
            end_s=end_s,
            with_audio=False,
        )
    assert clip.num_source_frames == last - first + 1
    expected = np.stack([truth[first + index] for index in chosen])
    np.testing.assert_array_equal(clip.frames_THWC, expected)
    times_s = [float(shown_s[first + index]) - start_s for index in chosen]
    np.testing.assert_allclose(clip.frame_times_s, times_s, atol=0.0011)


@pytest.mark.parametrize("name", ["h264.avi", "mpeg4.avi", "mjpeg.avi"])
def test_films_without_times_are_decoded_once(
    name: str, films: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.write(tmp_path / name, **CONTAINERS[name])

    def refuse(*args: object) -> None:
        raise AssertionError("decoded a second time")

    monkeypatch.setattr("mien.media.sequential._decode_again", refuse)
    asked: list[int] = []

    def choose(num_source: int) -> list[int]:
        asked.append(num_source)
        return [0, 7, 7, num_source - 1]

    for window, numbers in (
        ({}, [0, 7, 7, 59]),
        ({"start_s": 0.4, "end_s": 1.2}, [10, 17, 17, 29]),
    ):
        clip = decode_clip(str(path), choose_frames=choose, **window)
        assert [films.read_number(frame) for frame in clip.frames_THWC] == numbers
    assert asked == [60, 20]


def test_films_without_times_whose_packets_are_not_all_frames(
    films: SimpleNamespace, tmp_path: Path
) -> None:
    """A film that lost its beginning: the first packets give no picture."""
    path = films.write(tmp_path / "film.avi", codec="mpeg4", options={"bf": "2", "g": "12"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        key = next(packet for packet in container.demux(video=0))
    data[key.pos + 8 : key.pos + 8 + key.size] = bytes(key.size)
    path.write_bytes(data)
    truth = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.FFmpegError):
                truth += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    assert 0 < len(truth) < 60
    clip = decode_clip(str(path), choose_frames=lambda num_source: [0, num_source - 1])
    assert clip.num_source_frames == len(truth)
    assert films.read_number(clip.frames_THWC[1]) == films.read_number(truth[-1])


@pytest.mark.parametrize(
    ("defaults", "number"), [((False, True), 1), ((True, False), 0), ((True, True), 1)]
)
def test_of_several_films_the_default_then_the_largest(
    defaults: tuple[bool, bool], number: int, films: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in defaults]
        for stream, width, is_default in zip(streams, (96, 192), defaults, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
            kinds = type(stream.disposition)
            stream.disposition = kinds.default if is_default else kinds(0)
        for stream in streams:
            for frame_number in range(5):
                picture = films.picture(frame_number, width=stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    clip = decode_clip(str(path), choose_frames=range)
    assert clip.frames_THWC.shape == (5, 64, (96, 192)[number], 3)
    assert probe_clip(str(path)).width == (96, 192)[number]


def test_frames_are_numbered_as_they_are_shown(
    film: tuple[Path, list[np.ndarray]], films: SimpleNamespace
) -> None:
    path, _ = film
    clip = decode_clip(str(path), choose_frames=range, with_audio=False)
    assert [films.read_number(frame) for frame in clip.frames_THWC] == list(range(60))
    ticks = np.array(VFR_TICKS) if "variable" in path.name else 40 * np.arange(60)
    np.testing.assert_allclose(clip.frame_times_s, ticks / 1000, atol=0.0011)
    info = probe_clip(str(path))
    assert (info.num_frames, info.width, info.height) == (60, 96, 64)
    assert info.duration_s == pytest.approx(clip.duration_s)


@pytest.mark.parametrize("name", ["gop12.mp4", "open_gop.mp4", "h264.mkv", "hevc.mp4", "mpeg1.mpg"])
def test_the_fast_way_is_taken(
    name: str, films: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.write(tmp_path / name, **CONTAINERS[name])

    def refuse(*args: object) -> None:
        raise AssertionError("decoded everything")

    monkeypatch.setattr("mien.media.decode.decode_sequentially", refuse)
    for chosen in ([0], [59], [5, 30], [13, 13, 14], [11, 12, 23, 24]):
        clip = decode_clip(str(path), choose_frames=lambda num_source, chosen=chosen: chosen)
        assert [films.read_number(frame) for frame in clip.frames_THWC] == chosen


def test_only_needed_packets_are_decoded(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(tmp_path / "film.mp4", **CONTAINERS["no_b_frames.mp4"])
    with MediaFile(str(path)).open() as container:
        stream = container.streams.video[0]
        read = packets.read_packets(container, stream, None, MediaFile(str(path)))
        ticks = [stamp.pts for stamp in read.stamps]
    runs = video.needed_runs(read.stamps, {ticks[15], ticks[40]})
    assert runs == [(12, 16), (36, 41)]


def test_packets_too_large_to_keep_are_read_again(
    films: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = films.write(tmp_path / "film.mp4", **CONTAINERS["open_gop.mp4"])
    truth = films.decode_all(path)
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 1000)
    for window, chosen in (((None, None), [0, 14, 15, 59]), ((0.4, 2.0), [0, 3, 39])):
        clip = decode_clip(
            str(path),
            choose_frames=lambda num_source, chosen=chosen: chosen,
            start_s=window[0],
            end_s=window[1],
        )
        first = round((window[0] or 0) * 25)
        expected = np.stack([truth[first + index] for index in chosen])
        np.testing.assert_array_equal(clip.frames_THWC, expected)


@pytest.mark.parametrize("name", ["gop12.mp4", "open_gop.mp4", "h264.mkv", "h264.ts", "h264.avi"])
@pytest.mark.parametrize("start", [0, 1, 25, 125, 150, 151, 190])
def test_a_window_of_a_long_film(
    name: str, start: int, films: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"long_{name}"
    if not path.exists():
        films.write(path, num_frames=200, **CONTAINERS[name])
    clip = decode_clip(str(path), choose_frames=range, start_s=start / 25, end_s=(start + 10) / 25)
    numbers = [films.read_number(frame) for frame in clip.frames_THWC]
    assert numbers == list(range(start, start + 10))
    np.testing.assert_allclose(clip.frame_times_s, np.arange(10) / 25, atol=0.0011)
    assert clip.duration_s == pytest.approx(0.4)
    truth = films.decode_all(path)[start : start + 10]
    np.testing.assert_array_equal(clip.frames_THWC, np.stack(truth))


def test_a_window_inside_a_long_film_does_not_read_what_lies_before(
    films: SimpleNamespace, tmp_path: Path
) -> None:
    path = films.write(tmp_path / "long.mp4", num_frames=200, options=X264 | {"g": "12"})
    with MediaFile(str(path)).open() as container:
        stream = container.streams.video[0]
        read = packets.read_packets(
            container, stream, None, MediaFile(str(path)), start_s=6.0, end_s=6.4
        )
    # One second and a group of pictures before the clip, one second after.
    assert len(read.stamps) <= 25 + 12 + 10 + 25 + 8


def test_an_edit_list_hides_frames(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(tmp_path / "cut.mp4", options={"bf": "0", "g": "12"})
    scale = 12_800

    def skip_20_keep_30(data: bytearray, at: int) -> None:
        # Version and flags, number of entries, then duration (in 1/1000 s), media time, rate.
        assert struct.unpack_from(">I", data, at + 4) == (1,)
        struct.pack_into(">Ii", data, at + 8, 1200, 20 * scale // 25)

    films.patch_box(path, b"elst", skip_20_keep_30)
    truth = films.decode_all(path)
    assert [films.read_number(frame) for frame in truth] == list(range(20, 50))
    for chosen in ([0, 7, 29], list(range(30))):
        clip = decode_clip(str(path), choose_frames=lambda num_source, chosen=chosen: chosen)
        assert clip.num_source_frames == 30
        assert [films.read_number(frame) for frame in clip.frames_THWC] == [
            20 + number for number in chosen
        ]
    np.testing.assert_allclose(clip.frame_times_s, np.arange(30) / 25)


_MATRICES = {  # a, b, c, d of the display matrix in 16.16; how many counter-clockwise turns
    0: ((1, 0, 0, 1), 0),
    90: ((0, 1, -1, 0), 3),
    180: ((-1, 0, 0, -1), 2),
    270: ((0, -1, 1, 0), 1),
}


@pytest.mark.parametrize("clockwise_deg", list(_MATRICES))
def test_pictures_are_turned_upright(
    clockwise_deg: int, films: SimpleNamespace, tmp_path: Path
) -> None:
    path = films.write(tmp_path / "phone.mp4", num_frames=10)
    (a, b, c, d), turns = _MATRICES[clockwise_deg]

    def set_matrix(data: bytearray, at: int) -> None:
        entries = [a, b, 0, c, d, 0, 0, 0]
        fixed = [entry * 65_536 for entry in entries]
        struct.pack_into(">8i", data, at + 40, *fixed)

    films.patch_box(path, b"tkhd", set_matrix)
    clip = decode_clip(str(path), choose_frames=lambda num_source: [0, 9])
    truth = films.decode_all(path)
    np.testing.assert_array_equal(clip.frames_THWC[1], np.rot90(truth[9], turns))
    info = probe_clip(str(path))
    assert (info.width, info.height) == ((96, 64) if turns % 2 == 0 else (64, 96))
    assert info.rotation_deg == 90 * turns


def test_pictures_are_shrunk(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(tmp_path / "film.mp4", num_frames=5)
    shapes = {
        side: decode_clip(str(path), choose_frames=lambda num_source: [2], max_side_px=side)
        for side in (48, 200)
    }
    assert shapes[48].frames_THWC.shape == (1, 32, 48, 3)
    assert shapes[200].frames_THWC.shape == (1, 64, 96, 3)


@pytest.mark.parametrize("chosen", [[], [60], [-1], [3, 2], [0.5]])
def test_a_choice_outside_of_the_clip_is_refused(
    chosen: list[float], films: SimpleNamespace, tmp_path: Path
) -> None:
    path = films.write(tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=r"choose_frames\(60\) returned .* from 0 to 59"):
        decode_clip(str(path), choose_frames=lambda num_source: chosen)


def test_one_frame(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(tmp_path / "one.mp4", num_frames=1)
    clip = decode_clip(str(path), choose_frames=lambda num_source: [0] * 4)
    assert clip.frames_THWC.shape == (4, 64, 96, 3)
    assert clip.num_source_frames == 1
    assert clip.duration_s == pytest.approx(0.04)


@pytest.mark.parametrize("name", ["h264.ts", "open_gop.ts", "mpeg2.ts", "mpeg1.mpg"])
def test_a_recording_that_begins_inside_of_a_group_of_pictures(
    name: str, films: SimpleNamespace, tmp_path: Path
) -> None:
    """What the decoder shows of the broken start, and only that, is the clip."""
    recipe = CONTAINERS["open_gop.mp4" if name == "open_gop.ts" else name]
    path = films.write(tmp_path / name, **recipe)
    data = path.read_bytes()
    unit = 188 if name.endswith("ts") else 2048
    path.write_bytes(data[len(data) // 3 // unit * unit :])
    truth = films.decode_all(path)
    assert 10 < len(truth) < 60
    for chosen in ([0], [3, 9], [len(truth) - 1], list(range(len(truth)))):
        clip = decode_clip(str(path), choose_frames=lambda num_source, chosen=chosen: chosen)
        assert clip.num_source_frames == len(truth)
        expected = np.stack([truth[index] for index in chosen])
        np.testing.assert_array_equal(clip.frames_THWC, expected)
    assert clip.frame_times_s[0] == 0.0
