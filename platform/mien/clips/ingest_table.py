"""Reading a table of clips (CSV, TSV, semicolons, bars).

Columns that are known, by any of these names, whatever their case:

    path (uri, file, filename, video)      the video file or folder of frames; required
    label (emotion, expression, class)     class name
    subject (subject_id, person, speaker, actor)
    clip_id, audio_uri (audio), start_s, end_s, num_frames, source, fold
    split                                  train, val, test (also validation, dev, ...)
    consent                                yes/no, true/false, 1/0; empty is no
    licence (license)                      text, e.g. CC-BY-4.0
    soft_label, action_units               JSON: {"anger": 0.7, "fear": 0.3}

Empty cells are null. All other columns are kept: as whole numbers, as numbers or as text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mien.clips.schema import SCHEMA, ManifestError
from mien.media import storage

DELIMITERS = ",;\t|"

# 007 is a name, and so is a number of 19 digits, which 64 bits may not hold.
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)

_ALIASES = {
    "path": "uri",
    "file": "uri",
    "filename": "uri",
    "video": "uri",
    "emotion": "label",
    "expression": "label",
    "class": "label",
    "subject": "subject_id",
    "person": "subject_id",
    "speaker": "subject_id",
    "actor": "subject_id",
    "audio": "audio_uri",
    "license": "licence",
}
_SPLITS = {
    **{name: "train" for name in ("train", "training")},
    **{name: "val" for name in ("val", "valid", "validation", "dev")},
    **{name: "test" for name in ("test", "testing")},
}
_CONSENTS = {
    **{word: True for word in ("true", "yes", "y", "1")},
    **{word: False for word in ("false", "no", "n", "0", "")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A clip that was left out, and why."""

    path: str
    """As the folder or table names it."""
    reason: str
    """Short code: one of `mien.media.errors.REASONS`, or unknown_label, bad_value, bad_row,
    duplicate_clip_id, no_consent, no_class_folder, outside_file, no_class, listed_broken."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A clip that is worth opening."""

    path: str
    """As the folder or table names it."""
    location: str
    """Absolute path or URI."""
    row: Mapping[str, Any]
    """Its row of the manifest, as far as it is known."""


def read_candidates(
    location: str, folder: str, encoding: str
) -> tuple[list[Candidate], list[Rejected], list[str]]:
    """Read a table; nothing else is opened.

    Args:
        location: path or URI of the table.
        folder: what relative paths are relative to.
        encoding: of the table.

    Returns:
        Clips, rows that are left out, and notes for the user.

    Raises:
        ManifestError: unreadable, no header, no column for the path, a column given twice.
    """
    records = _records(location, encoding)
    if len(records) < 2:
        raise ManifestError(f"{location} has no rows; expected a header and a row for each clip")
    _, header = records[0]
    columns = _columns(location, header)
    kept: dict[str, Candidate] = {}
    lines: dict[str, int] = {}
    rejected = []
    for line, cells in records[1:]:
        outcome = _candidate(columns, cells, folder, line)
        if isinstance(outcome, Candidate) and outcome.row["clip_id"] in kept:
            outcome = Rejected(
                path=outcome.path,
                reason="duplicate_clip_id",
                message=f"line {line}: clip id {outcome.row['clip_id']!r} was given in line "
                f"{lines[outcome.row['clip_id']]} already; that row is kept",
            )
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            kept[outcome.row["clip_id"]] = outcome
            lines[outcome.row["clip_id"]] = line
    extras = [name for name in columns if name not in SCHEMA.names]
    candidates = _with_typed_extras(list(kept.values()), extras)
    return candidates, rejected, _notes(header, columns, candidates)


