"""MAFW: film and television clips with sound and captions; single and compound classes, 5 folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mien.clips.labels import MAFW11
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.sets import SetLists, folds_of, parts_of
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows

NUM_SETS = 5
SINGLE_SIZES = {1: (7333, 1839), 2: (7335, 1837), 3: (7339, 1833), 4: (7340, 1832), 5: (7341, 1831)}
SINGLE_CLASSES = {
    **{"anger": 1390, "disgust": 639, "fear": 625, "happiness": 1242, "neutral": 1138},
    **{"sadness": 1470, "surprise": 1072, "contempt": 236, "anxiety": 916},
    **{"helplessness": 262, "disappointment": 182},
}
COMPOUND_SIZES = {1: (7178, 1818)}
"""Of the other sets no size is known to us."""
NUM_COMPOUND_CLASSES = 43
SPLITS = ("Train & Test Set", "split", "Train_Test_Set", "anno")
MEDIA = ("data/clips", "clips", "data/faces", "data/frames", "faces", "frames")
"""Clips first: they have sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What annotators wrote about a clip."""

    chinese: str
    english: str


def read(tree: Tree, options: Options, *, task: str) -> Reading:
    """See `Reader.read`.

    Args:
        tree: the folder.
        options: none that matters here.
        task: `single` or `compound`.

    Raises:
        DatasetError: no list of a set, or no folder of clips.
    """
    candidates = [f"{split}/{task}/{kind}" for split in SPLITS for kind in KINDS]
    folder = tree.find(f"lists of the {task} sets", candidates)
    sets, captions = [], dict[str, Caption]()
    for number in range(1, NUM_SETS + 1):
        if tree.has(f"{folder}/set_{number}"):
            sets.append(_set(tree, folder, number, captions))
    if not sets:
        raise tree.missing("folder set_1 of lists", [f"{folder}/set_1"])
    with_caption = folder.replace(KINDS[0], KINDS[1])
    for lists in sets if with_caption != folder and tree.has(with_caption) else ():
        _set(tree, with_caption, lists.number, captions)
    media = tree.find("folder of clips", MEDIA)
    folds = folds_of(sets, NUM_SETS)
    notes = [*folds.notes, *_class_notes(task, folds.label_of), _caption_note(captions)]
    notes.append("MAFW does not say who is seen: no subject_id; its folds divide clips.")
    rows = []
    for clip in sorted(folds.label_of):
        is_video = media.endswith("clips")
        name = clip if is_video else clip.rsplit(".", 1)[0]
        row = {"clip_id": clip.rsplit(".", 1)[0], "uri": tree.uri(f"{media}/{name}")}
        caption = captions.get(clip)
        rows.append(
            row
            | {"label": folds.label_of[clip], "fold": folds.fold_of[clip]}
            | {"caption_zh": caption.chinese if caption else None}
            | {"caption_en": caption.english if caption else None}
        )
    parts = parts_of(SINGLE_SIZES if task == "single" else COMPOUND_SIZES)
    if task == "single":
        parts.insert(0, Part(name="all", published=SINGLE_CLASSES))
    return Reading(table=table_from_rows(rows), parts=parts, notes=notes)


KINDS = ("no_caption", "with_caption")


def _set(tree: Tree, folder: str, number: int, captions: dict[str, Caption]) -> SetLists:
    lists = {}
    for part in ("train", "test"):
        path = f"{folder}/set_{number}/{part}.txt"
        if not tree.has(path):
            raise tree.missing(f"{part} list of set {number}", [path])
        lists[part] = _list(tree, path, captions)
    return SetLists(number=number, train=lists["train"], test=lists["test"])


def _list(tree: Tree, path: str, captions: dict[str, Caption]) -> dict[str, str]:
    """Clip -> label; captions that the list holds are added to `captions`."""
    label_of: dict[str, str] = {}
    for line in tree.lines(path):
        cells = line.split("\t") if "\t" in line else line.split()
        clip, label = (cells[0].strip(), cells[1].strip()) if len(cells) > 1 else ("", "")
        if not clip.lower().endswith(".mp4") or not label:
            raise DatasetError(f"{tree.uri(path)}: {line[:60]!r} is not FILE.mp4 CLASS")
        if label_of.setdefault(clip, label.lower()) != label.lower():
            raise DatasetError(f"{tree.uri(path)} gives {clip} two classes")
        if len(cells) > 3:
            captions[clip] = Caption(chinese=cells[2].strip(), english=cells[3].strip())
    return label_of


def _class_notes(task: str, label_of: Mapping[str, str]) -> list[str]:
    found = set(label_of.values())
    if task == "single":
        unknown = sorted(found - set(MAFW11.classes))
        return [f"Classes that MAFW does not have: {', '.join(unknown)}."] if unknown else []
    return [
        f"{len(found)} of the published {NUM_COMPOUND_CLASSES} classes; their order is that of "
        "their names, as none was published."
    ]


def _caption_note(captions: Mapping[str, Caption]) -> str:
    if not captions:
        return "There are no lists with captions."
    return f"{len(captions):,} clips have captions (columns caption_zh, caption_en)."


_OWNER = (
    "the MAFW authors (School of Computer Science, China University of Geosciences, Wuhan; "
    "repository MAFW-database/MAFW, form mafw-academics)"
)
_LAYOUT = (
    "data/clips/00151.mp4 and 'Train & Test Set' or split, then {task}/no_caption/"
    "set_1..5/{{train,test}}.txt (with_caption beside it)"
)

READER = Reader(
    name="mafw",
    title="MAFW (single classes)",
    summary="film clips with sound and captions, 11 classes, 5 folds",
    owner=_OWNER,
    layout=_LAYOUT.format(task="single"),
    licence=BY_AGREEMENT,
    label_set=MAFW11,
    read=partial(read, task="single"),
)
COMPOUND_READER = Reader(
    name="mafw_compound",
    title="MAFW (compound classes)",
    summary="the same clips with 43 single and compound classes, 5 folds",
    owner=_OWNER,
    layout=_LAYOUT.format(task="compound"),
    licence=BY_AGREEMENT,
    label_set=None,
    read=partial(read, task="compound"),
)
