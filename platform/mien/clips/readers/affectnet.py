"""AffectNet: pictures with an expression, valence and arousal, in the old and the new layout."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mien.clips.ingest_table import Rejected
from mien.clips.labels import AFFECTNET8
from mien.clips.readers.reading import (
    BY_AGREEMENT,
    DatasetError,
    Options,
    Part,
    Reader,
    Reading,
)
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows
from mien.media.storage import StorageError

# Its validation pictures are what results are reported on; there is no public test part.
PARTS = (
    Part(
        name="train",
        split="train",
        published=dict(
            zip(
                AFFECTNET8.classes,
                (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750),
                strict=True,
            )
        ),
    ),
    Part(
        name="test (the published validation part)",
        split="test",
        published=dict.fromkeys(AFFECTNET8.classes, 500),
    ),
)
WITHOUT_CLASS = {8: "none", 9: "uncertain", 10: "no face"}
"""Expression ids that name no class; such pictures are left out and counted."""
COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
_NEW = {"train": "train_set", "test": "val_set"}
_OLD = {"train": "training.csv", "test": "validation.csv"}
_OLD_FOLDERS = ("", "Manually_Annotated_file_lists/", "Manually_Annotated/")
_OLD_PICTURES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
_READERS = 16
"""Small files that are fetched at the same time."""


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`; the new layout is taken where both are there.

    Raises:
        DatasetError: neither layout is there.
    """
    rejected: list[Rejected] = []
    if tree.has("train_set") or tree.has("val_set"):
        rows = [row for part in _NEW for row in _new_rows(tree, part, rejected)]
    else:
        rows = [row for part in _OLD for row in _old_rows(tree, part, rejected)]
    reasons = Counter(entry.message for entry in rejected if entry.reason == "no_class")
    counted = ", ".join(f"{count:,} with {reason}" for reason, count in sorted(reasons.items()))
    notes = [
        f"Pictures without a class were left out: {counted or 'none'}.",
        "AffectNet's validation part is called test here, because results are reported on it. It "
        "does not say who is seen: no subject_id.",
    ]
    return Reading(
        table=table_from_rows(rows), parts=PARTS, unit="pictures", rejected=rejected, notes=notes
    )


def _new_rows(tree: Tree, part: str, rejected: list[Rejected]) -> list[dict[str, Any]]:
    folder = tree.find(f"folder of the {part} part", [_NEW[part]])
    annotations = tree.find("annotations", [f"{folder}/annotations"])
    names = tree.pictures(f"{folder}/images")
    if not names:
        raise tree.missing("pictures", [f"{folder}/images/0.jpg"])
    stems = [name.rsplit(".", 1)[0] for name in names]
    there = tree.names(annotations)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda stem: _npy_values(tree, annotations, stem, there), stems))
    rows = []
    for name, (expression, valence, arousal) in zip(names, found, strict=True):
        path = f"{folder}/images/{name}"
        row = _row(tree, path, path, part, expression, (valence, arousal), rejected)
        rows += [row] if row else []
    return rows


def _npy_values(tree: Tree, folder: str, stem: str, there: frozenset[str]) -> tuple[Any, Any, Any]:
    return tuple(  # type: ignore[return-value]
        _scalar(tree, f"{folder}/{stem}_{kind}.npy") if f"{stem}_{kind}.npy" in there else None
        for kind in ("exp", "val", "aro")
    )


def _scalar(tree: Tree, path: str) -> Any:
    """The one value of an .npy file, whose type differs between copies (text or number)."""
    try:
        return np.load(io.BytesIO(tree.data(path)), allow_pickle=False).reshape(-1)[0].item()
    except (ValueError, EOFError, IndexError, StorageError) as error:
        raise DatasetError(f"{tree.uri(path)} holds no single value: {error}") from error


def _old_rows(tree: Tree, part: str, rejected: list[Rejected]) -> list[dict[str, Any]]:
    path = tree.find(f"table of the {part} part", [f + _OLD[part] for f in _OLD_FOLDERS])
    folder = tree.find("folder of pictures", _OLD_PICTURES)
    rows = []
    for line, cells in _records(tree, path):
        if cells is None:
            rejected.append(Rejected(path=path, reason="bad_row", message=line))
            continue
        below = cells["subDirectory_filePath"].replace("\\", "/")
        values = (cells["valence"], cells["arousal"])
        row = _row(tree, below, f"{folder}/{below}", part, cells["expression"], values, rejected)
        if row is not None:
            rows.append(row | {"face_box": _face_box(cells)})
    return rows


def _records(tree: Tree, path: str) -> list[tuple[str, dict[str, str] | None]]:
    """The table's rows by column; some copies of training.csv lack the header."""
    rows = list(csv.reader(io.StringIO(tree.text(path), newline="")))
    header: Sequence[str] = [cell.strip() for cell in rows[0]] if rows else []
    start = 1
    if "expression" not in header:
        header, start = COLUMNS, 0
    lacking = [name for name in COLUMNS if name not in header and name != "facial_landmarks"]
    if lacking:
        raise DatasetError(f"{tree.uri(path)} has no column {', '.join(lacking)}")
    records: list[tuple[str, dict[str, str] | None]] = []
    for number, cells in enumerate(rows[start:], start + 1):
        if len(cells) == len(header):
            records.append((f"line {number}", dict(zip(header, cells, strict=True))))
        elif cells:
            records.append((f"line {number} has {len(cells)} cells, not {len(header)}", None))
    return records


def _row(
    tree: Tree,
    clip_id: str,
    path: str,
    part: str,
    expression: Any,
    values: tuple[Any, Any],
    rejected: list[Rejected],
) -> dict[str, Any] | None:
    """A picture's row, or None with the reason in `rejected`."""
    try:
        number = int(expression)
    except (TypeError, ValueError):
        message = f"the expression is {expression!r}, expected a whole number from 0 to 10"
        rejected.append(Rejected(path=path, reason="bad_value", message=message))
        return None
    if number in WITHOUT_CLASS:
        rejected.append(Rejected(path=path, reason="no_class", message=_without_class(number)))
        return None
    if not 0 <= number < len(AFFECTNET8):
        message = f"the expression is {number}, expected 0 to 10"
        rejected.append(Rejected(path=path, reason="bad_value", message=message))
        return None
    valence, arousal = (_unit_value(value) for value in values)
    return {
        "clip_id": clip_id,
        "uri": tree.uri(path),
        "num_frames": 1,
        "label": AFFECTNET8.classes[number],
        "split": part,
        "valence": valence,
        "arousal": arousal,
    }


def _without_class(number: int) -> str:
    return f"expression {number} ({WITHOUT_CLASS[number]})"


def _unit_value(value: Any) -> float | None:
    """Valence or arousal in [-1, 1]; None where it is missing (-2)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if -1 <= number <= 1 else None


def _face_box(cells: Mapping[str, str]) -> list[float] | None:
    try:
        x, y, width, height = (float(cells[name]) for name in COLUMNS[1:5])
    except ValueError:
        return None
    return [x, y, x + width, y + height] if width > 0 and height > 0 else None


READER = Reader(
    name="affectnet",
    title="AffectNet",
    summary="pictures, 8 classes (--labels affectnet7 for 7), valence and arousal",
    owner="Mohammad Mahoor's Computer Vision and Social Robotics group (page 'AffectNet')",
    layout="train_set and val_set with images/ID.jpg and annotations/ID_{exp,val,aro}.npy, or "
    "training.csv and validation.csv with Manually_Annotated_Images/",
    licence=BY_AGREEMENT,
    label_set=AFFECTNET8,
    read=read,
)
