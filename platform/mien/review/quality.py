"""How well doubted clips are the wrong ones, where somebody knows which are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundErrors:
    """Doubted clips against the truth."""

    found: int
    """Doubted clips whose truth is known."""
    right: int
    """Of those, with a wrong label."""
    wrong_labels: int
    """Wrong labels that there are."""

    @property
    def precision(self) -> float | None:
        """Share of the doubted clips whose label is wrong; None where nothing was doubted."""
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """Share of the wrong labels that were doubted; None where there is no wrong label."""
        return self.right / self.wrong_labels if self.wrong_labels else None


def found_errors(
    doubted: Collection[str], given: Mapping[str, str], truth: Mapping[str, str]
) -> FoundErrors:
    """Counts doubted clips.

    Args:
        doubted: clip ids.
        given: label of every clip that could have been doubted.
        truth: true class by clip id, of those where it is known.
    """
    known = {clip: label for clip, label in given.items() if clip in truth}
    wrong = {clip for clip, label in known.items() if truth[clip] != label}
    found = set(doubted) & set(known)
    return FoundErrors(found=len(found), right=len(found & wrong), wrong_labels=len(wrong))


def ranking_auc(doubt: Mapping[str, float], is_wrong: Collection[str]) -> float | None:
    """Probability that a clip with a wrong label is doubted more than one with a right one.

    None where there are no clips of one of both kinds.
    """
    wrong = set(is_wrong)
    is_wrong_N = np.array([clip in wrong for clip in doubt], dtype=bool)
    num_wrong, num_right = int(is_wrong_N.sum()), int((~is_wrong_N).sum())
    if not num_wrong or not num_right:
        return None
    rank_N = rankdata(list(doubt.values()))
    ahead = float(rank_N[is_wrong_N].sum()) - num_wrong * (num_wrong + 1) / 2
    return ahead / (num_wrong * num_right)
