"""Which clips of a class are remembered: selectors that rank candidates, best first.

Every selector has the prefix property: of a list cut to its first m clips, those are the clips
that it would have kept with m as the budget (``reservoir`` in distribution).

Shape legend: N candidates of one class, D features, S classes learnt so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.complex_fer.config import Selector
from mien_models.layers.clip_random import clip_uniform


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The training clips of one class, as the network that just learnt it sees them."""

    clip_ids: tuple[str, ...]
    """Sorted, so that nothing depends on who decoded what."""
    logits_NS: Tensor
    features_ND: Tensor
    subject_N: Tensor
    """The same number for the same person, -1 where unknown."""
    seed_N: Tensor
    """A number that belongs to each clip, for selectors that draw."""
    class_index: int
    """Among the S classes."""


Rank = Callable[[Candidates], tuple[Tensor, Tensor]]
"""Gives the order (indices, best first) and each candidate's score."""


def psmr_scores(logits_NS: Tensor, class_index: int, kind: str) -> Tensor:
    """Predictive sorting's score [N] of clips of one class: logit, probability or margin."""
    own_N = logits_NS[:, class_index]
    if kind == "logit":
        return own_N
    if kind == "probability":
        return logits_NS.softmax(dim=1)[:, class_index]
    others_NS = logits_NS.clone()
    others_NS[:, class_index] = -torch.inf
    return own_N - others_NS.max(dim=1).values


def _psmr(kind: str) -> Rank:
    def rank(clips: Candidates) -> tuple[Tensor, Tensor]:
        scores_N = psmr_scores(clips.logits_NS.double(), clips.class_index, kind)
        return scores_N.argsort(descending=True, stable=True), scores_N

    return rank


def _closest_to_mean(clips: Candidates) -> tuple[Tensor, Tensor]:
    unit_ND = F.normalize(clips.features_ND.double(), dim=1)
    distance_N = (unit_ND - unit_ND.mean(dim=0)).norm(dim=1)
    return distance_N.argsort(stable=True), -distance_N


def _herding(clips: Candidates) -> tuple[Tensor, Tensor]:
    """iCaRL: each next clip brings the mean of those chosen closest to the mean of all."""
    unit_ND = F.normalize(clips.features_ND.double(), dim=1)
    mean_D = unit_ND.mean(dim=0)
    total_D = torch.zeros_like(mean_D)
    is_left_N = torch.ones(len(unit_ND), dtype=torch.bool)
    order: list[int] = []
    scores_N = torch.zeros(len(unit_ND), dtype=torch.float64)
    for number in range(1, len(unit_ND) + 1):
        gap_N = (mean_D - (total_D + unit_ND) / number).norm(dim=1)
        chosen = int(gap_N.masked_fill(~is_left_N, torch.inf).argmin())
        order.append(chosen)
        scores_N[chosen] = -gap_N[chosen]
        is_left_N[chosen] = False
        total_D = total_D + unit_ND[chosen]
    return torch.tensor(order), scores_N


def _random(clips: Candidates) -> tuple[Tensor, Tensor]:
    draw_N = clip_uniform(clips.seed_N, 1, stream=1)[:, 0]
    return draw_N.argsort(stable=True), -draw_N


def _reservoir(clips: Candidates) -> tuple[Tensor, Tensor]:
    """Vitter's algorithm R over the clips as they come: the nth takes a random place in the list.

    Whoever stood there moves to the end, so the first m are a reservoir of size m.
    """
    draw_N = clip_uniform(clips.seed_N, 1, stream=2)[:, 0].tolist()
    order: list[int] = []
    for number, draw in enumerate(draw_N):
        place = int(draw * (number + 1))
        order.append(number)
        order[place], order[-1] = order[-1], order[place]
    scores_N = torch.zeros(len(order))
    scores_N[torch.tensor(order)] = -torch.arange(len(order), dtype=torch.float32)
    return torch.tensor(order), scores_N


SELECTORS: Mapping[Selector, Rank] = {
    "psmr_logit": _psmr("logit"),
    "psmr_probability": _psmr("probability"),
    "psmr_margin": _psmr("margin"),
    "herding": _herding,
    "closest_to_mean": _closest_to_mean,
    "random": _random,
    "reservoir": _reservoir,
}


def capped(order: Sequence[int], subjects: Sequence[int], cap: int | None) -> list[int]:
    """An order in which clips beyond ``cap`` of one person come last; unknown people aren't capped.

    >>> capped([0, 1, 2, 3], subjects=[7, 7, 8, 9], cap=1)
    [0, 2, 3, 1]
    """
    if cap is None:
        return list(order)
    seen: Counter[int] = Counter()
    first: list[int] = []
    last: list[int] = []
    for index in order:
        subject = subjects[index]
        seen[subject] += 1
        (first if subject < 0 or seen[subject] <= cap else last).append(index)
    return first + last
