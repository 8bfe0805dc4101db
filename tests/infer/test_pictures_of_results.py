"""What a person looks at: the film with what was found, and the plot over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from infer.colour_method import COLOURS, RED

from mien.infer.overlay import OverlayWriter, colour_of
from mien.infer.rows import FrameRow, WindowRow
from mien.infer.timeline import Timeline

Film = Callable[..., Path]


def rows(count: int) -> list[FrameRow]:
    box = (10.0, 20.0, 40.0, 50.0)
    return [
        FrameRow(
            frame=index,
            time_s=index / 10,
            has_face=True,
            track=3,
            box=box,
            probabilities=(0.1, 0.2, 0.7),
        )
        for index in range(count)
    ]


def test_boxes_are_where_the_rows_say(film: Film, tmp_path: Path) -> None:
    source, out = film([RED, RED]), tmp_path / "out.mp4"
    with OverlayWriter(str(source), str(out), COLOURS.classes) as overlay:
        overlay.draw(rows(20)[:7])
        overlay.draw(rows(20)[7:])
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
    assert [float(frame.time) for frame in frames] == pytest.approx([i / 10 for i in range(20)])
    picture = frames[11].to_ndarray(format="rgb24")
    scale = picture.shape[1] / 64
    side = picture[round(40 * scale), round(10 * scale)].astype(int)
    assert np.abs(side - colour_of(3)).max() < 60
    inside = picture[round(35 * scale), round(25 * scale)].astype(int)
    assert np.abs(inside - RED).max() < 30


def test_no_half_film(film: Film, tmp_path: Path) -> None:
    def stops_half_way() -> None:
        with OverlayWriter(str(film([RED])), str(tmp_path / "o.mp4"), COLOURS.classes) as overlay:
            overlay.draw(rows(3))
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        stops_half_way()
    assert not (tmp_path / "o.mp4").exists()
    with pytest.raises(ValueError, match=r"ends in \.mp4"):
        OverlayWriter("film", "o.avi", ("a",))


def window(start_s: float, end_s: float, track: int, *probabilities: float) -> WindowRow:
    return WindowRow(
        start_s=start_s, end_s=end_s, has_audio=True, track=track, probabilities=probabilities
    )


def test_timeline_shows_the_windows(tmp_path: Path) -> None:
    timeline = Timeline(("a", "b"))
    timeline.add([window(0, 2, 0, 0.25, 0.75), window(2, 4, 0, 0.5, 0.5), window(2, 4, 1, 1, 0)])
    figure = timeline.figure(4.0)
    assert [axes.get_ylabel() for axes in figure.axes] == ["person 0", "person 1"]
    edges, shares = timeline._shares(0)
    assert shares[:, np.searchsorted(edges, 1.0)] == pytest.approx([0.25, 0.75])
    assert shares[:, np.searchsorted(edges, 3.0)] == pytest.approx([0.5, 0.5])
    timeline.save(str(tmp_path / "t.png"), 4.0)
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"ends in \.png"):
        timeline.save(str(tmp_path / "t.jpg"), 4.0)


def test_a_long_film_is_a_plot_of_the_same_size() -> None:
    timeline = Timeline(("a", "b"))
    for number in range(40_000):
        timeline.add([window(3 * number, 3 * number + 3, 0, 0.25, 0.75)])
    assert len(timeline._sums[0]) <= 1201
    edges, shares = timeline._shares(0)
    assert edges[-1] == pytest.approx(120_000, rel=0.01)
    assert shares[0] == pytest.approx(np.full(shares.shape[1], 0.25))
    assert Timeline(("a", "b")).figure(0.0).axes
