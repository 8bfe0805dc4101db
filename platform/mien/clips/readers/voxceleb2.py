"""VoxCeleb2: talking faces without labels; the identity is the subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mien.clips.ingest_table import Rejected
from mien.clips.readers.reading import BY_AGREEMENT, Options, Part, Reader, Reading
from mien.clips.readers.tree import Tree
from mien.clips.schema import table_from_rows

PARTS = (
    Part(name="dev", split="train", published=1_092_009),
    Part(name="test", split="test"),
)
BROKEN_LISTS = ("broken.txt", "broken_files.txt")
NUM_BROKEN = 283


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`: ID/VIDEO/CLIP.mp4, or a folder of pictures for each ID/VIDEO/TRACK.

    Raises:
        DatasetError: no identity below dev/mp4, dev, test/mp4, test, mp4 or the root.
    """
    bases = [
        (part, base)
        for part, bases in (
            ("train", ("dev/mp4", "dev", "mp4", ".")),
            ("test", ("test/mp4", "test")),
        )
        if (base := next((b for b in bases if _identities(tree, b)), None)) is not None
    ]
    if not bases:
        raise tree.missing("identity", ["dev/mp4/id00012", "mp4/id00012", "id00012"])
    broken = _broken(tree)
    rows, rejected = [], []
    for part, base in bases:
        for identity, video, clip in _clips(tree, base):
            key = f"{identity}/{video}/{clip}"
            path = key if base == "." else f"{base}/{key}"
            if key in broken:
                message = "the list of broken files names it"
                rejected.append(Rejected(path=path, reason="listed_broken", message=message))
                continue
            row: dict[str, Any] = {"clip_id": key, "uri": tree.uri(path), "split": part}
            rows.append(row | {"subject_id": identity, "source": f"{identity}/{video}"})
    notes = [
        f"{len(broken)} files are listed as broken; {NUM_BROKEN} of dev are known to be."
        if broken
        else f"No {BROKEN_LISTS[0]}; {NUM_BROKEN} files of dev are known to be broken.",
        "No labels: the identity is subject_id, its video the source; dev is train.",
    ]
    return Reading(table=table_from_rows(rows), parts=PARTS, rejected=rejected, notes=notes)


def _identities(tree: Tree, base: str) -> list[str]:
    return sorted(n for n in tree.names(base) if n.startswith("id") and n[2:].isdecimal())


def _clips(tree: Tree, base: str) -> Iterator[tuple[str, str, str]]:
    """Identity, video and clip; folders of pictures are not looked into."""
    for identity in _identities(tree, base):
        person = identity if base == "." else f"{base}/{identity}"
        for video in sorted(tree.names(person)):
            for clip in sorted(tree.names(f"{person}/{video}")):
                if clip.lower().endswith(".mp4") or "." not in clip:
                    yield identity, video, clip


def _broken(tree: Tree) -> set[str]:
    """The last three parts of the paths that a list of broken files names."""
    path = tree.first(BROKEN_LISTS)
    lines = tree.lines(path) if path else []
    return {"/".join(line.replace("\\", "/").split("/")[-3:]) for line in lines}


READER = Reader(
    name="voxceleb2",
    title="VoxCeleb2",
    summary="talking faces without labels, by identity; for pretraining",
    owner="the Visual Geometry Group (University of Oxford; page 'VoxCeleb2'), which now names "
    "where the videos can be had",
    layout="dev/mp4/id00012/VIDEO/00001.mp4 (or id00012/VIDEO/TRACK/frame0001.jpg), and broken.txt "
    "with one path a line where you have it",
    licence=BY_AGREEMENT,
    label_set=None,
    read=read,
)
