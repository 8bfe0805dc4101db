"""What hides a picture, and by how much voices are shifted."""

from __future__ import annotations

import numpy as np
import pytest

from mien.clips.anonymise_pictures import hide, show_only, without
from mien.clips.anonymise_sound import semitones_of, shift_pitch
from mien.media.faces import Face


def test_a_mosaic_has_few_cells_and_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    mosaic = hide(noise)
    assert mosaic.shape == noise.shape
    assert len(np.unique(mosaic.reshape(-1, 3), axis=0)) <= 48
    assert set(np.unique(mosaic) % 16) == {8}
    np.testing.assert_array_equal(mosaic[:20, :20], np.broadcast_to(mosaic[0, 0], (20, 20, 3)))
    assert np.abs(mosaic.astype(int) - 127).max() <= 24  # means of 400 pixels
    assert hide(noise[:3, :2]).shape == (3, 2, 3)


def test_another_s_face_is_hidden_even_inside_of_the_shown_one() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    points = [[70, 80], [110, 80], [90, 100], [75, 125], [105, 125]]
    person = Face(
        box=np.array([55, 50, 125, 145], dtype=np.float32),
        landmarks=np.array(points, dtype=np.float32),
        score=0.9,
    )
    box = np.array([100, 60, 140, 100], dtype=np.float32)
    other = Face(box=box, landmarks=person.landmarks, score=0.9)
    shown = show_only(noise, person, [other])
    np.testing.assert_array_equal(shown[130, 60:120], noise[130, 60:120])
    hidden = slice(60 - 14, 100 + 14), slice(100 - 14, 140 + 14)
    np.testing.assert_array_equal(shown[hidden], hide(noise)[hidden])
    np.testing.assert_array_equal(without(noise, [other])[hidden], hide(noise)[hidden])
    np.testing.assert_array_equal(without(noise, [other])[:40], noise[:40])
    np.testing.assert_array_equal(show_only(noise, None, [other]), hide(noise))


def test_shifts_are_between_three_and_six_semitones() -> None:
    shifts = np.array([semitones_of(share) for share in np.linspace(0, 0.999, 200)])
    assert (np.abs(shifts) >= 3).all()
    assert (np.abs(shifts) <= 6).all()
    assert (shifts > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert len(shift_pitch(np.zeros(0, dtype=np.float32), 48_000, 3.0)) == 0
