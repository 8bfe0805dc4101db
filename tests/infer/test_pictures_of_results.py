"""What a person looks at: the film with what was found, and the plot over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from infer.colour_method import COLOURS, RED

from mien.infer.overlay import OverlayWriter, colour_of
from mien.infer.rows import FrameRow
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


def seen(number: int, time_s: float, track: int, *values: float, units: int = 0) -> FrameRow:
    """A person in a frame: probabilities, the last ones those of units."""
    return FrameRow(
        frame=number,
        time_s=time_s,
        has_face=True,
        track=track,
        probabilities=values[: len(values) - units],
        units=values[len(values) - units :],
    )


def test_timeline_shows_the_frames(tmp_path: Path) -> None:
    """Four frames a second; person 0 is away from 1 s to 2 s, person 1 comes at 2 s."""
    timeline = Timeline(("a", "b"), (), str(tmp_path / "t.png"))
    timeline.add([seen(n, n / 4, 0, 0.25, 0.75) for n in range(4)])
    timeline.add([FrameRow(frame=n, time_s=n / 4, has_face=False) for n in range(4, 8)])
    for n in range(8, 16):
        timeline.add([seen(n, n / 4, 0, 0.5, 0.5), seen(n, n / 4, 1, 1.0, 0.0)])
    figure = timeline.figure(4.0)
    assert [axes.get_ylabel() for axes in figure.axes] == ["person 0", "person 1"]
    edges, means_KN, _ = timeline._means(0)
    assert edges[[0, -1]] == pytest.approx([0.0, 4.0])
    assert means_KN[0] == pytest.approx([0.25] * 10 + [np.nan] * 10 + [0.5] * 20, nan_ok=True)
    timeline.save(4.0)
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"ends in \.png"):
        Timeline(("a", "b"), (), str(tmp_path / "t.jpg"))


def test_timeline_shows_action_units_with_gaps(tmp_path: Path) -> None:
    units = ("AU6", "AU12", "AU99")
    timeline = Timeline(("a", "b"), units, str(tmp_path / "t.png"))
    for n in range(30):
        is_away = 10 <= n < 20
        row = seen(n, n / 10, 0, 0.4, 0.6, 0.1, 0.9 if n < 10 else 0.2, 0.0, units=3)
        timeline.add([FrameRow(frame=n, time_s=n / 10, has_face=False) if is_away else row])
    figure = timeline.figure(3.0)
    classes, shades, colour_bar = figure.axes
    names = [text.get_text().split() for text in shades.get_yticklabels()]
    assert [name[-1] for name in names] == list(units)
    assert names[1][:-1] == ["lip", "corner", "puller"]
    assert shades.get_ylim()[0] > shades.get_ylim()[1]  # the first unit is on top
    drawn_UN = np.ma.asarray(shades.collections[0].get_array())
    expected = np.ma.masked_invalid([0.9] * 10 + [np.nan] * 10 + [0.2] * 10)
    assert drawn_UN[1].tolist() == pytest.approx(expected.tolist())
    assert drawn_UN[0].tolist() == pytest.approx([0.1] * 10 + [None] * 10 + [0.1] * 10)
    assert classes.get_xlim() == shades.get_xlim() == (0.0, 3.0)
    assert colour_bar.get_ylabel() == "unit is present"


def test_a_long_film_is_a_plot_of_the_same_size() -> None:
    timeline = Timeline(("a", "b"), (), "t.png")
    for number in range(40_000):
        timeline.add([seen(number, 2.0 * number, 0, 0.25, 0.75)])
    edges, means_KN, _ = timeline._means(0)
    assert len(timeline._sums[0]) <= 1201
    assert edges[-1] == pytest.approx(80_000, rel=0.01)
    assert means_KN[0] == pytest.approx(np.full(means_KN.shape[1], 0.25))
    assert Timeline(("a", "b"), ("AU1",), "t.png").figure(0.0).axes
