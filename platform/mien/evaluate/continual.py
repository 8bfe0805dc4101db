"""Scores of a training that learnt classes stage by stage: what was learnt, kept and forgotten.

Everything follows from the confusions that a method counts when its stages end. Names of
Avalanche's metrics (ContinualAI/avalanche) are given where they measure the same.

Shapes: T tasks (a stage and its new classes), S classes in the order of learning.
``matrix_TT[i, j]`` is the accuracy on task j after stage i, NaN while j is not learnt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.evaluate.markdown import markdown_table
from mien_models.contract import StageReport

FloatArray = NDArray[np.float64]


class ContinualError(ValueError):
    """Reports that can't be scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinualScores:
    """What a training stage by stage comes to, on one split."""

    split: str
    stages: tuple[str, ...]
    classes: tuple[str, ...]
    """In the order of learning."""
    matrix_TT: FloatArray
    recall_TS: FloatArray
    """Recall of every class after every stage; NaN before it is learnt or without clips."""
    accuracy_T: FloatArray
    """Accuracy over all clips of the classes learnt so far, after each stage."""
    macro_T: FloatArray
    """Mean recall of the classes learnt so far, after each stage."""
    groups: Mapping[str, float]
    """Mean recall of groups of classes after the last stage."""

    def figures(self) -> dict[str, float]:
        """The summary, by name; what needs two tasks is left out where there is one."""
        found = {
            "final_accuracy": float(self.accuracy_T[-1]),
            "final_macro": float(self.macro_T[-1]),
            "acc": average_accuracy(self.matrix_TT),
            "aia": average_incremental_accuracy(self.accuracy_T),
            "aia_macro": average_incremental_accuracy(self.macro_T),
            "learning_accuracy": learning_accuracy(self.matrix_TT),
            "num_tasks": float(len(self.stages)),
        }
        if len(self.stages) > 1:
            found["bwt"] = backward_transfer(self.matrix_TT)
            found["forgetting"] = forgetting(self.matrix_TT)
        return found | {f"recall/{name}": value for name, value in self.groups.items()}

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; NaN becomes null."""
        return {
            "split": self.split,
            "stages": list(self.stages),
            "classes": list(self.classes),
            "figures": self.figures(),
            "accuracy_matrix": _nullable(self.matrix_TT),
            "class_recall": _nullable(self.recall_TS),
            "accuracy_of_learnt": self.accuracy_T.tolist(),
            "macro_of_learnt": self.macro_T.tolist(),
        }

    def to_markdown(self) -> str:
        """The accuracy matrix as a table, a stage a row, and the summary."""
        rows = []
        for index, stage in enumerate(self.stages):
            shown = ["" if np.isnan(value) else f"{value:.2f}" for value in self.matrix_TT[index]]
            rows.append([stage, f"{self.accuracy_T[index]:.3f}", *shown])
        numbers = [str(number) for number in range(1, len(self.stages) + 1)]
        head = ["after stage", "all learnt", *(f"task {number}" for number in numbers)]
        summary = "  ".join(
            f"{name} {value:.3f}" for name, value in self.figures().items() if name != "num_tasks"
        )
        return f"Stage by stage, {self.split} split:\n\n{markdown_table(head, rows)}\n\n{summary}\n"


def score_stages(
    reports: Sequence[StageReport],
    split: str,
    groups: Mapping[str, Collection[str]] | None = None,
) -> ContinualScores:
    """Scores the reports of a training.

    Args:
        reports: of all stages, in order.
        split: whose clips.
        groups: names of classes by group; None: ``first`` (of the first stage) and ``later``.

    Raises:
        ContinualError: no report, a split that was not counted, or no clip in it.
    """
    if not reports:
        raise ContinualError("no stage has ended; nothing can be said about learning by stages")
    known = sorted(set.intersection(*(set(report.confusions) for report in reports)))
    if split not in known:
        raise ContinualError(f"split {split!r} was not counted; there are {', '.join(known)}")
    classes = tuple(name for report in reports for name in report.new_classes)
    counts = [np.asarray(report.confusions[split], dtype=np.float64) for report in reports]
    if counts[-1].sum() == 0:
        raise ContinualError(f"the {split} split has no clip of the classes that were learnt")
    recall_TS, matrix_TT = _recalls(counts, len(classes)), _matrix(reports, counts)
    if groups is None:
        groups = {"first": reports[0].new_classes, "later": classes[len(reports[0].new_classes) :]}
    return ContinualScores(
        split=split,
        stages=tuple(report.stage for report in reports),
        classes=classes,
        matrix_TT=matrix_TT,
        recall_TS=recall_TS,
        accuracy_T=np.asarray([np.trace(one) / one.sum() for one in counts]),
        macro_T=np.nanmean(recall_TS, axis=1),
        groups=_group_means(groups, classes, recall_TS[-1]),
    )


def _recalls(counts: Sequence[FloatArray], num_classes: int) -> FloatArray:
    recall_TS = np.full((len(counts), num_classes), np.nan)
    for index, counts_SS in enumerate(counts):
        support_S = counts_SS.sum(axis=1)
        hits_S = np.diagonal(counts_SS)
        occurs_S = support_S > 0
        recall_TS[index, : len(support_S)][occurs_S] = hits_S[occurs_S] / support_S[occurs_S]
    return recall_TS


def _matrix(reports: Sequence[StageReport], counts: Sequence[FloatArray]) -> FloatArray:
    ends = np.cumsum([len(report.new_classes) for report in reports])
    matrix_TT = np.full((len(reports), len(reports)), np.nan)
    for after, counts_SS in enumerate(counts):
        for task in range(after + 1):
            rows = slice(ends[task] - len(reports[task].new_classes), ends[task])
            total = counts_SS[rows].sum()
            if total:
                matrix_TT[after, task] = np.diagonal(counts_SS)[rows].sum() / total
    return matrix_TT


def _group_means(
    groups: Mapping[str, Collection[str]], classes: Sequence[str], recall_S: FloatArray
) -> dict[str, float]:
    found = {}
    for group, names in groups.items():
        members = np.asarray([name in names for name in classes]) & ~np.isnan(recall_S)
        if members.any():
            found[group] = float(recall_S[members].mean())
    return found


def average_accuracy(matrix_TT: FloatArray) -> float:
    """ACC (Lopez-Paz and Ranzato 2017): mean over tasks after the last stage."""
    return float(np.nanmean(_checked(matrix_TT)[-1]))


def average_incremental_accuracy(accuracy_T: Sequence[float] | FloatArray) -> float:
    """AIA (iCaRL): mean over stages of the accuracy on all classes learnt so far.

    The published "overall accuracy". After each stage that is Avalanche's
    ``Accuracy_On_Trained_Experiences``.
    """
    return float(np.mean(np.asarray(accuracy_T, dtype=np.float64)))


def backward_transfer(matrix_TT: FloatArray) -> float:
    """BWT: mean over earlier tasks of (after the last stage - after its own stage).

    Avalanche's ``StreamBWT``; its ``StreamForgetting`` is the same with the other sign. Negative
    where something was forgotten.
    """
    matrix_TT = _checked(matrix_TT, at_least=2)
    return float(np.nanmean((matrix_TT[-1] - np.diagonal(matrix_TT))[:-1]))


def forgetting(matrix_TT: FloatArray) -> float:
    """Forgetting (Chaudhry et al. 2018): mean over earlier tasks of (best before - at the end).

    The best is over the stages before the last one, so this is never less than ``-BWT``. Avalanche
    has no metric of this form.
    """
    matrix_TT = _checked(matrix_TT, at_least=2)
    lost = [
        np.nanmax(matrix_TT[task:-1, task]) - matrix_TT[-1, task]
        for task in range(len(matrix_TT) - 1)
        if not np.isnan(matrix_TT[task:-1, task]).all()
    ]
    return float(np.nanmean(lost))


def learning_accuracy(matrix_TT: FloatArray) -> float:
    """Mean over tasks of the accuracy right after its own stage (plasticity).

    Avalanche's ``Top1_Acc_Exp`` of each experience, read right after training on it.
    """
    return float(np.nanmean(np.diagonal(_checked(matrix_TT))))


def intransigence(matrix_TT: FloatArray, joint_T: Sequence[float] | FloatArray) -> float:
    """Mean over tasks of (accuracy of a model trained on everything at once - right after its own
    stage), Chaudhry et al. 2018. Avalanche has none.

    Raises:
        ContinualError: not one joint accuracy a task.
    """
    matrix_TT = _checked(matrix_TT)
    joint = np.asarray(joint_T, dtype=np.float64)
    if joint.shape != (len(matrix_TT),):
        raise ContinualError(
            f"expected one joint accuracy for each of {len(matrix_TT)} tasks, got {joint.shape}"
        )
    return float(np.nanmean(joint - np.diagonal(matrix_TT)))


def _checked(matrix_TT: FloatArray, at_least: int = 1) -> FloatArray:
    matrix_TT = np.asarray(matrix_TT, dtype=np.float64)
    if matrix_TT.ndim != 2 or matrix_TT.shape[0] != matrix_TT.shape[1]:
        raise ContinualError(f"expected an accuracy matrix [T, T], got shape {matrix_TT.shape}")
    if len(matrix_TT) < at_least:
        raise ContinualError(f"this needs {at_least} tasks, there are {len(matrix_TT)}")
    return matrix_TT


def _nullable(values: FloatArray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
