"""CFEE: posed basic and compound expressions of 230 people, one picture each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mien.clips.ingest_table import Rejected
from mien.clips.labels import CFEE22
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.sheets import sheet_rows
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows

NUM_FOLDS = 10
NUM_PEOPLE = 230
NUM_PICTURES = 5954
"""On disk, of all 26 ids."""
WORKBOOK = ("AU_annotation_all_subjects.xls", "AU_annotation_all_subjects.xlsx")
SHEET = "summary"
CLASS_OF_ID = {
    **{1: "neutral", 2: "happiness", 3: "sadness", 4: "sadness", 5: "anger", 6: "surprise"},
    **{7: "disgust", 8: "fear", 9: "happily surprised", 10: "happily disgusted"},
    **{11: "sadly angry", 12: "angrily disgusted", 13: "appalled", 14: "hatred"},
    **{15: "angrily surprised", 16: "sadly surprised", 17: "sadly surprised"},
    **{18: "disgustedly surprised", 19: "disgustedly surprised", 20: "disgustedly surprised"},
    **{21: "fearfully surprised", 22: "awed", 23: "sadly fearful", 24: "fearfully disgusted"},
    **{25: "fearfully angry", 26: "sadly disgusted"},
}
"""What the 26 ids on disk stand for where the workbook is missing; three classes have several."""
_BASIC = {
    **{"happy": "happiness", "sad": "sadness", "fearful": "fear", "angry": "anger"},
    **{"surprised": "surprise", "disgusted": "disgust"},
}
_NAME = re.compile(r"(\d{2})_(\w{3})_.*\.jpe?g", re.IGNORECASE)


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    With the workbook only the ids that it names are read, as in the published protocol (22 classes
    of 230 people); without it all 26 ids, with the built-in names.

    Raises:
        DatasetError: no picture, or a workbook with other columns.
    """
    base = tree.first(["CFEE_Database_230"]) or "."
    folders = _folders(tree, base)
    if not folders:
        raise tree.missing("folder of pictures", ["01-04/Images1", "CFEE_Database_230"])
    classes, notes = _classes(tree, base)
    pictures = [(folder, name) for folder in folders for name in tree.pictures(folder)]
    fold_of = _folds({match[2] for _, name in pictures if (match := _NAME.fullmatch(name))})
    rows, rejected = [], []
    for folder, name in pictures:
        match = _NAME.fullmatch(name)
        label = classes.get(int(match[1])) if match else None
        if match is None or label is None:
            rejected.append(_rejected(f"{folder}/{name}", match))
            continue
        row = {"clip_id": name, "uri": tree.uri(f"{folder}/{name}"), "num_frames": 1}
        rows.append(row | {"label": label, "subject_id": match[2], "fold": fold_of[match[2]]})
    published = NUM_PICTURES if classes is CLASS_OF_ID else NUM_PEOPLE * len(classes)
    return Reading(
        table=table_from_rows(rows),
        parts=[Part(name="all", published=published)],
        unit="pictures",
        rejected=rejected,
        notes=[*notes, *_unnamed_note(rejected), _fold_note(len(fold_of))],
    )


def _folders(tree: Tree, base: str) -> list[str]:
    """Folders of pictures: 01-04/Images1, 05-08/Images2, ..."""
    prefix = "" if base == "." else f"{base}/"
    groups = [prefix + group for group in sorted(tree.names(base))]
    return [
        f"{group}/{name}"
        for group in groups
        for name in sorted(tree.names(group))
        if name.startswith("Images")
    ]


def _rejected(path: str, match: re.Match[str] | None) -> Rejected:
    if match is None:
        message = "its name is not CC_SSS_NNNN.jpg (class, subject, shot)"
        return Rejected(path=path, reason="bad_file_name", message=message)
    message = f"the workbook does not name class {match[1]}"
    return Rejected(path=path, reason="no_class", message=message)


def _unnamed_note(rejected: Sequence[Rejected]) -> list[str]:
    counts = Counter(entry.message[-2:] for entry in rejected if entry.reason == "no_class")
    counted = ", ".join(f"{number} ({count})" for number, count in sorted(counts.items()))
    return [f"Pictures of ids that the workbook does not name: {counted}."] if counts else []


def _classes(tree: Tree, base: str) -> tuple[dict[int, str], list[str]]:
    """Class of each id, from the workbook where it is there."""
    prefix = "" if base == "." else f"{base}/"
    path = tree.first([*(prefix + name for name in WORKBOOK), *WORKBOOK])
    if path is None:
        return CLASS_OF_ID, [
            f"There is no {WORKBOOK[0]}: class names from the built-in table, all 26 ids; the "
            "published protocol uses the 22 ids that the workbook names."
        ]
    classes: dict[int, str] = {}
    for row in sheet_rows(tree, path, SHEET):
        number = str(row[0]).split(".")[0] if row else ""
        if number.isdecimal() and len(row) > 1 and row[1]:
            name = " ".join(str(row[1]).lower().split())
            classes[int(number)] = _BASIC.get(name, name)
    if not classes:
        raise DatasetError(
            f"{tree.uri(path)}, sheet {SHEET}: expected ids in the first column and names in the "
            "second"
        )
    unknown = sorted(set(classes.values()) - set(CFEE22.classes))
    notes = [f"Class names from {path}: {len(set(classes.values()))} classes."]
    if unknown:
        notes.append(f"Class names that Mien's list of CFEE does not have: {', '.join(unknown)}.")
    return classes, notes


def _folds(people: set[str]) -> dict[str, int]:
    """Ten blocks of the sorted subjects, as in the published code; the fold is that of the test."""
    order = sorted(people)
    folds = min(NUM_FOLDS, len(order))
    return {person: rank * folds // len(order) + 1 for rank, person in enumerate(order)}


def _fold_note(people: int) -> str:
    text = (
        f"{people} of the published {NUM_PEOPLE} people; {NUM_FOLDS} folds are blocks of the "
        "sorted subject numbers"
    )
    if people == NUM_PEOPLE:
        return f"{text}."
    return f"{text}, and are those of the published code only with all {NUM_PEOPLE}."


READER = Reader(
    name="cfee",
    title="CFEE",
    summary="posed pictures of 230 people, 22 basic and compound classes, 10 folds by person",
    owner="Aleix Martinez's Computational Biology and Cognitive Science Lab (The Ohio State "
    "University; page 'Compound Facial Expressions of Emotion')",
    layout="CFEE_Database_230/01-04/Images1/CC_SSS_NNNN.jpg, 05-08/Images2, ... and "
    "AU_annotation_all_subjects.xls",
    licence=BY_AGREEMENT,
    label_set=CFEE22,
    read=read,
)
