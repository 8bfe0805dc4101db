"""What chance does to a figure: against computation by hand, and counted over many resamples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from mien.monitor.bootstrap import moves_by_chance, shares_by_chance
from mien.monitor.signals import jensen_shannon

Floats = NDArray[np.float64]


def p_value(found: tuple[float, Floats]) -> float:
    figure, drawn_R = found
    return (1 + float((drawn_R >= figure).sum())) / (1 + len(drawn_R))


def films(rng: np.random.Generator, count: int, windows: float, evenness: float) -> Floats:
    """Windows by class; a film has a mood of its own, the more the less even."""
    moods = rng.dirichlet(np.full(5, evenness), count)
    return np.stack([rng.multinomial(1 + rng.poisson(windows), mood) for mood in moods]).astype(
        np.float64
    )


def cloud(
    rng: np.random.Generator, count: int, rows: float, own: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Features of films of their own look each."""
    unit_N = np.repeat(np.arange(count), 1 + rng.poisson(rows, count))
    looks = own * rng.normal(size=(count, 8))
    return looks[unit_N] + rng.normal(size=(len(unit_N), 8)), unit_N


def test_the_distance_is_that_of_the_shares() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 2.0]])
    new = np.array([[3.0, 0.0], [0.0, 1.0]])
    figure, drawn_R = shares_by_chance(reference, new, lambda p, q: np.abs(p - q)[:, 0])
    assert figure == pytest.approx(0.25)
    assert drawn_R.shape == (4000,)
    assert drawn_R.min() >= 0


def test_the_class_distance_is_that_of_jensen_and_shannon() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.dirichlet(np.ones(4), 5), rng.dirichlet(np.ones(4), 5)
    expected = jensenshannon(one, other, base=2, axis=1)
    assert jensen_shannon(one, other) == pytest.approx(expected)
    assert jensen_shannon(np.eye(2)[:1], np.eye(2)[1:]) == pytest.approx(1)


def test_the_move_is_the_energy_distance() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(7, 3)), 0.5 + rng.normal(size=(5, 3))

    def mean_distance(one: Any, other: Any) -> float:
        return float(np.mean([[np.linalg.norm(a - b) for b in other] for a in one]))

    within = mean_distance(old, old)
    energy = 2 * mean_distance(old, new) - within - mean_distance(new, new)
    figure, _ = moves_by_chance((old, np.arange(7)), (new, np.arange(5)))
    assert figure == pytest.approx((energy / within) ** 0.5)
    still, _ = moves_by_chance((old, np.arange(7)), (old, np.arange(7)))
    assert still == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("evenness", [20.0, 0.4])
def test_alarms_are_as_rare_as_their_level_says(evenness: float) -> None:
    """Long films of one mood against many short clips: rows of a film hang together."""
    rng = np.random.default_rng(1)
    values = [
        p_value(
            shares_by_chance(
                films(rng, 80, 0, evenness),
                films(rng, 25, 12, evenness),
                jensen_shannon,
                num_draws=200,
            )
        )
        for _ in range(80)
    ]
    assert np.mean(np.asarray(values) <= 0.05) <= 0.125
    assert np.mean(np.asarray(values) <= 0.5) > 0.25  # not by never alarming


def test_features_of_a_few_people_do_not_alarm() -> None:
    rng = np.random.default_rng(2)
    values = [
        p_value(moves_by_chance(cloud(rng, 40, 4, 0.7), cloud(rng, 20, 1, 0.7), num_draws=200))
        for _ in range(60)
    ]
    assert np.mean(np.asarray(values) <= 0.05) <= 0.125
    moved = cloud(rng, 20, 1, 0.7)
    assert p_value(moves_by_chance(cloud(rng, 40, 4, 0.7), (moved[0] + 0.8, moved[1]))) < 0.01
