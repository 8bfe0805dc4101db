"""A person's decisions: written as a table to fill in, read back as CSV or from Label Studio."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mien.media.storage import read_bytes, write_bytes_atomically
from mien.review.items import Fact, ReviewItem

KEEP = "keep"
"""Decision: the given label is right."""
NONE = "none"
"""Decision: no class fits; the clip loses its label."""
FIRST_COLUMNS = ("rank", "clip_id", "given", "suggested", "decision", "reason")
LAST_COLUMNS = ("history", "note")


class ReviewError(ValueError):
    """Decisions that can't be read, or that don't fit the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a person said about one clip."""

    clip_id: str
    given: str | None
    """The label that the person saw."""
    decision: str
    """A class, ``keep`` or ``none``."""
    note: str = ""


def write_table(location: str, items: Sequence[ReviewItem]) -> None:
    """Writes the queue as CSV, in its order, with an empty column ``decision`` to fill in.

    Raises:
        StorageError: the place can't be written to.
    """
    facts = list(dict.fromkeys(name for item in items for name in item.facts))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIRST_COLUMNS, *facts, *LAST_COLUMNS])
    for rank, item in enumerate(items, start=1):
        first = [rank, item.clip_id, item.given or "", item.suggested, "", item.reason]
        middle = [_cell(item.facts.get(name)) for name in facts]
        writer.writerow([*first, *middle, _history(item.history), ""])
    write_bytes_atomically(location, text.getvalue().encode())


def _cell(value: Fact) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _history(entries: Iterable[Mapping[str, Fact]]) -> str:
    """``3 anger 0.50 noisy; 5 ...``: epoch, then what was said after it."""
    return "; ".join(" ".join(_cell(value) for value in entry.values()) for entry in entries)


def read_decisions(location: str) -> list[Decision]:
    """The decisions in a CSV file (of the page, or the table filled in) or a Label Studio export.

    Rows without a decision are left out.

    Args:
        location: path or URI; ``.json`` is Label Studio's export, all else CSV.

    Raises:
        ReviewError: not such a file, or two different decisions about one clip.
        StorageError: it can't be read.
    """
    data = read_bytes(location)
    try:
        text = data.decode("utf-8-sig")
        found = _from_label_studio(text) if location.endswith(".json") else _from_csv(text)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ReviewError(f"{location} can't be read: {error}; {_EXPECTED}") from error
    except ReviewError as error:
        raise ReviewError(f"{location}: {error}") from error
    by_clip: dict[str, Decision] = {}
    for decision in found:
        other = by_clip.setdefault(decision.clip_id, decision)
        if other.decision != decision.decision:
            raise ReviewError(
                f"{location}: clip {decision.clip_id!r} is decided as {other.decision!r} and as "
                f"{decision.decision!r}; leave one of the rows"
            )
    return list(by_clip.values())


_EXPECTED = (
    "expected CSV with the columns clip_id, given and decision (the table or the page's download), "
    "or Label Studio's JSON export"
)


def _from_csv(text: str) -> list[Decision]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in ("clip_id", "given", "decision") if name not in _names(reader)]
    if missing:
        raise ReviewError(f"no column {', '.join(missing)}; {_EXPECTED}")
    return [
        Decision(
            clip_id=row["clip_id"],
            given=row["given"] or None,
            decision=row["decision"].strip(),
            note=row.get("note") or "",
        )
        for row in reader
        if (row["decision"] or "").strip()
    ]


def _names(reader: csv.DictReader[str]) -> Sequence[str]:
    return reader.fieldnames or ()


def _from_label_studio(text: str) -> list[Decision]:
    tasks = json.loads(text)
    if not isinstance(tasks, list):
        raise ReviewError(f"holds no list of tasks; {_EXPECTED}")
    return [decision for task in tasks for decision in _of_task(task)]


def _of_task(task: Any) -> list[Decision]:
    """The last annotation of a task that was not cancelled; none: no decision."""
    try:
        data, annotations = task["data"], task.get("annotations", [])
        clip_id, given = data["clip_id"], data["given"] or None
        chosen = [
            choice
            for annotation in annotations
            if not annotation.get("was_cancelled")
            for result in annotation["result"]
            if result["type"] == "choices"
            for choice in result["value"]["choices"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ReviewError(f"a task lacks {error}; {_EXPECTED}") from error
    if not chosen:
        return []
    return [Decision(clip_id=clip_id, given=given, decision=chosen[-1])]
