"""What became of the pseudo-labels of an epoch: counts, accuracy, confidence, warnings.

Shape legend: U unlabelled clips, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mien_models.contract import UNLABELLED
from mien_models.dtm.thresholds import LabelledConfidence, Verdict
from mien_models.layers.worker_sums import sum_over_workers

_DOMINANT_SHARE = 0.9
"""A class with more of the accepted pseudo-labels than this is warned of."""
_OFFERED, _ACCEPTED, _JUDGED, _RIGHT, _LABELLED_RIGHT, _LABELLED_SURE = range(6)
"""Rows of the tally."""


class PseudoLabelMonitor(nn.Module):
    """Counts pseudo-labels over an epoch; nothing that trains reads it.

    The counts are of all workers' clips and stand in buffers, so that a resumed epoch's are whole.

    Args:
        classes: their names.
    """

    tally_RK: Tensor
    confidence_sum: Tensor
    previous_confidence: Tensor

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("tally_RK", torch.zeros(6, len(classes), dtype=torch.float64))
        self.register_buffer("confidence_sum", torch.zeros((), dtype=torch.float64))
        # Minus one: there was no epoch before.
        self.register_buffer("previous_confidence", torch.tensor(-1.0, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, verdict: Verdict, truth_U: Tensor, labelled: LabelledConfidence) -> None:
        """Counts a batch.

        Args:
            verdict: of this worker's unlabelled clips.
            truth_U: their true classes, ``UNLABELLED`` where nobody knows.
            labelled: of all workers' labelled clips.
        """
        class_U, accepted_U = verdict.class_U, verdict.accepted_U
        judged_U = accepted_U & (truth_U != UNLABELLED)
        chosen = (
            torch.ones_like(accepted_U),
            accepted_U,
            judged_U,
            judged_U & (truth_U == class_U),
        )
        counts = torch.stack([chosen_U.double() for chosen_U in chosen])
        local_RK = torch.zeros_like(self.tally_RK[: len(chosen)]).index_add(1, class_U, counts)
        confidence = verdict.confidence_U.double().sum()[None]
        merged = sum_over_workers(torch.cat([local_RK.flatten(), confidence]))
        self.tally_RK[: len(chosen)] += merged[:-1].view_as(local_RK)
        self.confidence_sum += merged[-1]
        self.tally_RK[_LABELLED_RIGHT] += labelled.count_K
        self.tally_RK[_LABELLED_SURE] += labelled.total_K

    def logs(self, thresholds_K: Tensor) -> dict[str, float]:
        """The epoch's curves.

        ``pseudo_accuracy`` only where truth is known, ``pseudo_drift`` (change of the mean
        confidence since the epoch before) from the second epoch on.
        """
        tally = self.tally_RK.tolist()
        offered, accepted, judged, right = (sum(row) for row in tally[:4])
        logs = {"pseudo_accepted": _share(accepted, offered)}
        logs["pseudo_confidence"] = self._mean_confidence()
        logs["labelled_confidence"] = _share(
            sum(tally[_LABELLED_SURE]), sum(tally[_LABELLED_RIGHT])
        )
        if judged:
            logs["pseudo_accuracy"] = right / judged
        if float(self.previous_confidence) >= 0:
            logs["pseudo_drift"] = self._mean_confidence() - float(self.previous_confidence)
        for index, name in enumerate(self.classes):
            logs[f"threshold/{name}"] = float(thresholds_K[index])
            logs[f"accepted/{name}"] = tally[_ACCEPTED][index]
            logs[f"pseudo_share/{name}"] = _share(tally[_OFFERED][index], offered)
            if tally[_JUDGED][index]:
                logs[f"pseudo_accuracy/{name}"] = tally[_RIGHT][index] / tally[_JUDGED][index]
        return {name: value for name, value in logs.items() if not math.isnan(value)}

    def warnings(self, thresholds_K: Tensor) -> tuple[str, ...]:
        """A line for classes that got nothing, and one for a class that got nearly everything."""
        offered, accepted = (self.tally_RK[row].tolist() for row in (_OFFERED, _ACCEPTED))
        if not sum(offered):
            return ()
        lines = []
        empty = [index for index, number in enumerate(accepted) if not number]
        if empty:
            told = ", ".join(
                f"{self.classes[i]} ({offered[i]:.0f} offered, {float(thresholds_K[i]):.2f} asked)"
                for i in empty
            )
            lines.append(f"no pseudo-label accepted for {told}")
        total = sum(accepted)
        largest = max(range(len(accepted)), key=accepted.__getitem__)
        if total and accepted[largest] > _DOMINANT_SHARE * total:
            lines.append(
                f"{accepted[largest]:.0f} of {total:.0f} accepted pseudo-labels are "
                f"{self.classes[largest]}"
            )
        return tuple(lines)

    def start_epoch(self) -> None:
        """Forgets the counts, keeps the mean confidence for the next epoch's drift."""
        mean = self._mean_confidence()
        self.previous_confidence.fill_(-1.0 if math.isnan(mean) else mean)
        self.tally_RK.zero_()
        self.confidence_sum.zero_()

    def _mean_confidence(self) -> float:
        return _share(float(self.confidence_sum), float(self.tally_RK[_OFFERED].sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
