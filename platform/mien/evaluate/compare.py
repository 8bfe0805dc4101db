"""A challenger against a champion on the same clips: what a promotion is decided by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.evaluate.bootstrap import Score, bootstrap_interval, paired_difference
from mien.evaluate.predictions import Predictions, PredictionsError
from mien.evaluate.report import Report, Table
from mien.evaluate.slices import MEASURED, SliceRules, is_large, slice_masks


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionRules:
    """What a challenger has to show."""

    score: Score = "uar"
    """The score that must be better."""
    min_gain: float = 0.0
    """The lower end of the 95 % interval of the gain must be above this; below 0: a challenger may
    be that much worse (a smaller, faster model)."""
    max_slice_loss: float = 0.05
    """WAR that a slice may lose. A larger loss that the slice's people show beyond doubt (the
    interval lies below 0) refuses the challenger."""
    min_slice_war: float = 0.0
    """WAR that every slice must have."""
    max_latency_ratio: float = 1.5
    """Times the champion's time for one clip."""
    max_latency_ms: float | None = None
    """Time for one clip on the machine that promotes; None: only the ratio counts."""
    slices: SliceRules = field(default_factory=SliceRules)
    """What a slice needs to be judged by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One condition of a promotion."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a challenger becomes champion, and why."""

    checks: tuple[Check, ...]
    slices: Table | None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def why(self) -> str:
        """One line: the failed checks, or all of them."""
        failed = [check for check in self.checks if not check.passed]
        return "; ".join(f"{check.name}: {check.detail}" for check in failed or self.checks)

    def report(self, title: str) -> Report:
        """The verdict for people."""
        word = "Promoted" if self.passed else "Refused"
        rows = [[c.name, "passed" if c.passed else "FAILED", c.detail] for c in self.checks]
        tables = [Table(title="Checks", head=["check", "", "what was found"], rows=rows)]
        tables += [self.slices] if self.slices else []
        return Report(title=title, lead=[f"{word}. {self.why}.", *self.notes], tables=tables)


def judge_first(challenger: Predictions, rules: PromotionRules, latency_ms: float) -> Verdict:
    """The verdict where there is no champion yet: better than guessing, and fast enough."""
    part, people_N = _headline(challenger)
    interval = bootstrap_interval(
        part.column("true_index"),
        part.column("predicted_index"),
        people_N,
        num_classes=len(part.label_set),
    )
    chance = 1 / len(np.unique(part.column("true_index")))
    checks = [
        Check(
            name="better than a guess",
            passed=interval.low > chance,
            detail=f"UAR {interval}, a guess has {chance:.3f}",
        )
    ]
    checks += _budget(rules, latency_ms)
    return Verdict(checks=tuple(checks), slices=None, notes=("There was no champion before.",))


def compare(
    champion: Predictions,
    challenger: Predictions,
    rules: PromotionRules,
    *,
    latencies_ms: tuple[float, float],
    slice_by: Mapping[str, Mapping[str, Any]] | None = None,
) -> Verdict:
    """The verdict from both models' predictions; only clips that both predicted count.

    Args:
        champion: predictions of the model in use, headline modality.
        challenger: predictions of the model that wants its place.
        rules: the conditions.
        latencies_ms: time for one clip, champion then challenger.
        slice_by: by manifest column, the value of each clip id.

    Raises:
        PredictionsError: other classes, no common labelled clip, fewer than two people.
    """
    if champion.label_set.classes != challenger.label_set.classes:
        raise PredictionsError(
            f"the champion tells {', '.join(champion.label_set.classes)}, the challenger "
            f"{', '.join(challenger.label_set.classes)}; models with other classes can't replace "
            "each other: promote it under another --name"
        )
    first, second, people_N, notes = _aligned(champion, challenger)
    true_N = second.column("true_index")
    found = paired_difference(
        true_N,
        first.column("predicted_index"),
        second.column("predicted_index"),
        people_N,
        num_classes=len(second.label_set),
        score=rules.score,
    )
    sign = f"{found.value:+.3f} ({found.interval.low:+.3f} to {found.interval.high:+.3f})"
    gain = Check(
        name="gain",
        passed=found.interval.low > rules.min_gain,
        detail=f"{rules.score.upper()} {sign} on {len(true_N)} clips of "
        f"{found.interval.num_groups} people; the lower end must be above {rules.min_gain:+.3f}",
    )
    slices, table = _compare_slices(first, second, people_N, slice_by or {}, rules)
    old_ms, new_ms = latencies_ms
    ratio = Check(
        name="latency",
        passed=new_ms <= rules.max_latency_ratio * old_ms,
        detail=f"{new_ms:.1f} ms a clip, the champion {old_ms:.1f} ms; allowed are "
        f"{rules.max_latency_ratio:g} times that",
    )
    checks = (gain, slices, ratio, *_budget(rules, new_ms))
    return Verdict(checks=checks, slices=table, notes=notes)


