"""The scorecard for people: tables, sentences, pictures."""

from __future__ import annotations

from mien.evaluate.report import Report, Table
from mien.evaluate.scorecard import Scorecard
from mien.evaluate.slices import Slice


def scorecard_report(card: Scorecard, *, title: str = "") -> Report:
    """The report on a scorecard: the headline in words, then all tables."""
    tables = [_modality_table(card), _class_table(card)]
    tables += [_calibration_table(card)] if card.calibrations else []
    tables += [_slice_table(card)] if card.slices else []
    tables += [card.action_units.table()] if card.action_units else []
    tables += [card.intensities.table()] if card.intensities else []
    tables += card.probes.tables() if card.probes else []
    return Report(title=title or f"Scorecard, {card.split} split", lead=_lead(card), tables=tables)


def headline_sentence(card: Scorecard) -> str:
    """One line: UAR and WAR with their intervals, and on how many clips and people."""
    scores, modality = card.headline, next(iter(card.scores))
    intervals = card.intervals.get(modality, {})
    shown = []
    for name, value in (("uar", scores.uar), ("war", scores.war)):
        span = f" (95 % interval {intervals[name]})" if name in intervals else ""
        shown.append(f"{name.upper()} {value:.3f}{span}")
    people = f" of {card.num_people} people" if card.num_people else ""
    chance = 1 / (len(card.label_set) - len(scores.absent))
    return (
        f"{' and '.join(shown)} on {scores.num_clips} clips{people}, {modality}; a guess has a "
        f"UAR of {chance:.3f}."
    )


def describe_slice(item: Slice) -> str:
    """Column, value, WAR with interval and size, in words."""
    span = f" ({item.war_interval})" if item.war_interval else ""
    people = f" of {item.num_people} people" if item.num_people else ""
    return f"{item.column} = {item.value}: WAR {item.war:.3f}{span}, {item.num_clips} clips{people}"


def _lead(card: Scorecard) -> list[str]:
    lead = [headline_sentence(card)]
    if card.worst_slice is not None:
        lead.append(f"Worst slice: {describe_slice(card.worst_slice)}.")
    if not card.intervals.get(next(iter(card.scores))):
        lead.append("No intervals: the clips' people are unknown, or there is only one.")
    if card.headline.absent:
        lead.append(f"No clip shows {', '.join(card.headline.absent)}: not part of the UAR.")
    if card.num_unlabelled:
        lead.append(f"{card.num_unlabelled} clips without a label are not scored.")
    if card.action_units is not None:
        lead.append(f"Action units: mean F1 {card.action_units.pooled_f1:.3f}.")
    lead += [card.intensities.sentence()] if card.intensities else []
    lead += card.probes.sentences() if card.probes else []
    return lead


def _modality_table(card: Scorecard) -> Table:
    rows = []
    for modality, scores in card.scores.items():
        intervals = card.intervals.get(modality, {})
        uar_span, war_span = (str(intervals.get(name, "-")) for name in ("uar", "war"))
        ece = "-" if scores.ece is None else f"{scores.ece:.3f}"
        uar, war, f1 = (f"{value:.3f}" for value in (scores.uar, scores.war, scores.macro_f1))
        size = str(scores.num_clips)
        rows.append([modality, size, uar, uar_span, war, war_span, f1, ece])
    head = ["input", "clips", "UAR", "95 %", "WAR", "95 %", "macro-F1", "ECE"]
    note = "Intervals are bootstrapped over people. ECE: 15 bins of the largest probability."
    return Table(title="Scores by input", head=head, rows=rows, note=note)


def _class_table(card: Scorecard) -> Table:
    rows = []
    for index, name in enumerate(card.label_set.classes):
        recalls = [scores.per_class[index].recall for scores in card.scores.values()]
        shown = ["-" if recall is None else f"{recall:.3f}" for recall in recalls]
        best = card.headline.per_class[index]
        rows.append([name, str(best.support), *shown, f"{best.precision:.3f}", f"{best.f1:.3f}"])
    first = next(iter(card.scores))
    head = ["class", "clips", *(f"recall, {name}" for name in card.scores)]
    head += [f"precision, {first}", f"F1, {first}"]
    return Table(title="Classes", head=head, rows=rows)


def _calibration_table(card: Scorecard) -> Table:
    rows = []
    for modality, item in card.calibrations.items():
        values = (item.temperature, item.ece, item.ece_calibrated, item.nll, item.nll_calibrated)
        rows.append([modality, *(f"{value:.3f}" for value in values), str(item.num_fitted)])
    head = ["input", "temperature", "ECE", "ECE after", "NLL", "NLL after", "fitted on clips"]
    note = "The temperature that logits are divided by is fitted on the validation split."
    return Table(title="Calibration", head=head, rows=rows, note=note)


def _slice_table(card: Scorecard) -> Table:
    worst = set(card.worst_slices.values())
    rows = []
    for item in card.slices:
        mark = "worst" if item in worst else "" if item.is_large else "too few"
        figures = [f"{item.uar:.3f}", f"{item.war:.3f}", str(item.war_interval or "-")]
        people = "-" if item.num_people is None else str(item.num_people)
        rows.append([item.column, item.value, str(item.num_clips), people, *figures, mark])
    modality = next(iter(card.scores))
    head = ["column", "value", "clips", "people", "UAR", "WAR", "WAR, 95 %", ""]
    note = (
        "The worst of each column by WAR; slices with too few clips or people are never named. "
        "Intervals are those of single slices: with many of them, some are low by chance."
    )
    return Table(title=f"Slices, {modality}", head=head, rows=rows, note=note)
