"""A film read from beginning to end is the film that `decode_clip` takes clips from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mien.media.decode import decode_clip, probe_clip
from mien.media.errors import ClipError
from mien.media.film import Film

KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"codec": "libx264", "options": {"bf": "3", "g": "24"}},
    "h264.mkv": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264"},
    "mpeg1.mpg": {"codec": "mpeg1video", "sound_codec": "mp2"},
    "mpeg4.avi": {"codec": "mpeg4", "sound_codec": "mp3"},
    "variable.mp4": {"codec": "libx264", "ticks": [0, 40, 90, 100, 300, *range(400, 2600, 40)]},
    "late_sound.mp4": {"codec": "libx264", "sound_start_s": 0.7},
}


def stereo(films: SimpleNamespace, duration_s: float = 2.4, rate_hz: int = 44_100) -> np.ndarray:
    left = films.tone(duration_s, rate_hz)
    return np.stack([left, 0.5 * left[::-1]])


@pytest.mark.parametrize("name", KINDS)
def test_frames_times_and_sound_are_those_of_a_clip(
    name: str, films: SimpleNamespace, tmp_path: Path
) -> None:
    settings = dict(KINDS[name])
    ticks = settings.get("ticks")
    path = films.write(
        tmp_path / name,
        num_frames=60 if ticks is None else len(ticks),
        sound=stereo(films),
        is_interleaved=True,
        **settings,
    )
    film = Film(str(path))
    windows = {0.2: None, 1.2: None}
    frames = []
    for frame in film.frames():
        frames.append(frame)
        for start_s in windows:
            if windows[start_s] is None and frame.time_s >= start_s + 0.8:
                assert film.sound is not None
                windows[start_s] = film.sound.samples(start_s, start_s + 0.8)
    whole = decode_clip(str(path), choose_frames=range)
    assert len(frames) == whole.num_source_frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
    np.testing.assert_allclose([f.time_s for f in frames], whole.frame_times_s, atol=1e-9)
    for frame, picture in zip(frames, whole.frames_THWC, strict=True):
        np.testing.assert_array_equal(frame.picture_HWC, picture)
    assert film.duration_s == pytest.approx(whole.duration_s, abs=0.05)
    assert (film.refused, film.missing_s) == (0, 0)
    for start_s, sound in windows.items():
        assert sound is not None
        first = round(start_s * 16_000)
        expected = whole.audio[first : first + 12_800]
        np.testing.assert_array_equal(sound.samples[: len(expected)], expected)


def test_sound_that_was_let_go_is_gone(films: SimpleNamespace, tmp_path: Path) -> None:
    path = films.write(
        tmp_path / "film.mp4", num_frames=250, sound=stereo(films, 10.0), is_interleaved=True
    )
    film = Film(str(path))
    most = 0
    for frame in film.frames():
        assert film.sound is not None
        film.sound.let_go_before(frame.time_s)
        most = max(most, sum(len(p.samples) for p in film.sound._track.finished()))
    assert most < 5 * 44_100  # of ten seconds
    assert film.sound.samples(9.0, 10.0) is not None
    assert film.sound.samples(0.0, 1.0) is None


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for number in (2, 10, 1):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame3.png").write_bytes(b"damaged")
    film = Film(str(tmp_path))
    frames = list(film.frames())
    assert [int(frame.picture_HWC[0, 0, 0]) for frame in frames] == [1, 2, 2, 10]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert (film.duration_s, film.refused) == (pytest.approx(0.16), 1)


def test_a_film_that_was_cut_off_says_so(films: SimpleNamespace, tmp_path: Path) -> None:
    whole = films.write(tmp_path / "whole.mkv", num_frames=250, options={"g": "12"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    film = Film(str(cut))
    seen = sum(1 for _ in film.frames())
    assert 60 < seen < 200
    assert film.missing_s == pytest.approx(10 - seen / 25, abs=0.3)
    film = Film(str(whole))
    assert sum(1 for _ in film.frames()) == 250
    assert film.missing_s == 0


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    for name, reason in (("text.mp4", "not_a_video"), ("none.mp4", "missing_file")):
        with pytest.raises(ClipError) as caught:
            list(Film(str(tmp_path / name)).frames())
        assert caught.value.reason == reason


def test_real_films(shared_clips: Path) -> None:
    for path in [
        *sorted((shared_clips / "grid").glob("*.mpg"))[:2],
        shared_clips / "nasa_13013.mp4",
    ]:
        film, info = Film(str(path)), probe_clip(str(path))
        assert sum(1 for _ in film.frames()) == info.num_frames
        assert film.duration_s == pytest.approx(info.duration_s, abs=0.05)
        assert film.missing_s == 0
