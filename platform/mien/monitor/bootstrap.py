"""How far chance alone moves a figure between two samples whose rows come in films or people.

Rows of one film are not independent, so films are drawn, with all of their rows, from each of the
two samples; what a draw moves the sample's mean by is what chance does. Put together around one
common mean, these moves give the figure's distribution where nothing has changed. Each sample keeps
its own spread: a reference of posed clips and films of one mood each don't vary alike, and a
permutation test, which takes them for alike, would alarm too often.

Shapes: N rows, G units (films, people), K categories, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from mien.evaluate.bootstrap import draw_groups

Floats = NDArray[np.float64]
Distance = Callable[[Floats, Floats], Floats]
NUM_DRAWS = 4000
MOST_UNITS = 200
"""More films or people are drawn in so many groups of them: as valid, and not slower."""
_TINY = float(np.finfo(float).tiny)


def shares_by_chance(
    reference_GK: Floats, new_GK: Floats, distance: Distance, *, num_draws: int = NUM_DRAWS
) -> tuple[float, Floats]:
    """The distance between two samples' shares, and what it would be by chance.

    Args:
        reference_GK: how often each unit of the reference has each category; no empty unit.
        new_GK: the same of the new sample.
        distance: of shares [R, K] and [R, K], a value for each draw.
        num_draws: R.

    Returns:
        The distance, and R distances [R] where nothing has changed.
    """
    parts = tuple(_grouped(part) for part in (reference_GK, new_GK))
    means = [part.sum(axis=0, keepdims=True) / part.sum() for part in parts]
    common_1K = (means[0] + means[1]) / 2
    drawn = []
    for seed, (part, mean_1K) in enumerate(zip(parts, means, strict=True)):
        draws_RG = draw_groups(len(part), num_draws, seed)
        totals_RK = draws_RG @ part
        moved_RK = totals_RK / totals_RK.sum(axis=1, keepdims=True) - mean_1K
        shares_RK = np.clip(common_1K + moved_RK * _correction(len(part)), 0, None)
        drawn.append(shares_RK / shares_RK.sum(axis=1, keepdims=True))
    return float(distance(means[0], means[1])[0]), distance(drawn[0], drawn[1])


def moves_by_chance(
    reference: tuple[Floats, NDArray[np.int64]],
    new: tuple[Floats, NDArray[np.int64]],
    *,
    num_draws: int = NUM_DRAWS,
) -> tuple[float, Floats]:
    """How far the cloud of features has moved, and how far chance would move it.

    The energy distance (Szekely and Rizzo, 2013) 2 E|X-Y| - E|X-X'| - E|Y-Y'| as a share of the
    reference's E|X-X'|, and of that the root: for clouds of one shape about the length of the move
    over the usual distance of two rows. 0 only for equal distributions.

    Args:
        reference: features [N, D] and the unit of each row [N].
        new: the same of the new sample.
        num_draws: R.

    Returns:
        The move, and R moves [R] where nothing has changed.
    """
    rows_ND = np.concatenate([reference[0], new[0]])
    units = [np.unique(part[1], return_inverse=True)[1] % MOST_UNITS for part in (reference, new)]
    first = int(units[0].max()) + 1
    owner_N = np.concatenate([units[0], units[1] + first])
    num_units = int(owner_N.max()) + 1
    member_NG = np.zeros((len(rows_ND), num_units))
    member_NG[np.arange(len(rows_ND)), owner_N] = 1.0
    # Distances between rows, summed up over pairs of units.
    distance_GG = member_NG.T @ cdist(rows_ND, rows_ND) @ member_NG
    sizes_G = member_NG.sum(axis=0)
    is_new_G = np.arange(num_units) >= first
    scale = distance_GG[np.ix_(~is_new_G, ~is_new_G)].sum() / sizes_G[~is_new_G].sum() ** 2

    def moves(weights_RG: Floats) -> Floats:
        energy_R = -np.einsum("rg,rg->r", weights_RG @ distance_GG, weights_RG)
        return np.asarray(np.sqrt(np.clip(energy_R, 0, None) / max(scale, _TINY)))

    plain, drawn = np.zeros((1, num_units)), np.zeros((num_draws, num_units))
    for seed, (sign, chosen_G) in enumerate(((-1.0, ~is_new_G), (1.0, is_new_G))):
        sizes = sizes_G[chosen_G]
        draws_RG = draw_groups(len(sizes), num_draws, seed)
        weights_RG = draws_RG / (draws_RG @ sizes)[:, None] - 1 / sizes.sum()
        plain[:, chosen_G] = sign / sizes.sum()
        drawn[:, chosen_G] = sign * weights_RG * _correction(len(sizes))
    return float(moves(plain)[0]), moves(drawn)


def _grouped(values_GK: Floats) -> Floats:
    """Sums over units whose numbers leave the same rest."""
    sums_GK = np.zeros((min(len(values_GK), MOST_UNITS), values_GK.shape[1]))
    np.add.at(sums_GK, np.arange(len(values_GK)) % MOST_UNITS, values_GK)
    return sums_GK


def _correction(num_units: int) -> float:
    """A bootstrap of few units moves too little."""
    return math.sqrt(num_units / (num_units - 1))
