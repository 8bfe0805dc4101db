"""Clips that are folders of pictures, and films from the world."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.media.decode import decode_clip, probe_clip
from mien.media.errors import ClipError
from mien.media.image_folder import natural_key


@pytest.fixture
def folder(tmp_path: Path, films: SimpleNamespace) -> Path:
    """Thirty lossless frames, named without leading zeros."""
    path = tmp_path / "clip.frames"
    path.mkdir()
    for number in range(30):
        Image.fromarray(films.picture(number)).save(path / f"frame{number}.png")
    (path / "notes.txt").write_text("not a picture")
    return path


def test_names_are_sorted_as_people_do() -> None:
    names = ["f10.png", "f2.png", "f1.png", "10.png", "9.png", "f2b.png"]
    assert sorted(names, key=natural_key) == [
        "9.png",
        "10.png",
        "f1.png",
        "f2.png",
        "f2b.png",
        "f10.png",
    ]


def test_a_folder_is_a_clip(folder: Path, films: SimpleNamespace) -> None:
    chosen = [0, 2, 2, 10, 29]
    clip = decode_clip(str(folder), choose_frames=lambda num_source: chosen)
    assert clip.num_source_frames == 30
    expected = np.stack([films.picture(number) for number in chosen])
    np.testing.assert_array_equal(clip.frames_THWC, expected)
    np.testing.assert_allclose(clip.frame_times_s, np.array(chosen) / 25)
    assert (clip.audio, clip.duration_s) == (None, 1.2)
    info = probe_clip(str(folder))
    assert (info.num_frames, info.width, info.height, info.fps) == (30, 96, 64, 25)


def test_names_compared_as_text_on_demand(folder: Path, films: SimpleNamespace) -> None:
    clip = decode_clip(str(folder), choose_frames=range, picture_order="text")
    shown = [films.read_number(frame) for frame in clip.frames_THWC]
    assert shown == sorted(range(30), key=lambda number: f"frame{number}.png")
    assert shown[:4] == [0, 1, 10, 11]


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_frames_of_any_window_of_a_folder(
    folder: Path, films: SimpleNamespace, data: st.DataObject
) -> None:
    start = data.draw(st.one_of(st.none(), st.integers(0, 28)))
    end = data.draw(st.one_of(st.none(), st.integers((start or 0) + 1, 35)))
    inside = list(range(start or 0, min(30, end or 30)))
    chosen = data.draw(
        st.lists(st.integers(0, len(inside) - 1), min_size=1, max_size=6).map(sorted)
    )
    clip = decode_clip(
        str(folder),
        choose_frames=lambda num_source: chosen,
        start_s=None if start is None else start / 25,
        end_s=None if end is None else end / 25,
    )
    assert clip.num_source_frames == len(inside)
    shown = [films.read_number(frame) for frame in clip.frames_THWC]
    assert shown == [inside[number] for number in chosen]
    np.testing.assert_allclose(clip.frame_times_s, np.array(chosen) / 25, atol=1e-9)


def test_a_window_of_a_folder(folder: Path, films: SimpleNamespace) -> None:
    clip = decode_clip(str(folder), choose_frames=range, start_s=0.4, end_s=0.8)
    assert [films.read_number(frame) for frame in clip.frames_THWC] == list(range(10, 20))
    with pytest.raises(ClipError, match=r"no frame from 2\.0 s"):
        decode_clip(str(folder), choose_frames=range, start_s=2.0)


def test_a_damaged_picture_is_stood_in_for(folder: Path, films: SimpleNamespace) -> None:
    data = (folder / "frame7.png").read_bytes()
    (folder / "frame7.png").write_bytes(data[: len(data) // 2])
    (folder / "frame8.png").write_text("text")
    clip = decode_clip(str(folder), choose_frames=lambda num_source: [5, 7, 8, 9])
    assert [films.read_number(frame) for frame in clip.frames_THWC] == [5, 6, 9, 9]
    assert clip.refused_packets == 2
    assert clip.frame_indices.tolist() == [5, 7, 8, 9]
    assert clip.frame_times_s == pytest.approx([0.2, 0.24, 0.36, 0.36])


def test_a_folder_of_damaged_pictures(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClipError) as caught:
        decode_clip(str(folder), choose_frames=lambda num_source: [5])
    assert caught.value.reason == "truncated"
    with pytest.raises(ClipError, match="none of the pictures"):
        probe_clip(str(folder))


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="holds no pictures") as caught:
        decode_clip(str(tmp_path), choose_frames=range)
    assert caught.value.reason == "too_few_frames"


def test_pictures_of_several_sizes_and_modes_become_the_first_ones(
    tmp_path: Path, films: SimpleNamespace
) -> None:
    Image.fromarray(films.picture(0)).save(tmp_path / "1.png")
    Image.fromarray(films.picture(1)).resize((48, 32)).save(tmp_path / "2.png")
    Image.fromarray(films.picture(2)).convert("L").save(tmp_path / "3.jpg", quality=95)
    Image.fromarray(films.picture(3)).convert("RGBA").save(tmp_path / "4.png")
    clip = decode_clip(str(tmp_path), choose_frames=range)
    assert clip.frames_THWC.shape == (4, 64, 96, 3)
    small = decode_clip(str(tmp_path), choose_frames=range, max_side_px=48)
    assert small.frames_THWC.shape == (4, 32, 48, 3)


def test_a_photograph_is_turned_upright(tmp_path: Path, films: SimpleNamespace) -> None:
    image = Image.fromarray(films.picture(5))
    exif = image.getexif()
    exif[0x0112] = 6  # shown by a quarter turn clockwise
    image.save(tmp_path / "1.png", exif=exif)
    clip = decode_clip(str(tmp_path), choose_frames=range)
    np.testing.assert_array_equal(clip.frames_THWC[0], np.rot90(films.picture(5), 3))


def test_a_folder_in_a_bucket(folder: Path, films: SimpleNamespace) -> None:
    fs = fsspec.filesystem("memory")
    for path in folder.glob("*.png"):
        fs.pipe_file(f"/bucket/clip1/{path.name}", path.read_bytes())
    clip = decode_clip("memory://bucket/clip1", choose_frames=lambda num_source: [3, 12])
    assert [films.read_number(frame) for frame in clip.frames_THWC] == [3, 12]
    fs.rm("/bucket", recursive=True)


def test_real_films_decode_exactly(shared_clips: Path) -> None:
    paths = [*sorted((shared_clips / "grid").glob("*.mpg")), shared_clips / "nasa_13013.mp4"]
    rng = np.random.default_rng(0)
    for path in paths:
        with av.open(str(path)) as container:
            truth = [
                frame.reformat(format="rgb24", threads=1).to_ndarray()
                # Of NASA's two films the larger one.
                for frame in container.decode(container.streams.video[-1])
            ]
        chosen = sorted(rng.integers(len(truth), size=16).tolist())
        clip = decode_clip(str(path), choose_frames=lambda num_source, chosen=chosen: chosen)
        assert clip.num_source_frames == len(truth)
        assert clip.audio is not None
        expected = np.stack([truth[index] for index in chosen])
        np.testing.assert_array_equal(clip.frames_THWC, expected)
