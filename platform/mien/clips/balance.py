"""Giving whole people to parts so that each part gets its share of the clips of every class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mien.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """People and their clips; rows are those of a manifest."""

    names: tuple[str, ...]
    person_of_row: npt.NDArray[np.int64]
    label_of_row: npt.NDArray[np.int64]
    """Number of each row's label; clips without one count as a class of their own."""

    def histograms(self) -> list[dict[int, int]]:
        """For each person: label -> number of clips."""
        pairs = np.stack([self.person_of_row, self.label_of_row])
        (people, labels), counts = np.unique(pairs, axis=1, return_counts=True)
        result: list[dict[int, int]] = [{} for _ in self.names]
        entries = zip(people.tolist(), labels.tolist(), counts.tolist(), strict=True)
        for person, label, count in entries:
            result[person][label] = count
        return result


ALL = -1
"""Counted like a label: all clips of a person."""
PERSON = -2
"""Counted like a label: the person as such."""


class _Balance:
    """Counts of each part, and what another person would do to them.

    The measure is chi-square like: the sum over parts and labels of (count - target)^2 / target,
    with target = share x number of clips of that label in all.
    """

    def __init__(self, histograms: Sequence[dict[int, int]], shares: Sequence[float]) -> None:
        totals: dict[int, int] = defaultdict(int)
        for histogram in histograms:
            for label, count in histogram.items():
                totals[label] += count
        self._targets = [{k: share * n for k, n in totals.items()} for share in shares]
        self._counts: list[dict[int, int]] = [defaultdict(int) for _ in shares]

    def cost(self, part: int, histogram: dict[int, int], sign: int = 1) -> float:
        """Change of the measure if a person is added to a part (sign 1) or taken away (-1)."""
        counts, targets = self._counts[part], self._targets[part]
        return sum(
            (2 * sign * (counts[label] - targets[label]) * count + count * count) / targets[label]
            for label, count in histogram.items()
        )

    def add(self, part: int, histogram: dict[int, int], sign: int = 1) -> None:
        """Add a person to a part (sign 1), or take them away (-1)."""
        for label, count in histogram.items():
            self._counts[part][label] += sign * count


def apportion(people: People, shares: Sequence[float], seed: int) -> npt.NDArray[np.int64]:
    """Give each person to a part: people with many clips first, each where they fit best.

    Among people with about as many clips (the same power of 2) the order is drawn from the seed
    and their names, so that the order of rows makes no difference.

    Args:
        people: at least as many as there are shares above 0.
        shares: of each part in the clips; a part with share 0 gets nobody, others somebody.
        seed: another seed gives other parts.

    Returns:
        Number of the part of each person [people].
    """
    histograms = people.histograms()
    for histogram in histograms:
        histogram |= {ALL: sum(histogram.values()), PERSON: 1}
    order = sorted(
        range(len(histograms)),
        key=lambda p: (-histograms[p][ALL].bit_length(), derive_seed(seed, people.names[p])),
    )
    open_parts = [part for part, share in enumerate(shares) if share > 0]
    balance = _Balance(histograms, shares)
    part_of = np.zeros(len(histograms), dtype=np.int64)
    for person in order:
        best = min(open_parts, key=lambda part: balance.cost(part, histograms[person]))
        part_of[person] = best
        balance.add(best, histograms[person])
    _fill_empty_parts(part_of, open_parts, order, histograms, balance)
    return part_of


def _fill_empty_parts(
    part_of: npt.NDArray[np.int64],
    open_parts: Sequence[int],
    order: Sequence[int],
    histograms: Sequence[dict[int, int]],
    balance: _Balance,
) -> None:
    """Give each part without anybody the person who is missed least elsewhere."""
    for part in open_parts:
        if (part_of == part).any():
            continue
        sizes = np.bincount(part_of)
        spare = [person for person in order if sizes[part_of[person]] > 1]
        person = min(
            spare,
            key=lambda p: (
                balance.cost(part, histograms[p]) + balance.cost(int(part_of[p]), histograms[p], -1)
            ),
        )
        balance.add(int(part_of[person]), histograms[person], -1)
        balance.add(part, histograms[person])
        part_of[person] = part
