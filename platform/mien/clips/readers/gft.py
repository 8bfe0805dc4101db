"""GFT: groups of three talk; read from lists as the published AU codes use them.

The release's own format is not read: prepare pictures and these lists from it.
"""

from __future__ import annotations

import math
from typing import Any

from mien.clips.readers.frames import (
    OCCURRENCE,
    CodedRecording,
    FrameCounts,
    code,
    recording_rows,
)
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.tree import Tree, numbered
from mien.clips.schema import table_from_rows

ACTION_UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 10, 12, 14, 15, 23, 24))
NOT_CODED = frozenset({9, -1, -9})
PARTS = (
    Part(name="train", split="train", published=108_000),
    Part(name="test", split="test", published=24_645),
)
_FOLDERS = ("", "list/", "lists/")
_MEDIA = ("", "imgs/", "img/", "images/")


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`. The first folder of a picture's path is its subject.

    Raises:
        DatasetError: a list is missing, lists of unequal length, or another code.
    """
    counts = FrameCounts()
    rows: list[dict[str, Any]] = []
    people: dict[str, set[str]] = {}
    for part in ("train", "test"):
        found = [prefix + f"GFT_{part}_path.txt" for prefix in _FOLDERS]
        path = tree.find(f"list of the {part} pictures", found)
        codes = _codes(tree, path)
        prefix = _media_prefix(tree, next(iter(codes)))
        people[part] = {folder.partition("/")[0] for folder in codes}
        for folder, codes_of in codes.items():
            subject = folder.partition("/")[0]
            recording = CodedRecording(
                folder=prefix + folder,
                picture_of=numbered(tree.picture_names(prefix + folder)),
                codes_of=codes_of,
                columns={
                    **{"subject_id": subject, "source": folder},
                    **{"split": part, "au_coding": OCCURRENCE},
                },
            )
            rows += recording_rows(tree, recording, options.window_frames, counts)
    both = sorted(people["train"] & people["test"])
    notes = [
        *counts.notes(),
        f"{len(people['train'])} people in train, {len(people['test'])} in test "
        "(published: 78 and 18).",
    ]
    if both:
        notes.append(
            f"{len(both)} first folders are in both lists: {', '.join(both[:5])}. The "
            "first folder of a path has to be the person."
        )
    return Reading(table=table_from_rows(rows), parts=PARTS, unit="frames", notes=notes)


def _media_prefix(tree: Tree, folder: str) -> str:
    found = tree.first(prefix + folder for prefix in _MEDIA)
    if found is None:
        raise tree.missing("folder of pictures", [prefix + folder for prefix in _MEDIA])
    return found[: len(found) - len(folder)]


def _codes(tree: Tree, path: str) -> dict[str, dict[int, dict[str, float]]]:
    """Folder -> frame -> unit -> 0, 1 or NaN."""
    occurrences = path.replace("_path.txt", "_AUoccur.txt")
    if not tree.has(occurrences):
        raise tree.missing("list of codes", [occurrences])
    pictures, values = tree.lines(path), tree.lines(occurrences)
    if len(pictures) != len(values):
        raise DatasetError(
            f"{tree.uri(path)} has {len(pictures)} lines, {tree.uri(occurrences)} {len(values)}; "
            "expected one line of codes for each picture"
        )
    found: dict[str, dict[int, dict[str, float]]] = {}
    for number, (picture, line) in enumerate(zip(pictures, values, strict=True), 1):
        where = f"{tree.uri(occurrences)}, line {number}"
        cells = line.replace(",", " ").split()
        if len(cells) != len(ACTION_UNITS):
            raise DatasetError(f"{where}: {len(cells)} codes, expected {len(ACTION_UNITS)}")
        folder, _, name = picture.replace("\\", "/").removeprefix("./").rpartition("/")
        frames = numbered([name])
        if not folder or not frames:
            raise DatasetError(f"{tree.uri(path)}: {picture!r} is not SUBJECT/.../NUMBER.jpg")
        codes = {
            unit: code(cell, NOT_CODED, 1, where)
            for unit, cell in zip(ACTION_UNITS, cells, strict=True)
        }
        if not all(map(math.isnan, codes.values())):
            found.setdefault(folder, {})[next(iter(frames))] = codes
    if not found:
        raise DatasetError(f"{tree.uri(occurrences)} holds no code")
    return found


READER = Reader(
    name="gft",
    title="GFT",
    summary="groups of three talk, occurrence of 10 action units; from prepared lists",
    owner="the University of Pittsburgh's Affect Analysis Group (Sayette Group Formation Task "
    "Spontaneous Facial Expression Database, OSF project 7wcyz)",
    layout="GFT_{train,test}_path.txt (SUBJECT/NUMBER.jpg a line) with "
    "GFT_{train,test}_AUoccur.txt (10 codes a line), and the pictures",
    licence=BY_AGREEMENT,
    label_set=None,
    read=read,
    takes_window=True,
)
