"""FERV39k: clips of 22 kinds of scene, seven classes, one official split."""

from __future__ import annotations

import re

from mien.clips.ingest_table import Rejected
from mien.clips.labels import FERV39K7
from mien.clips.readers.reading import BY_AGREEMENT, Options, Part, Reader, Reading
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows

CLASS_OF_FOLDER = {
    "Angry": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happy": "happiness",
    "Neutral": "neutral",
    "Sad": "sadness",
    "Surprise": "surprise",
}
_SIZES = {
    "train": (5854, 5523, 7790, 5906, 2502, 1833, 1680),
    "test": (1473, 1393, 1958, 1487, 638, 467, 431),
}
PARTS = tuple(
    Part(name=part, split=part, published=dict(zip(FERV39K7.classes, sizes, strict=True)))
    for part, sizes in _SIZES.items()
)
NUM_SCENES = 22
MEDIA = "2_ClipsforFaceCrop"
LISTS = {
    "train": ("4_setups/All_scenes/train_All.csv", "Annotation/train.csv", "train.csv"),
    "test": ("4_setups/All_scenes/test_All.csv", "Annotation/test.csv", "test.csv"),
}
# Scene/Emotion/0001 at the end of a path, then the emotion or its number after a space or comma.
_LINE = re.compile(r"(?:.*/)?([^/,]+)/([A-Za-z]+)/([^/,\s]+)[,\s]+(\S+)")


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`; the lists of the owners and those of S2D are known.

    Raises:
        DatasetError: a list or the folder of clips is missing.
    """
    lists = {part: tree.find(f"list of the {part} part", paths) for part, paths in LISTS.items()}
    media = tree.find("folder of clips", [MEDIA, "Action"])
    media = media if media == MEDIA else "."
    names = _class_numbers(tree, lists["train"].rpartition("/")[0])
    rows = []
    rejected = []
    for part, path in lists.items():
        for number, line in enumerate(tree.lines(path), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                if number > 1 or "/" in line:  # The lists of S2D have a header.
                    rejected.append(_bad(path, number, f"{line!r} is not SCENE/EMOTION/CLIP CLASS"))
                continue
            scene, folder, clip, given = match.groups()
            named = names.get(given, given)
            if folder not in CLASS_OF_FOLDER or named != folder:
                rejected.append(_bad(path, number, f"{line!r}: folder and class do not agree"))
                continue
            clip_id = f"{scene}/{folder}/{clip}"
            rows.append(
                {
                    "clip_id": clip_id,
                    "uri": tree.uri(clip_id if media == "." else f"{media}/{clip_id}"),
                    "label": CLASS_OF_FOLDER[folder],
                    "split": part,
                    "scene": scene,
                }
            )
    scenes = len({row["scene"] for row in rows})
    notes = [
        f"{scenes} of the published {NUM_SCENES} kinds of scene; column scene.",
        "FERV39k has no official order of classes and does not say who is seen: no subject_id.",
    ]
    return Reading(table=table_from_rows(rows), parts=PARTS, rejected=rejected, notes=notes)


def _class_numbers(tree: Tree, folder: str) -> dict[str, str]:
    """The numbers that S2D's label_index.txt gives to the folders' names."""
    path = f"{folder}/label_index.txt".lstrip("/")
    if not tree.has(path):
        return {}
    pairs = (line.rsplit(None, 1) for line in tree.lines(path))
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def _bad(path: str, line: int, message: str) -> Rejected:
    return Rejected(path=path, reason="bad_row", message=f"line {line}: {message}")


READER = Reader(
    name="ferv39k",
    title="FERV39k",
    summary="clips of 22 kinds of scene, 7 classes, train/test",
    owner="the FERV39k authors (Academy for Engineering and Technology, Fudan University; page "
    "'FERV39k: A Large-Scale Multi-Scene Dataset for Facial Expression Recognition in Videos')",
    layout="4_setups/All_scenes/{train,test}_All.csv (or Annotation/{train,test}.csv with "
    "label_index.txt) and 2_ClipsforFaceCrop/SCENE/EMOTION/0001/*.jpg",
    licence=BY_AGREEMENT,
    label_set=FERV39K7,
    read=read,
)
