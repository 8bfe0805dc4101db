"""The text on top of a run's page in MLflow: what ran, on what, and what came out."""

from __future__ import annotations

from mien.evaluate.report import Report, Table
from mien.evaluate.scorecard import Scorecard
from mien.evaluate.scorecard_report import headline_sentence
from mien.train.loop import FitResult
from mien_jobs.data import RunData
from mien_jobs.evaluation import Evaluation
from mien_jobs.recipe import Recipe

RUN_NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, Markdown."""
_MOST_CLASSES = 16


def describe_run(recipe: Recipe, data: RunData, found: Evaluation | None, fit: FitResult) -> str:
    """Markdown: headline, what ran on what, then clips of each split, confusion matrix, units.

    Args:
        recipe: of the run.
        data: its clips.
        found: on the test split; None where there was nothing to test on.
        fit: of its training.
    """
    lead = [f"{recipe.method} on {recipe.data.manifest}, split {data.split.name}."]
    tables = [_split_table(data)]
    if fit.best_epoch is not None:
        score = f"{recipe.train.select} {fit.metrics[recipe.train.select]:.3f}"
        lead[0] += f" Best epoch: {fit.best_epoch} ({score})."
    if found is not None and (card := found.scorecard) is not None:
        lead.insert(0, headline_sentence(card))
        if card.worst_slice is not None:
            lead.append(f"Worst slice: {card.worst_slice.column} = {card.worst_slice.value}.")
        tables += [_confusion_table(card)] if len(card.label_set) <= _MOST_CLASSES else []
    if found is not None and found.units is not None:
        lead.insert(0, f"Action units: mean F1 {found.units.scores.pooled_f1:.3f}.")
        tables += found.units.tables()
    if found is not None and found.probes is not None:
        lead += found.probes.sentences()
    text = Report(title=recipe.name, lead=lead, tables=tables).to_markdown()
    # MLflow shows the first lines and folds the rest; the name stands above them already.
    return text.removeprefix(f"# {recipe.name}\n\n")


def with_verdict(note: str, name: str, version: int, *, passed: bool, why: str) -> str:
    """The text with a promotion's verdict before it, in the place of an earlier one."""
    word = "accepted" if passed else "refused"
    verdict = f"**{name} version {version} was {word}**: {why}"
    parts = [part for part in note.split("\n\n") if not part.startswith(f"**{name} version ")]
    return "\n\n".join([verdict, *parts])


def _split_table(data: RunData) -> Table:
    people = dict(
        zip(data.manifest.column("clip_id"), data.manifest.column("subject_id"), strict=True)
    )
    rows = []
    for part in ("train", "val", "test"):
        ids = getattr(data.split, part)
        known = {people[clip] for clip in ids} - {None}
        rows.append([part, str(len(ids)), str(len(known)) if known else "unknown"])
    return Table(title="Data", head=("part", "clips", "people"), rows=rows)


def _confusion_table(card: Scorecard) -> Table:
    classes = card.label_set.classes
    rows = []
    for name, counts in zip(classes, card.headline.confusion, strict=True):
        total = sum(counts)
        shares = [f"{100 * count / total:.0f}" if total else "-" for count in counts]
        rows.append([f"{name} ({total})", *shares])
    note = "Per cent of the clips of a class (their number), by what they were taken for."
    return Table(title=f"Confusion, {card.split}", head=("true", *classes), rows=rows, note=note)