def _records(location: str, encoding: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the rows that are not blank."""
    try:
        text = storage.read_bytes(location).decode(encoding)
    except storage.StorageError as error:
        raise ManifestError(f"cannot read the table: {error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{location} is not {encoding} (byte {error.start}); save it as UTF-8, or name its "
            "encoding, e.g. encoding='gb18030'"
        ) from error
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise ManifestError(
            f"{location}, line {reader.line_num}: {error}; expected a CSV file with delimiter "
            f"{delimiter!r}"
        ) from error


def _columns(location: str, header: Sequence[str]) -> list[str]:
    """The manifest's name for each column of the table."""
    columns = []
    for name in (cell.strip() for cell in header):
        known = _ALIASES.get(name.lower(), name.lower())
        columns.append(known if known in SCHEMA.names else name)
    if "" in columns:
        raise ManifestError(f"{location}: column {columns.index('') + 1} has no name in the header")
    for name in columns:
        if columns.count(name) > 1:
            sources = [h.strip() for h, c in zip(header, columns, strict=True) if c == name]
            raise ManifestError(
                f"{location}: columns {', '.join(sources)} all mean {name}; keep one of them"
            )
    if "uri" not in columns:
        raise ManifestError(
            f"{location} has no column path; its header is: {', '.join(columns)}. Name the column "
            "of the video files path"
        )
    return columns


def _candidate(
    columns: Sequence[str], cells: Sequence[str], folder: str, line: int
) -> Candidate | Rejected:
    texts = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    path = texts.get("uri", "")
    if len(cells) != len(columns):
        message = f"line {line} has {len(cells)} cells, the header {len(columns)}"
        return Rejected(path=path, reason="bad_row", message=message)
    if not path:
        return Rejected(path="", reason="bad_row", message=f"line {line} names no file")
    row: dict[str, Any] = {}
    for name, text in texts.items():
        parse, expected = _PARSERS.get(name, (str, "text"))
        try:
            row[name] = parse(text) if text or name == "consent" else None
        except (ValueError, KeyError, TypeError, AttributeError):
            message = f"line {line}: {name} is {text!r}, expected {expected}"
            return Rejected(path=path, reason="bad_value", message=message)
    if row.get("consent") is False:
        message = f"line {line}: no consent; the file was not opened"
        return Rejected(path=path, reason="no_consent", message=message)
    start_s, end_s = row.get("start_s"), row.get("end_s")
    if end_s is not None and end_s <= (start_s or 0.0):
        message = f"line {line}: end_s is {end_s:g}, expected more than start_s ({start_s or 0:g})"
        return Rejected(path=path, reason="bad_value", message=message)
    return _placed(row, path, folder)


def _placed(row: dict[str, Any], path: str, folder: str) -> Candidate:
    """The clip with absolute places and an id: its path, and where given its part of the file."""
    has_part = row.get("start_s") is not None or row.get("end_s") is not None
    part = f"#{row.get('start_s') or 0.0}-{row.get('end_s') or 'end'}" if has_part else ""
    row["clip_id"] = row.get("clip_id") or f"{path}{part}"
    row["uri"] = storage.join(folder, path)
    if row.get("audio_uri") is not None:
        row["audio_uri"] = storage.join(folder, row["audio_uri"])
    return Candidate(path=path, location=row["uri"], row=row)


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _mapping(parse_value: Callable[[Any], Any]) -> Callable[[str], dict[str, Any]]:
    def parse(text: str) -> dict[str, Any]:
        return {str(name): parse_value(value) for name, value in json.loads(text).items()}

    return parse


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "start_s": (_seconds, "seconds, 0 or more"),
    "end_s": (_seconds, "seconds, 0 or more"),
    "num_frames": (_count, "a whole number, 1 or more"),
    "fold": (int, "a whole number"),
    "split": (lambda text: _SPLITS[text.lower()], "train, val or test"),
    "consent": (lambda text: _CONSENTS[text.lower()], "yes or no"),
    "soft_label": (_mapping(float), 'JSON such as {"anger": 0.7, "fear": 0.3}'),
    "action_units": (
        _mapping(lambda values: [float(value) for value in values]),
        'JSON such as {"AU12": [0, 1.5, 3]}',
    ),
}


def _with_typed_extras(candidates: list[Candidate], extras: Sequence[str]) -> list[Candidate]:
    """Columns that are not known become whole numbers or numbers where all of their cells are."""
    rows: list[dict[str, Any]] = [dict(candidate.row) for candidate in candidates]
    for name in extras:
        texts = [row[name] for row in rows if row[name] is not None]
        parse: Callable[[str], Any] = str
        if texts and all(_WHOLE.fullmatch(text) for text in texts):
            parse = int
        elif texts and all(_NUMBER.fullmatch(text) for text in texts):
            parse = float
        for row in rows:
            row[name] = None if row[name] is None else parse(row[name])
    return [
        Candidate(path=candidate.path, location=candidate.location, row=row)
        for candidate, row in zip(candidates, rows, strict=True)
    ]


def _notes(
    header: Sequence[str], columns: Sequence[str], candidates: Sequence[Candidate]
) -> list[str]:
    pairs = list(zip((cell.strip() for cell in header), columns, strict=True))
    labels = [c.row["label"] for c in candidates if c.row.get("label")]
    renamed = [f"{given} as {name}" for given, name in pairs if given != name and name != "uri"]
    kept = [name for _, name in pairs if name not in SCHEMA.names]
    notes = []
    if renamed:
        notes.append(f"Columns read: {', '.join(renamed)}.")
    if labels and all(_WHOLE.fullmatch(label) for label in labels):
        notes.append(
            "Labels are numbers; names are safer, as class orders differ between data sets."
        )
    if kept:
        notes.append(f"Further columns were kept: {', '.join(kept)}.")
    return notes