def _headline(predictions: Predictions) -> tuple[Predictions, NDArray[Any]]:
    """The labelled rows of the most complete modality, and their people.

    A clip of an unknown person counts as a person of its own.
    """
    labelled = predictions.labelled()
    if not len(labelled):
        raise PredictionsError("no labelled clip to compare on")
    part = labelled.of_modality(labelled.modalities[0])
    subjects, clips = part.table["subject_id"].to_pylist(), part.table["clip_id"].to_pylist()
    people_N = np.asarray(
        [
            f"clip {clip}" if who is None else f"person {who}"
            for who, clip in zip(subjects, clips, strict=True)
        ]
    )
    if len(set(people_N)) < 2:
        raise PredictionsError("the clips show one person; a comparison needs at least two")
    return part, people_N


def _aligned(
    champion: Predictions, challenger: Predictions
) -> tuple[Predictions, Predictions, NDArray[Any], tuple[str, ...]]:
    """Both models' rows of their common clips, in the same order."""
    (first, _), (second, people_N) = _headline(champion), _headline(challenger)
    row_of = {clip: row for row, clip in enumerate(first.column("clip_id").tolist())}
    clips = second.column("clip_id").tolist()
    common = [row for row, clip in enumerate(clips) if clip in row_of]
    if not common:
        raise PredictionsError("champion and challenger have no labelled clip in common")
    left_out = len(row_of) + len(clips) - 2 * len(common)
    notes = (f"{left_out} clips that only one of them predicted don't count.",) * bool(left_out)
    ours = Predictions(table=second.table.take(common), label_set=second.label_set)
    theirs = Predictions(
        table=first.table.take([row_of[clips[row]] for row in common]), label_set=first.label_set
    )
    return theirs, ours, people_N[common], notes


def _compare_slices(
    first: Predictions,
    second: Predictions,
    people_N: NDArray[Any],
    slice_by: Mapping[str, Mapping[str, Any]],
    rules: PromotionRules,
) -> tuple[Check, Table]:
    clips, true_N = second.column("clip_id").tolist(), second.column("true_index")
    measured = {
        name: dict(zip(clips, second.table[name].to_pylist(), strict=True)) for name in MEASURED
    }
    rows, failed, judged = [], [], 0
    for column, by_clip in {**slice_by, **measured}.items():
        masks = slice_masks([by_clip.get(clip) for clip in clips])
        if column in MEASURED and len(masks) < 2:
            continue  # every clip has sound: no division
        for value, mask in masks.items():
            if not is_large(people_N[mask].tolist(), rules.slices):
                continue
            judged += 1
            wars = [
                float((one.column("predicted_index")[mask] == true_N[mask]).mean())
                for one in (first, second)
            ]
            found = paired_difference(
                true_N[mask],
                first.column("predicted_index")[mask],
                second.column("predicted_index")[mask],
                people_N[mask],
                num_classes=len(second.label_set),
                score="war",
            )
            lost = found.value < -rules.max_slice_loss and found.interval.high < 0
            is_bad = lost or wars[1] < rules.min_slice_war
            failed += [f"{column} = {value}: WAR {wars[0]:.3f} to {wars[1]:.3f}"] * is_bad
            span = f"{found.interval.low:+.3f} to {found.interval.high:+.3f}"
            sizes = [str(int(mask.sum())), *(f"{war:.3f}" for war in wars), f"{found.value:+.3f}"]
            rows.append([column, value, *sizes, span, "FAILED" if is_bad else ""])
    detail = "; ".join(failed) or f"none of {judged} slices is worse by more than is allowed"
    head = ["column", "value", "clips", "WAR, champion", "WAR, challenger", "gain", "95 %", ""]
    return (
        Check(name="slices", passed=not failed, detail=detail),
        Table(title="Slices", head=head, rows=rows),
    )


def _budget(rules: PromotionRules, latency_ms: float) -> list[Check]:
    if rules.max_latency_ms is None:
        return []
    return [
        Check(
            name="latency budget",
            passed=latency_ms <= rules.max_latency_ms,
            detail=f"{latency_ms:.1f} ms a clip, the budget is {rules.max_latency_ms:g} ms",
        )
    ]
