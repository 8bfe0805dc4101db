"""Lists of clips without a header, as many codes use them: `path num_frames class`, one a line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from mien.clips.ingest import IngestReport, Progress, ingest_candidates
from mien.clips.ingest_table import Candidate, Rejected
from mien.clips.labels import LabelSet
from mien.clips.schema import ManifestError
from mien.media import storage

# The path may hold blanks; the class is its number or its name.
_LINE = re.compile(r"(?P<path>\S.*?)[\s,]+(?P<frames>\d+)[\s,]+(?P<label>\w[\w-]*)")
_PARTS = ("train", "val", "test")
_LOOKED_AT = 20
"""Lines by which a file is known to be such a list."""


def is_list(location: str) -> bool:
    """Whether a file is a list of this form rather than a table with a header.

    Raises:
        StorageError: it cannot be read.
    """
    text = storage.read_bytes(location).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()][:_LOOKED_AT]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def ingest_lists(
    lists: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None = None,
    *,
    label_set: LabelSet | None = None,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> IngestReport:
    """Make a manifest of lists of `path num_frames class`.

    A list's part is what its name says: train, val or test as a word of it.

    Args:
        lists: paths or URIs.
        root: folder that relative paths are relative to; None: each list's own.
        label_set: the classes in the order of the numbers, which count from 0. Needed where the
            lists hold numbers; where they hold names, others are left out.
        num_threads: files that are opened at the same time.
        progress: called after each file.

    Raises:
        ManifestError: no line, or numbers without a label set or outside of it.
    """
    candidates: dict[str, Candidate] = {}
    rejected: list[Rejected] = []
    notes = ["People are not known (lists do not name them): each clip counts as a person."]
    for location in map(str, lists):
        part = _part_of(location)
        folder = storage.parent(location) if root is None else storage.absolute(os.fspath(root))
        notes.append(f"{location}: {part or 'no part (its name has no train, val or test)'}.")
        for number, line in _lines(location):
            outcome = _candidate(location, number, line, folder, part, label_set)
            if isinstance(outcome, Candidate) and outcome.path in candidates:
                message = f"line {number}: an earlier line names it; that one is kept"
                outcome = Rejected(path=outcome.path, reason="duplicate_clip_id", message=message)
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
            else:
                candidates[outcome.path] = outcome
    base = storage.parent(str(lists[0])) if root is None else storage.absolute(os.fspath(root))
    report = ingest_candidates(
        list(candidates.values()), rejected, notes, base, label_set, num_threads, progress
    )
    return _with_advice(report, list(candidates))


def _lines(location: str) -> list[tuple[int, str]]:
    try:
        text = storage.read_bytes(location).decode("utf-8-sig")
    except storage.StorageError as error:
        raise ManifestError(f"cannot read the list: {error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{location} is not UTF-8; save it as UTF-8") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ManifestError(f"{location} is empty; expected `path num_frames class` in each line")
    return lines


def _part_of(location: str) -> str | None:
    name = storage.relative_to(location, storage.parent(location)).rpartition("/")[2].lower()
    words = re.split(r"[^a-z]+", name)
    return next((part for part in _PARTS if part in words or f"{part}set" in words), None)


def _candidate(
    location: str,
    number: int,
    line: str,
    folder: str,
    part: str | None,
    label_set: LabelSet | None,
) -> Candidate | Rejected:
    match = _LINE.fullmatch(line)
    if match is None:
        message = f"line {number}: {line[:80]!r} is not `path num_frames class`"
        return Rejected(path=location, reason="bad_row", message=message)
    path = match["path"]
    row: dict[str, Any] = {"clip_id": path, "uri": storage.join(folder, path), "split": part}
    row["label"] = _label(match["label"], location, number, label_set)
    return Candidate(path=path, location=row["uri"], row=row)


def _label(given: str, location: str, number: int, label_set: LabelSet | None) -> str:
    if not given.isdecimal():
        return given
    if label_set is None:
        raise ManifestError(
            f"{location}: classes are numbers; say what they stand for, in their order from 0: "
            "--labels dfew7, or --labels a,b,c"
        )
    if int(given) >= len(label_set):
        raise ManifestError(
            f"{location}, line {number}: class {given}, but {label_set.name} has "
            f"{len(label_set)} classes, numbered from 0: {', '.join(label_set.classes)}"
        )
    return label_set.classes[int(given)]


def _with_advice(report: IngestReport, paths: Sequence[str]) -> IngestReport:
    """Lists of others often hold the paths of another machine."""
    gone = sum(entry.reason == "missing_file" for entry in report.quarantined)
    if len(report.manifest) or gone < len(paths) or not storage.is_absolute(paths[0]):
        return report
    raise ManifestError(
        f"none of the listed clips is there; the first is {paths[0]}. These are paths of another "
        "machine: cut them to what lies below your folder (sed 's|^/their/folder/||') and give "
        "that folder with --root"
    )
