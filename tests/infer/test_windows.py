"""Windows that are cut while frames come in are those that the whole film is cut into."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mien.infer.windows import Cut, Window, WindowCutter, Windowing


@dataclass(frozen=True)
class Frame:
    time_s: float


def cut(times_s: list[float], duration_s: float, windowing: Windowing) -> list[Cut[Frame]]:
    cutter: WindowCutter[Frame] = WindowCutter(windowing)
    found = [cut for time_s in times_s for cut in cutter.push(Frame(time_s))]
    return [*found, *cutter.finish(duration_s)]


@pytest.mark.parametrize(
    ("duration_s", "window_s", "ends"),
    [
        (9.9, None, [9.9]),
        (10.5, None, [3, 6, 9, 10.5]),
        (9.9, 3.0, [3, 6, 9.9]),
        (10.0, 3.0, [3, 6, 9, 10]),
        (0.5, 3.0, [0.5]),
        (6.0, 3.0, [3, 6]),
    ],
)
def test_windows_cover_the_file(
    duration_s: float, window_s: float | None, ends: list[float]
) -> None:
    windows = Windowing(window_s=window_s).of(duration_s)
    assert [window.end_s for window in windows] == pytest.approx(ends)
    assert [window.start_s for window in windows] == pytest.approx([0, *ends[:-1]])


def test_sliding_windows() -> None:
    windows = Windowing(window_s=2, step_s=0.5).of(4.1)
    assert [window.start_s for window in windows] == [0, 0.5, 1, 1.5, 2]
    assert [window.end_s for window in windows] == [2, 2.5, 3, 3.5, 4.1]


@settings(deadline=None)
@given(
    num_frames=st.integers(1, 400),
    window_s=st.none() | st.floats(0.1, 8),
    share=st.none() | st.floats(0.1, 1),
)
@example(num_frames=250, window_s=None, share=None)
@example(num_frames=251, window_s=None, share=None)
def test_a_stream_of_frames_is_cut_like_the_film(
    num_frames: int, window_s: float | None, share: float | None
) -> None:
    step_s = None if share is None else share * (window_s or 3)
    windowing = Windowing(window_s=window_s, step_s=step_s)
    times_s = [index / 25 for index in range(num_frames)]
    duration_s = num_frames / 25
    found = cut(times_s, duration_s, windowing)
    expected = windowing.of(duration_s)
    with_frames = [w for w in expected if any(w.start_s <= t < w.end_s for t in times_s)]
    assert {c.window for c in found} >= set(with_frames)
    assert {c.window for c in found} <= set(expected)
    for piece in found:
        inside = [t for t in times_s if piece.window.start_s <= t < piece.window.end_s]
        held = [frame.time_s for frame in piece.frames]
        # A frame within half a millisecond of a border may be on either side.
        far = [t for t in times_s if abs(t - piece.window.start_s) < 1e-3]
        far += [t for t in times_s if abs(t - piece.window.end_s) < 1e-3]
        assert set(inside) ^ set(held) <= set(far)
    assert {t for t in times_s} == {f.time_s for c in found for f in c.frames}


def test_few_frames_are_kept_however_long_the_film() -> None:
    cutter: WindowCutter[Frame] = WindowCutter(Windowing(window_s=2, step_s=1))
    most = 0
    for index in range(100_000):
        list(cutter.push(Frame(index / 25)))
        most = max(most, len(cutter._frames))
    assert most <= 25 * 3.4


def test_a_jump_of_years_is_no_loop() -> None:
    times_s = [0, 1, 1e9, 1e9 + 1]
    found = cut(times_s, 1e9 + 2, Windowing(window_s=1))
    assert {frame.time_s for piece in found for frame in piece.frames} == set(times_s)
    assert len(found) <= 5


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"window_s": 0.0}, "window_s=0.0 must be greater than 0"),
        ({"window_s": math.nan}, "window_s=nan"),
        ({"step_s": -1.0}, "step_s=-1.0"),
        ({"window_s": 1.0, "step_s": 2.0}, "frames between would be left out"),
    ],
)
def test_impossible_windows(wishes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Windowing(**wishes)
    assert Windowing(window_s=1).of(2.0) == [Window(start_s=0, end_s=1), Window(start_s=1, end_s=2)]
