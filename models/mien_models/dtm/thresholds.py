"""Which pseudo-labels are believed: six rules behind one interface.

A rule sees the labelled confidences and the teacher's probabilities of unlabelled clips, and says
with what weight each pseudo-label counts. What it remembers stands in buffers (and, where it is
about single clips, in JSON), is made of the clips of all workers, and is in every checkpoint.

Shape legend: B labelled clips, U unlabelled clips, K classes.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mien_models.contract import UNLABELLED, JsonState
from mien_models.dtm.config import ThresholdConfig
from mien_models.layers.worker_sums import (
    gather_objects,
    gather_rows,
    num_workers,
    sum_over_workers,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledConfidence:
    """How sure the teacher is of labelled clips that it classifies correctly."""

    total_K: Tensor
    """float64 [K]: sum of the largest probabilities of the correctly classified clips."""
    count_K: Tensor
    """float64 [K]: their number."""

    @property
    def mean_K(self) -> Tensor:
        """float32 [K]: mean confidence; 0 where no clip was classified correctly."""
        return (self.total_K / self.count_K.clamp(min=1.0)).float()

    @property
    def known_K(self) -> Tensor:
        """bool [K]: classes with a correctly classified clip."""
        return self.count_K > 0

    def __add__(self, other: LabelledConfidence) -> LabelledConfidence:
        return LabelledConfidence(
            total_K=self.total_K + other.total_K, count_K=self.count_K + other.count_K
        )

    def merged(self) -> LabelledConfidence:
        """Of the clips of all workers."""
        both_2K = sum_over_workers(torch.stack([self.total_K, self.count_K]))
        return LabelledConfidence(total_K=both_2K[0], count_K=both_2K[1])


def labelled_confidence(probability_BK: Tensor, label_B: Tensor) -> LabelledConfidence:
    """The confidences of this worker's labelled clips; clips without label don't count."""
    confidence_B, class_B = probability_BK.double().max(dim=1)
    is_correct_B = (class_B == label_B) & (label_B != UNLABELLED)
    zeros_K = torch.zeros(
        probability_BK.shape[1], dtype=torch.float64, device=probability_BK.device
    )
    return LabelledConfidence(
        total_K=zeros_K.index_add(0, class_B, confidence_B * is_correct_B),
        count_K=zeros_K.index_add(0, class_B, is_correct_B.double()),
    )


def dtm_threshold(
    confidence_K: Tensor,
    epoch: int,
    *,
    beta: float,
    gamma: float | None,
    floor_K: Tensor,
    ceiling: float,
) -> Tensor:
    """``clip(beta * confidence / (1 + gamma^-epoch), floor, ceiling)`` [K]; epochs count from 1."""
    damping = 1.0 if gamma is None else 1.0 + gamma ** (-epoch)
    return (beta * confidence_K / damping).clamp(max=ceiling).maximum(floor_K)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a rule says about the pseudo-labels of a batch."""

    class_U: Tensor
    """int64 [U]: the pseudo-label."""
    confidence_U: Tensor
    """float32 [U]: its probability."""
    accepted_U: Tensor
    """bool [U]: the probability reaches the class's threshold."""
    weight_U: Tensor
    """float32 [U] in [0, 1]: how much it counts; does not fall as the probability rises."""


