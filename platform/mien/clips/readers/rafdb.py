"""RAF-DB: pictures of faces, seven basic or eleven compound classes, train and test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from mien.clips.ingest_table import Rejected
from mien.clips.labels import RAFDB7, RAFDB_COMPOUND11, LabelSet
from mien.clips.readers.reading import BY_AGREEMENT, Options, Part, Reader, Reading
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of the two subsets."""

    folder: str
    label_set: LabelSet
    """Ids in the list are 1 for the first class."""
    parts: tuple[Part, ...]


BASIC = Variant(
    folder="basic",
    label_set=RAFDB7,
    parts=(
        Part(
            name="train",
            split="train",
            published=dict(
                zip(RAFDB7.classes, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)
            ),
        ),
        Part(
            name="test",
            split="test",
            published=dict(zip(RAFDB7.classes, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
        ),
    ),
)
COMPOUND = Variant(
    folder="compound",
    label_set=RAFDB_COMPOUND11,
    parts=(
        Part(name="train", split="train", published=3162),
        Part(name="test", split="test", published=792),
    ),
)
LIST_NAMES = ("list_patition_label.txt", "list_partition_label.txt")
"""The first is the release's own spelling."""


def read(tree: Tree, options: Options, *, variant: Variant) -> Reading:
    """See `Reader.read`; aligned pictures are taken where they are there, else the originals.

    Raises:
        DatasetError: the list or the pictures are missing.
    """
    folders = (f"{variant.folder}/", "")
    path = tree.find(
        "list of pictures", [f"{f}EmoLabel/{name}" for f in folders for name in LIST_NAMES]
    )
    base = path.rpartition("EmoLabel/")[0]
    images = tree.find(
        "folder of pictures",
        [f"{base}Image/{kind}" for kind in ("aligned/aligned", "aligned", "original")],
    )
    rows, rejected = [], []
    for number, line in enumerate(tree.lines(path), 1):
        row = _row(tree, images, line, variant.label_set)
        if row is None:
            message = (
                f"line {number}: {line!r} is not train_*.jpg or test_*.jpg and a class from 1 to "
                f"{len(variant.label_set)}"
            )
            rejected.append(Rejected(path=path, reason="bad_row", message=message))
        else:
            rows.append(row)
    notes = [
        f"Pictures from {images}.",
        "RAF-DB does not say who is seen: no subject_id.",
    ]
    return Reading(
        table=table_from_rows(rows),
        parts=variant.parts,
        unit="pictures",
        rejected=rejected,
        notes=notes,
    )


def _row(tree: Tree, images: str, line: str, label_set: LabelSet) -> dict[str, Any] | None:
    """The row of a line of the list, or None where it is none."""
    name, _, given = line.partition(" ")
    part = name.partition("_")[0]
    index = int(given) - 1 if given.strip().isdecimal() else -1
    if part not in ("train", "test") or not 0 <= index < len(label_set):
        return None
    stem, _, extension = name.rpartition(".")
    suffix = "_aligned" if "aligned" in images else ""
    return {
        "clip_id": name,
        "uri": tree.uri(f"{images}/{stem}{suffix}.{extension}"),
        "num_frames": 1,
        "label": label_set.classes[index],
        "split": part,
    }


_OWNER = (
    "Weihong Deng's group (Beijing University of Posts and Telecommunications; page 'Real-world "
    "Affective Faces Database')"
)

READER = Reader(
    name="rafdb",
    title="RAF-DB (basic)",
    summary="pictures, 7 classes, train/test",
    owner=_OWNER,
    layout="basic/EmoLabel/list_patition_label.txt and basic/Image/aligned/",
    licence=BY_AGREEMENT,
    label_set=RAFDB7,
    read=partial(read, variant=BASIC),
)
COMPOUND_READER = Reader(
    name="rafdb_compound",
    title="RAF-DB (compound)",
    summary="pictures, 11 compound classes, train/test",
    owner=_OWNER,
    layout="compound/EmoLabel/list_patition_label.txt and compound/Image/aligned/",
    licence=BY_AGREEMENT,
    label_set=RAFDB_COMPOUND11,
    read=partial(read, variant=COMPOUND),
)
