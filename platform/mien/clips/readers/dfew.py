"""DFEW: clips of films, seven classes, five official folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mien.clips.labels import DFEW7
from mien.clips.readers.frames import csv_table
from mien.clips.readers.reading import (
    BY_AGREEMENT,
    DatasetError,
    Options,
    Reader,
    Reading,
)
from mien.clips.readers.sets import SetLists, folds_of, parts_of
from mien.clips.readers.sheets import sheet_rows
from mien.clips.readers.tree import Tree, numbered
from mien.clips.schema import table_from_rows
from mien.media import storage

NUM_SETS = 5
# Sizes of the five pairs of lists; of set 1 also by class (train, test).
_TRAIN_1 = (1956, 1515, 2135, 1738, 1175, 116, 721)
_TEST_1 = (489, 379, 534, 435, 294, 29, 181)
SIZES: dict[int, tuple[int | Mapping[str, int], int | Mapping[str, int]]] = {
    1: (
        dict(zip(DFEW7.classes, _TRAIN_1, strict=True)),
        dict(zip(DFEW7.classes, _TEST_1, strict=True)),
    ),
    2: (9356, 2341),
    3: (9357, 2340),
    4: (9358, 2339),
    5: (9361, 2336),
}
_RELEASE = "EmoLabel_DataSplit"
MEDIA = (
    *("Clip/clip_224x224/clip_224x224", "Clip/clip_224x224", "single_label/data"),
    *("Clip/jpg_256", "Clip/original"),
)
SOUND = "Clip/original"
"""The uncut clips; folders of pictures have no sound of their own."""
SHEET = "Annotation/annotation.xlsx"
_CLIP_COLUMNS = ("order", "video_name", "clip", "name")
_VOTES = tuple(
    f"{n}{word}"
    for n, word in enumerate(("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"), 1)
)


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    Raises:
        DatasetError: no list of any set, or no folder of clips.
    """
    sets = [lists for number in range(1, NUM_SETS + 1) if (lists := _set(tree, number))]
    if not sets:
        raise tree.missing(
            "list of a set", [_list_paths(1, "train")[0], _list_paths(1, "train")[2]]
        )
    media = tree.find("folder of clips", MEDIA)
    folds = folds_of(sets, NUM_SETS)
    name_of = numbered(tree.names(media))
    sound_of = numbered(tree.names(SOUND)) if media != SOUND else {}
    votes, vote_notes = _votes(tree, folds.label_of)
    rows = []
    for clip in sorted(folds.label_of):
        path = f"{media}/{name_of.get(int(clip), clip)}"
        row: dict[str, Any] = {"clip_id": clip, "uri": tree.uri(path)}
        row |= {"label": folds.label_of[clip], "fold": folds.fold_of[clip]}
        if int(clip) in sound_of:
            row["audio_uri"] = tree.uri(f"{SOUND}/{sound_of[int(clip)]}")
        rows.append(row | ({"soft_label": votes[clip]} if clip in votes else {}))
    notes = [
        *folds.notes,
        *vote_notes,
        f"Clips from {media}"
        + ("." if media == SOUND else f"; sound from {SOUND}: {len(sound_of):,} files."),
        "DFEW does not say who is seen: no subject_id, so that no split by person can be made; "
        "the official folds divide clips.",
    ]
    return Reading(table=table_from_rows(rows), parts=parts_of(SIZES), notes=notes)


def _list_paths(number: int, part: str) -> tuple[str, str, str]:
    folder = f"{_RELEASE}/{part}(single-labeled)"
    return (
        f"{folder}/set_{number}.csv",
        f"{folder}/{part}_set_{number}.csv",
        f"single_label/label/single_{part}set_{number}.csv",
    )


def _set(tree: Tree, number: int) -> SetLists | None:
    """Both lists of a set, or None where neither is there."""
    train, test = (tree.first(_list_paths(number, part)) for part in ("train", "test"))
    if train is None and test is None:
        return None
    if train is None or test is None:
        part = "train" if train is None else "test"
        raise tree.missing(f"{part} list of set {number}", _list_paths(number, part))
    return SetLists(number=number, train=_list(tree, train), test=_list(tree, test))


def _list(tree: Tree, path: str) -> dict[str, str]:
    header, rows = csv_table(tree.text(path))
    try:
        clip, label = header.index("video_name"), header.index("label")
        pairs = {f"{int(row[clip]):05d}": int(row[label]) for row in rows}
    except (ValueError, IndexError) as error:
        raise DatasetError(
            f"{tree.uri(path)}: expected the columns video_name and label, whole numbers; {error}"
        ) from error
    if len(pairs) < len(rows):
        raise DatasetError(f"{tree.uri(path)} names {len(rows) - len(pairs)} clips twice")
    return {name: _class(number, tree, path) for name, number in pairs.items()}


def _class(number: int, tree: Tree, path: str) -> str:
    if not 1 <= number <= len(DFEW7):
        raise DatasetError(f"{tree.uri(path)}: label {number}; expected 1 to {len(DFEW7)}")
    return DFEW7.classes[number - 1]


def _votes(
    tree: Tree, label_of: Mapping[str, str]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Share of the votes for each class, by clip, where the sheet of annotations is there."""
    if not tree.has(SHEET):
        return {}, [f"There is no {SHEET}: no soft labels from the ten votes of each clip."]
    try:
        header, *rows = sheet_rows(tree, SHEET)
        columns = _vote_columns(header)
    except (DatasetError, storage.StorageError, ValueError) as error:
        return {}, [f"No soft labels: {error}"]
    votes = {}
    for row in rows:
        if row[columns[0]] is None:
            continue
        counts = [float(row[column] or 0) for column in columns[1:]]
        clip = f"{int(str(row[columns[0]]).split('.')[0]):05d}"
        if sum(counts) > 0 and clip in label_of:
            shares = (count / sum(counts) for count in counts)
            votes[clip] = dict(zip(DFEW7.classes, shares, strict=True))
    differ = sum(shares[label_of[clip]] < max(shares.values()) for clip, shares in votes.items())
    notes = [f"Soft labels from {SHEET}: {len(votes):,} of {len(label_of):,} clips."]
    if differ:
        notes.append(f"The label of {differ:,} clips is not the class with most votes.")
    return votes, notes


def _vote_columns(header: Sequence[Any]) -> list[int]:
    """Where the clip's number is, then the votes in the order of DFEW7.

    Raises:
        ValueError: a column is missing.
    """
    names = [str(name).strip().lower() for name in header]
    clip = next((names.index(name) for name in _CLIP_COLUMNS if name in names), None)
    if clip is None or any(name not in names for name in _VOTES):
        raise DatasetError(
            f"{SHEET} has the columns {', '.join(names)}; expected {_CLIP_COLUMNS[0]} and "
            f"{', '.join(_VOTES)}"
        )
    return [clip, *(names.index(name) for name in _VOTES)]


READER = Reader(
    name="dfew",
    title="DFEW",
    summary="film clips, 7 classes, 5 folds; soft labels from the votes",
    owner="the DFEW authors (Southeast University, Nanjing; page 'DFEW: A Large-scale Database for "
    "Recognizing Dynamic Facial Expressions in the Wild')",
    layout="EmoLabel_DataSplit/{train,test}(single-labeled)/set_1..5.csv with "
    "Clip/clip_224x224/00001/*.jpg, or single_label/{label,data}",
    licence=BY_AGREEMENT,
    label_set=DFEW7,
    read=read,
)
