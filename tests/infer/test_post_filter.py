"""The temporal post-filter of films, which sees frames one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from infer.colour_method import BLUE, COLOURS, RED, ColourMethod

from mien.infer.film_reading import FilmSettings
from mien.infer.film_report import Wishes, report_film
from mien.infer.network import BatchedNetwork
from mien.infer.post_filter import PostFilter
from mien.infer.rows import FrameRow
from mien.infer.windows import Windowing
from mien.stream.plan import DEFAULT
from mien_models.dtm.post_filter import filter_over_time


def frame(number: int, *people: tuple[int, float | None]) -> list[FrameRow]:
    """Rows of people with the probability of the first of two classes, or none."""
    return [
        FrameRow(
            frame=number,
            time_s=number / 25,
            has_face=True,
            track=track,
            probabilities=() if first is None else (first, 1 - first),
        )
        for track, first in people
    ]


def filtered(num_frames: int, frames: list[list[FrameRow]]) -> list[FrameRow]:
    post_filter = PostFilter(num_frames)
    rows = [row for one in frames for row in post_filter.push(one)]
    return [*rows, *post_filter.finish()]


def test_by_hand() -> None:
    """Two people; the second is not there in frame 1 and not predicted in frame 3."""
    frames = [
        frame(0, (0, 0.3), (1, 0.9)),
        frame(1, (0, 0.6)),
        frame(2, (0, 0.9), (1, 0.5)),
        frame(3, (0, 0.0), (1, None)),
    ]
    found = filtered(3, frames)
    assert [row.frame for row in found] == [0, 0, 1, 2, 2, 3, 3]
    first = {(row.frame, row.track): row.probabilities[:1] for row in found}
    assert first[0, 0] == pytest.approx([0.45])
    assert first[1, 0] == pytest.approx([0.6])
    assert first[2, 0] == pytest.approx([0.5])
    assert first[3, 0] == pytest.approx([0.45])
    assert (first[0, 1], first[2, 1], first[3, 1]) == ((0.9,), (0.5,), ())
    assert found[1].raw_probabilities == pytest.approx((0.9, 0.1))
    assert found[-1].raw_probabilities == ()


def test_one_frame_changes_nothing() -> None:
    frames = [frame(0, (0, 0.25)), [FrameRow(frame=1, time_s=0.04, has_face=False)]]
    assert filtered(1, frames) == [row for rows in frames for row in rows]


@pytest.mark.parametrize("num_frames", [0, -3, 4])
def test_an_even_window_has_no_middle(num_frames: int) -> None:
    with pytest.raises(ValueError, match="expected an odd number"):
        PostFilter(num_frames)


@given(
    first_T=st.lists(st.none() | st.floats(0, 1, width=32), min_size=1, max_size=20),
    reach=st.integers(1, 12),
)
def test_the_same_as_dtms_over_the_whole_film(first_T: list[float | None], reach: int) -> None:
    window = 2 * reach + 1
    frames = [frame(number, (7, first)) for number, first in enumerate(first_T)]
    found = filtered(window, frames)
    known_T = torch.tensor([first is not None for first in first_T])
    if not known_T.any():
        assert all(row.probabilities == () for row in found)
        return
    values_TK = torch.tensor([[f or 0.0, 1 - (f or 0.0)] for f in first_T], dtype=torch.float64)
    expected_TK = filter_over_time(values_TK, window, known_T)
    for row, expected_K, is_known in zip(found, expected_TK, known_T, strict=True):
        assert row.probabilities == pytest.approx(expected_K.tolist() if is_known else ())


def test_one_window_is_held() -> None:
    post_filter = PostFilter(31)
    for number in range(5000):
        assert len(list(post_filter.push(frame(number, (0, 0.5))))) == (number >= 15)
        assert len(post_filter._held) <= 31
    assert [row.frame for row in post_filter.finish()] == list(range(4985, 5000))


def test_frames_of_a_film_keep_what_was_predicted(
    film: Callable[..., Path], tmp_path: Path
) -> None:
    method = ColourMethod(align_faces=False)
    wishes = Wishes(
        label_set=COLOURS,
        settings=FilmSettings(windowing=Windowing(window_s=1.0), post_filter_frames=5),
        plan=DEFAULT,
        out=str(tmp_path / "frames.parquet"),
        rows="frames",
    )
    with BatchedNetwork(method, method.prediction_stream()) as network:
        report_film(str(film([RED, BLUE])), network, wishes)
    table = pq.read_table(tmp_path / "frames.parquet")
    raw_T = table["p_red_raw"].to_numpy()
    assert len(table) == 20
    assert raw_T[9] > 0.9
    assert raw_T[10] < 0.1
    expected = [raw_T[max(0, t - 2) : t + 3].mean() for t in range(20)]
    np.testing.assert_allclose(table["p_red"].to_numpy(), expected, atol=1e-12)
    assert table["label"].to_pylist() == ["red"] * 10 + ["blue"] * 10
    told = table.schema.metadata[b"mien.probabilities"].decode()
    assert "post-filter: mean over 5 frames of the same person" in told
