"""Decisions laid over a manifest: a new manifest, whose old labels are still in it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from mien.clips.manifest import Manifest
from mien.review.decisions import KEEP, NONE, Decision, ReviewError

BEFORE = "label_before_review"
"""Column of the labels that decisions replaced; empty where the label is the first one, or where
there was none (then ``reviewed`` says that a person looked)."""
REVIEWED = "reviewed"
"""Column: whether a person decided about the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corrected:
    """A manifest with decisions laid over it, and how many of each kind."""

    manifest: Manifest
    changed: int
    """Clips with another label than before."""
    labelled: int
    """Clips that had none."""
    removed: int
    """Clips that lost theirs."""
    kept: int


def apply_decisions(
    manifest: Manifest, decisions: Sequence[Decision], *, new_classes: bool = False
) -> Corrected:
    """Lays decisions over a manifest; the one that is given stays as it is.

    A clip whose label changes loses its ``soft_label``, which was about the old one.

    Args:
        manifest: the one that was looked at.
        decisions: each clip at most once.
        new_classes: whether a decision may name a class that no clip has yet.

    Raises:
        ReviewError: a clip that the manifest lacks, one that has another label now than the person
            saw, or an unknown class.
    """
    rows = {clip_id: row for row, clip_id in enumerate(manifest.column("clip_id"))}
    labels, soft = manifest.column("label"), manifest.column("soft_label")
    names = manifest.table.column_names
    before = manifest.column(BEFORE) if BEFORE in names else [None] * len(labels)
    reviewed = manifest.column(REVIEWED) if REVIEWED in names else [False] * len(labels)
    classes = {label for label in (*labels, *before) if label is not None}
    counts: Counter[str] = Counter()
    for one in decisions:
        row = _row(one, rows, labels)
        wanted = _wanted(one, classes, new_classes)
        counts[_kind(labels[row], wanted)] += 1
        reviewed[row] = True
        if wanted != labels[row]:
            before[row] = labels[row] if before[row] is None else before[row]
            labels[row], soft[row] = wanted, None
    columns = {
        "label": pa.array(labels, pa.string()),
        "soft_label": pa.array(
            [None if shares is None else sorted(shares.items()) for shares in soft],
            manifest.table.schema.field("soft_label").type,
        ),
        BEFORE: pa.array(before, pa.string()),
        REVIEWED: pa.array(reviewed, pa.bool_()),
    }
    return Corrected(
        manifest=_with_columns(manifest, columns),
        changed=counts["changed"],
        labelled=counts["labelled"],
        removed=counts["removed"],
        kept=counts["kept"],
    )


def _row(decision: Decision, rows: dict[str, int], labels: list[str | None]) -> int:
    row = rows.get(decision.clip_id)
    if row is None:
        near = difflib.get_close_matches(decision.clip_id, rows, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ReviewError(
            f"clip {decision.clip_id!r} is decided about but not in the manifest.{hint} Give the "
            "manifest that was looked at"
        )
    if labels[row] != decision.given:
        raise ReviewError(
            f"clip {decision.clip_id!r} was looked at as {decision.given or 'unlabelled'!s} but is "
            f"{labels[row] or 'unlabelled'!s} in this manifest; decisions are for the manifest "
            "that was looked at, and are applied once"
        )
    return row


def _wanted(decision: Decision, classes: set[str], new_classes: bool) -> str | None:
    if decision.decision == KEEP:
        return decision.given
    if decision.decision == NONE:
        return None
    if decision.decision not in classes and not new_classes:
        near = difflib.get_close_matches(decision.decision, [*classes, KEEP, NONE], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ReviewError(
            f"clip {decision.clip_id!r}: {decision.decision!r} is no class of this manifest.{hint} "
            f"Expected {', '.join(sorted(classes))}, {KEEP} or {NONE} (or allow new classes)"
        )
    return decision.decision


def _kind(label: str | None, wanted: str | None) -> str:
    if wanted == label:
        return "kept"
    if label is None:
        return "labelled"
    return "removed" if wanted is None else "changed"


def _with_columns(manifest: Manifest, columns: dict[str, pa.Array]) -> Manifest:
    table = manifest.table
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        if index < 0:
            table = table.append_column(name, values)
        else:
            table = table.set_column(index, name, values)
    return Manifest(table, base=manifest.base)