class ThresholdRule(nn.Module, ABC):
    """A threshold for each class, and how it moves. Fixed unless a sub-class moves it.

    Args:
        num_classes: K.
        start: every class's threshold at first.
    """

    needs_epoch_pass = False
    """Whether :meth:`end_epoch` wants the confidences of a pass over all labelled clips."""
    thresholds_K: Tensor

    def __init__(self, num_classes: int, *, start: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("thresholds_K", torch.full((num_classes,), start))

    def observe_labelled(self, confidence: LabelledConfidence, epoch: int) -> None:
        """Learns from a training batch's confidences, merged over workers; epochs from 1."""

    def end_epoch(self, confidence: LabelledConfidence | None, epoch: int) -> None:
        """Learns from all labelled clips, merged over workers, if it asked for that pass."""

    def judge(self, probability_UK: Tensor, clip_ids: Sequence[str]) -> Verdict:
        """Judges a batch of pseudo-labels and learns from it.

        Args:
            probability_UK: the teacher's, of this worker's unlabelled clips.
            clip_ids: theirs.
        """
        confidence_U, class_U = probability_UK.float().max(dim=1)
        accepted_U = confidence_U >= self.thresholds_K[class_U]
        return Verdict(
            class_U=class_U,
            confidence_U=confidence_U,
            accepted_U=accepted_U,
            weight_U=accepted_U.float(),
        )

    def json_state(self) -> JsonState:
        """What it remembers of single clips."""
        return {}

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`."""


class FixMatch(ThresholdRule):
    """One fixed threshold."""


class MovingThreshold(ThresholdRule):
    """DTM: a class's threshold follows the confidence of its correctly classified labelled clips.

    A class of which nothing was classified correctly keeps its threshold.
    """

    confidence_K: Tensor
    floor_K: Tensor

    def __init__(self, num_classes: int, config: ThresholdConfig) -> None:
        super().__init__(num_classes, start=config.start)
        floors = config.class_floors or (config.floor,) * num_classes
        if len(floors) != num_classes:
            raise ValueError(
                f"threshold.class_floors holds {len(floors)} floors for {num_classes} classes; "
                "give one a class, in the order of the classes"
            )
        self.config = config
        self.needs_epoch_pass = config.evidence == "epoch"
        self.register_buffer("floor_K", torch.tensor(floors), persistent=False)
        self.register_buffer("confidence_K", torch.full((num_classes,), config.start))

    def observe_labelled(self, confidence: LabelledConfidence, epoch: int) -> None:
        """Moves the running confidences, where those are the evidence."""
        if self.config.evidence == "running":
            rho = self.config.rho
            self._move(rho * self.confidence_K + (1 - rho) * confidence.mean_K, confidence, epoch)

    def end_epoch(self, confidence: LabelledConfidence | None, epoch: int) -> None:
        """Takes the epoch's confidences, where those are the evidence."""
        if confidence is not None:
            self._move(confidence.mean_K, confidence, epoch)

    def _move(self, mean_K: Tensor, confidence: LabelledConfidence, epoch: int) -> None:
        config, known_K = self.config, confidence.known_K
        self.confidence_K.copy_(torch.where(known_K, mean_K, self.confidence_K))
        moved_K = dtm_threshold(
            self.confidence_K,
            epoch,
            beta=config.beta,
            gamma=config.gamma,
            floor_K=self.floor_K,
            ceiling=config.ceiling,
        )
        self.thresholds_K.copy_(torch.where(known_K, moved_K, self.thresholds_K))


class FlexMatch(ThresholdRule):
    """A fixed threshold, scaled by how much a class has been learnt already.

    Remembers for each clip the last pseudo-label that reached the fixed threshold. Clips never
    sure of anything count as unused; only clips that were seen can be counted.
    """

    sure_K: Tensor

    def __init__(self, num_classes: int, tau: float) -> None:
        super().__init__(num_classes, start=0.0)
        self.tau = tau
        self._last: dict[str, int] = {}
        self.register_buffer("sure_K", torch.zeros(num_classes, dtype=torch.float64))

    def judge(self, probability_UK: Tensor, clip_ids: Sequence[str]) -> Verdict:
        """Judges by what was learnt before this batch, then remembers it."""
        verdict = super().judge(probability_UK, clip_ids)
        sure_U = torch.where(verdict.confidence_U >= self.tau, verdict.class_U, UNLABELLED)
        self._remember(gather_objects(list(zip(clip_ids, sure_U.tolist(), strict=True))))
        num_unused = len(self._last) - float(self.sure_K.sum())
        most = max(float(self.sure_K.max()), num_unused, 1.0)
        learnt_K = self.sure_K / most
        self.thresholds_K.copy_(self.tau * learnt_K / (2.0 - learnt_K))
        return verdict

    def _remember(self, seen: list[tuple[str, int]]) -> None:
        for clip_id, sure_of in seen:
            before = self._last.setdefault(clip_id, UNLABELLED)
            if sure_of == UNLABELLED:
                continue
            if before != UNLABELLED:
                self.sure_K[before] -= 1
            self.sure_K[sure_of] += 1
            self._last[clip_id] = sure_of

    def json_state(self) -> JsonState:
        """Clip id to its last sure pseudo-label, -1: none."""
        return {"last": dict(self._last)}

    def load_json_state(self, state: JsonState) -> None:
        """Restores the memory; its counts are a buffer."""
        self._last = {str(clip): int(label) for clip, label in state.get("last", {}).items()}


class FreeMatch(ThresholdRule):
    """A running mean of all confidences, scaled by each class's share of the predictions."""

    confidence: Tensor
    share_K: Tensor
    histogram_K: Tensor

    def __init__(self, num_classes: int, *, momentum: float, ceiling: float | None) -> None:
        super().__init__(num_classes, start=1.0 / num_classes)
        self.momentum, self.ceiling = momentum, ceiling
        self.register_buffer("confidence", torch.tensor(1.0 / num_classes))
        for name in ("share_K", "histogram_K"):
            self.register_buffer(name, torch.full((num_classes,), 1.0 / num_classes))

    def judge(self, probability_UK: Tensor, clip_ids: Sequence[str]) -> Verdict:
        """Learns from the batch first, then judges it."""
        confidence_U, class_U = probability_UK.float().max(dim=1)
        hits_UK = nn.functional.one_hot(class_U, self.num_classes).float()
        sums = torch.cat(
            [confidence_U.sum()[None], probability_UK.float().sum(dim=0), hits_UK.sum(dim=0)]
        )
        means = sum_over_workers(sums) / (len(class_U) * num_workers())
        step = 1.0 - self.momentum
        self.confidence.lerp_(means[0], step)
        self.share_K.lerp_(means[1 : 1 + self.num_classes], step)
        self.histogram_K.lerp_(means[1 + self.num_classes :], step)
        thresholds_K = self.confidence * self.share_K / self.share_K.max()
        self.thresholds_K.copy_(thresholds_K.clamp(max=self.ceiling or 1.0))
        return super().judge(probability_UK, clip_ids)


class SoftMatch(ThresholdRule):
    """No cut: weights fall like a bell below the running mean of the confidences."""

    variance: Tensor

    def __init__(self, num_classes: int, *, momentum: float, width: float) -> None:
        super().__init__(num_classes, start=1.0 / num_classes)
        self.momentum, self.width = momentum, width
        self.register_buffer("variance", torch.tensor(1.0))

    def judge(self, probability_UK: Tensor, clip_ids: Sequence[str]) -> Verdict:
        """Learns from the batch first, then judges it; accepted is what reaches the mean."""
        confidences_U = gather_rows(probability_UK.float().max(dim=1).values)
        step = 1.0 - self.momentum
        self.thresholds_K.lerp_(confidences_U.mean().expand_as(self.thresholds_K), step)
        if len(confidences_U) > 1:
            self.variance.lerp_(confidences_U.var(), step)
        verdict = super().judge(probability_UK, clip_ids)
        below_U = (verdict.confidence_U - self.thresholds_K[0]).clamp(max=0.0)
        spread = 2.0 * self.variance / self.width**2
        weight_U = torch.exp(-below_U.square() / spread.clamp(min=1e-12))
        return replace(verdict, weight_U=weight_U)


def surest_of_class(verdict: Verdict, cap: float) -> Verdict:
    """Refuses what a class has too much of: all but its surest clips of all workers' batch.

    Clips as sure as the last one that is kept are kept too.

    Args:
        verdict: of this worker's clips.
        cap: share of all workers' unlabelled clips that one class may get, at least one clip.
    """
    accepted = gather_rows((verdict.weight_U > 0).long()).bool()
    confidences, classes = gather_rows(verdict.confidence_U), gather_rows(verdict.class_U)
    allowed = max(1, int(cap * len(classes)))
    is_kept_U = torch.ones_like(verdict.accepted_U)
    for index in verdict.class_U.unique().tolist():
        sure = confidences[accepted & (classes == index)]
        if len(sure) > allowed:
            least = sure.topk(allowed).values[-1]
            is_kept_U &= (verdict.class_U != index) | (verdict.confidence_U >= least)
    return replace(
        verdict,
        accepted_U=verdict.accepted_U & is_kept_U,
        weight_U=verdict.weight_U * is_kept_U,
    )


_ADA_CM = ThresholdConfig(
    rule="ada_cm", beta=0.97, gamma=math.e, floor=0.8, ceiling=1.0, start=0.8, evidence="epoch"
)
"""Ada-CM's published constants."""


def make_rule(config: ThresholdConfig, num_classes: int) -> ThresholdRule:
    """The rule that a configuration names.

    Raises:
        ValueError: another number of floors than classes.
    """
    match config.rule:
        case "dtm":
            return MovingThreshold(num_classes, config)
        case "ada_cm":
            return MovingThreshold(num_classes, _ADA_CM)
        case "fixmatch":
            return FixMatch(num_classes, start=config.tau)
        case "flexmatch":
            return FlexMatch(num_classes, config.tau)
        case "freematch":
            return FreeMatch(num_classes, momentum=config.momentum, ceiling=config.free_ceiling)
        case "softmatch":
            return SoftMatch(num_classes, momentum=config.momentum, width=config.soft_width)
