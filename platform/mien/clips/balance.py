"""Giving whole people to parts so that each part gets its share of the clips of every class."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
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
SECOND_ROUND_MAX_PEOPLE = 100_000
"""With more people than that, who goes where one by one is even enough."""


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
        # Exactly rounded, so that the order of labels, which is that of rows, decides no tie.
        return math.fsum(
            (2 * sign * (counts[label] - targets[label]) * count + count * count) / targets[label]
            for label, count in histogram.items()
        )

    def add(self, part: int, histogram: dict[int, int], sign: int = 1) -> None:
        """Add a person to a part (sign 1), or take them away (-1)."""
        for label, count in histogram.items():
            self._counts[part][label] += sign * count


def apportion(people: People, shares: Sequence[float], seed: int) -> npt.NDArray[np.int64]:
    """Give each person to a part: those with rare labels first, each where they fit best.

    Rare labels first because nothing can make up for them later (Sechidis et al. 2011, "On the
    stratification of multi-label data"); then people with many clips. Among people who are about
    alike in both (the same powers of 2) the order is drawn from the seed and their names, so that
    the order of rows makes no difference. A second round moves those who fit better elsewhere.

    Args:
        people: at least as many as there are shares above 0.
        shares: of each part in the clips; a part with share 0 gets nobody, others somebody.
        seed: another seed gives other parts.

    Returns:
        Number of the part of each person [people].
    """
    histograms = people.histograms()
    order = _order(people, histograms, seed)
    for histogram in histograms:
        histogram |= {ALL: sum(histogram.values()), PERSON: 1}
    open_parts = [part for part, share in enumerate(shares) if share > 0]
    balance = _Balance(histograms, shares)
    part_of = np.zeros(len(histograms), dtype=np.int64)
    for person in order:
        best = min(open_parts, key=lambda part: balance.cost(part, histograms[person]))
        part_of[person] = best
        balance.add(best, histograms[person])
    if len(order) <= SECOND_ROUND_MAX_PEOPLE:
        for person in order:
            now = int(part_of[person])
            balance.add(now, histograms[person], -1)
            # `now` comes first, so that nobody moves for nothing.
            parts = sorted(open_parts, key=lambda part: part != now)
            best = min(parts, key=lambda part: balance.cost(part, histograms[person]))
            part_of[person] = best
            balance.add(best, histograms[person])
    _fill_empty_parts(part_of, open_parts, order, histograms, balance)
    return part_of


def _order(people: People, histograms: Sequence[dict[int, int]], seed: int) -> list[int]:
    people_with = Counter(label for histogram in histograms for label in histogram)

    def key(person: int) -> tuple[int, int, int]:
        histogram = histograms[person]
        rarest = min(people_with[label] for label in histogram)
        drawn = derive_seed(seed, people.names[person])
        return rarest.bit_length(), -sum(histogram.values()).bit_length(), drawn

    return sorted(range(len(histograms)), key=key)


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
