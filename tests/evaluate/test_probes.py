"""Probes find what was planted in features, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from mien.evaluate.probes import identity_probe, regression_probe

RNG = np.random.default_rng(0)
PEOPLE = [f"p{i // 8}" for i in range(160)]
NUMBERS = np.arange(160) // 8
NOISE = RNG.normal(size=(160, 16))
FACES = RNG.normal(size=(20, 16))


def test_planted_identity_is_found() -> None:
    found = identity_probe(NOISE + 4 * FACES[NUMBERS], PEOPLE)
    assert found.linear.value > 0.95
    assert found.nearest.value > 0.95
    assert (found.chance, found.num_people, found.num_clips) == (0.05, 20, 160)


def test_no_identity_is_chance() -> None:
    found = identity_probe(NOISE, PEOPLE)
    assert found.linear.interval.low < 0.06
    assert found.linear.value < 0.15
    assert found.nearest.value < 0.15


def test_more_identity_is_more_accuracy() -> None:
    shares = [identity_probe(NOISE + s * FACES[NUMBERS], PEOPLE).linear.value for s in (0, 0.7, 2)]
    assert shares[0] < shares[1] - 0.1
    assert shares[1] < shares[2] - 0.1


def test_strangers_and_people_with_few_clips_are_left_out() -> None:
    people = [None, "rare", "rare", *PEOPLE[3:]]
    found = identity_probe(NOISE, people)
    assert (found.left_out, found.num_people) == (3, 20)
    with pytest.raises(ValueError, match="two people with at least 3 clips each"):
        identity_probe(NOISE[:4], ["a", "a", "a", "b"])


def test_a_planted_angle_is_read_from_strangers() -> None:
    angle = RNG.normal(0, 10, 160)
    features = NOISE.copy()
    features[:, 3] += angle
    found = regression_probe("yaw_deg", features, angle, PEOPLE)
    assert found.r2 > 0.95
    assert found.interval.low < found.r2 < found.interval.high
    assert found.mean_error < 1.5
    nothing = regression_probe("yaw_deg", NOISE, angle, PEOPLE)
    assert nothing.r2 < 0.1


def test_an_angle_that_only_tells_the_person_is_not_read() -> None:
    """Everybody has one angle and a face that says nothing of it: known people could be looked up,
    strangers can't."""
    angle = RNG.normal(0, 10, 20)[NUMBERS]
    found = regression_probe("yaw_deg", NOISE + 6 * FACES[NUMBERS], angle, PEOPLE)
    assert found.r2 < 0.2


def test_unknown_angles_are_skipped() -> None:
    angle = RNG.normal(0, 10, 160)
    angle[:40] = np.nan
    assert regression_probe("roll_deg", NOISE, angle, PEOPLE).num_clips == 120
    with pytest.raises(ValueError, match="a probe of roll_deg needs 3 people"):
        regression_probe("roll_deg", NOISE, np.full(160, np.nan), PEOPLE)
