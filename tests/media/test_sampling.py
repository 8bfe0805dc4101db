"""Which frames are looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.media.sampling import uniform_segments, uniform_segments_paper

PUBLISHED_TEST_FRAMES = {
    16: list(range(16)),
    17: [*range(8), *range(9, 17)],
    33: list(range(1, 32, 2)),
    100: [3, 9, 15, 21, 28, 34, 40, 46, 53, 59, 65, 71, 78, 84, 90, 96],
}


@pytest.mark.parametrize("num_source", list(PUBLISHED_TEST_FRAMES))
def test_published_test_frames(num_source: int) -> None:
    expected = PUBLISHED_TEST_FRAMES[num_source]
    assert uniform_segments_paper(num_source, 16).tolist() == expected
    assert uniform_segments(num_source, 16).tolist() == expected


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_short_clips_repeat_their_last_frame_in_the_paper(rng: np.random.Generator | None) -> None:
    expected = [0, 1, 2, 3, 4, 4, 4, 4]
    assert uniform_segments_paper(5, 8, rng).tolist() == expected


def test_short_clips_repeat_evenly() -> None:
    assert uniform_segments(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert uniform_segments(1, 4).tolist() == [0, 0, 0, 0]


@given(st.integers(16, 31), st.integers(0, 2**32 - 1))
def test_the_paper_never_sees_the_tail(num_source: int, seed: int) -> None:
    chosen = uniform_segments_paper(num_source, 16, np.random.default_rng(seed))
    assert chosen.tolist() == list(range(16))


@given(st.integers(1, 500), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_one_frame_of_every_segment(num_source: int, num_frames: int, seed: int) -> None:
    for rng in (None, np.random.default_rng(seed)):
        chosen = uniform_segments(num_source, num_frames, rng)
        assert chosen.shape == (num_frames,)
        borders = num_source * np.arange(num_frames + 1) / num_frames
        assert np.all(chosen >= np.floor(borders[:-1] - 1e-9))
        assert np.all(chosen < np.ceil(borders[1:] + 1e-9))
        assert np.all(np.diff(chosen) >= 0)
    middles = uniform_segments(num_source, num_frames)
    assert (
        np.array_equal(middles, (num_source - 1 - middles)[::-1])
        or num_source % 2 == 0
        or (num_frames % 2 == 0)
    )


def test_training_reaches_every_frame_evenly() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(21)
    for _ in range(4000):
        np.add.at(counts, uniform_segments(21, 8, rng), 1)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 21, atol=0.004)


@pytest.mark.parametrize(("num_source", "num_frames"), [(0, 4), (4, 0)])
def test_nothing_to_choose(num_source: int, num_frames: int) -> None:
    for sample in (uniform_segments, uniform_segments_paper):
        with pytest.raises(ValueError, match="at least 1"):
            sample(num_source, num_frames)
