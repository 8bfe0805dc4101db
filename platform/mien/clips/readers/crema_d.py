"""CREMA-D: actors speak twelve sentences in six emotions; the crowd's votes are soft labels."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from mien.clips.ingest_table import Rejected
from mien.clips.labels import CREMA6
from mien.clips.readers.reading import DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.tree import LFS_POINTER, Tree
from mien.clips.schema import table_from_rows
from mien.media import storage

NUM_CLIPS = 7442
NUM_ACTORS = 91
CLASS_OF_CODE = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
CLASS_OF_LETTER = {code[0]: name for code, name in CLASS_OF_CODE.items()}
LEVEL_OF_CODE = {"LO": "low", "MD": "medium", "HI": "high", "XX": None}
AUDIOVISUAL = "3"
"""`queryType` of votes on picture and sound together; 1 is the voice alone, 2 the face alone."""
RESPONSES = ("finishedResponses.csv", "processedResults/tabulatedVotes.csv")
DEMOGRAPHICS = "VideoDemographics.csv"
WITHOUT_SOUND = "1076_MTI_SAD_XX"
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})\.(?:flv|mp4)", re.IGNORECASE)

Votes = Mapping[str, Counter[str]]


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    The label is the emotion that the actor was asked for; the soft label is what those voted who
    saw and heard the clip.

    Raises:
        DatasetError: no folder of videos, or one of Git LFS pointers.
    """
    folder = tree.find("folder of videos", ["VideoFlash", "VideoMP4"])
    names = sorted(tree.names(folder))
    _check_no_pointers(tree, folder, names)
    votes, notes = _votes(tree)
    actors = _actors(tree)
    rows, rejected = [], []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or match[3].upper() not in CLASS_OF_CODE:
            message = "its name is not ACTOR_SENTENCE_EMOTION_LEVEL.flv, as in 1001_DFA_ANG_XX.flv"
            rejected.append(
                Rejected(path=f"{folder}/{name}", reason="bad_file_name", message=message)
            )
            continue
        clip = name.rpartition(".")[0]
        row: dict[str, Any] = {"clip_id": clip, "uri": tree.uri(f"{folder}/{name}")}
        row |= {"subject_id": match[1], "label": CLASS_OF_CODE[match[3].upper()]}
        row |= {"sentence": match[2].upper(), "level": LEVEL_OF_CODE.get(match[4].upper())}
        rows.append(row | _vote_columns(votes.get(clip)) | actors.get(match[1], {}))
    differ = sum(
        row["soft_label"].get(row["label"], 0) < max(row["soft_label"].values())
        for row in rows
        if row.get("soft_label")
    )
    if votes:
        notes.append(f"Of {differ:,} clips the crowd hears and sees another emotion than acted.")
    people = len({row["subject_id"] for row in rows})
    notes.append(f"{people} of the published {NUM_ACTORS} actors; CREMA-D has no official split.")
    if any(row["clip_id"] == WITHOUT_SOUND for row in rows):
        notes.append(f"{WITHOUT_SOUND} is known to have no sound.")
    return Reading(
        table=table_from_rows(rows),
        parts=[Part(name="all", published=NUM_CLIPS)],
        rejected=rejected,
        notes=notes,
    )


def _check_no_pointers(tree: Tree, folder: str, names: list[str]) -> None:
    if not names:
        return
    location = tree.uri(f"{folder}/{names[0]}")
    filesystem, path = storage.file_system(location)
    start = storage.patiently(
        location, lambda: filesystem.cat_file(path, start=0, end=len(LFS_POINTER))
    )
    if start == LFS_POINTER:
        raise DatasetError(
            f"{tree.uri(folder)} holds pointers of Git LFS instead of videos; run `git lfs pull` "
            "in the clone"
        )


def _votes(tree: Tree) -> tuple[Votes, list[str]]:
    """Votes on picture and sound together: clip -> class -> number."""
    path = tree.first(RESPONSES)
    if path is None:
        return {}, [f"There is no {' and no '.join(RESPONSES)}: no soft labels."]
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    rows = list(csv.DictReader(io.StringIO(tree.text(path))))
    try:
        if path == RESPONSES[0]:
            for row in rows:
                if row["queryType"].split(".")[0] == AUDIOVISUAL:
                    votes[row["clipName"].removesuffix(".flv")][
                        CLASS_OF_LETTER[row["respEmo"]]
                    ] += 1
        else:
            for row in rows:
                # The column without a name counts 1..., 2... and 3... by kind of question.
                if row[""].startswith(AUDIOVISUAL):
                    counts = {CLASS_OF_LETTER[c]: int(float(row[c])) for c in CLASS_OF_LETTER}
                    votes[row["fileName"]].update(counts)
    except (KeyError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{tree.uri(path)} has no column or value as expected: {error}"
        ) from error
    return votes, [f"Soft labels from {path}: votes on picture and sound, {len(votes):,} clips."]


def _vote_columns(votes: Counter[str] | None) -> dict[str, Any]:
    if not votes or not votes.total():
        return {"soft_label": None, "num_votes": None}
    shares = {name: count / votes.total() for name, count in votes.items() if count}
    return {"soft_label": shares, "num_votes": votes.total()}


def _actors(tree: Tree) -> dict[str, dict[str, Any]]:
    """Age, sex, race and ethnicity by actor, where the table is there."""
    if not tree.has(DEMOGRAPHICS):
        return {}
    rows = csv.DictReader(io.StringIO(tree.text(DEMOGRAPHICS)))
    columns = ("Age", "Sex", "Race", "Ethnicity")
    return {
        row["ActorID"]: {name.lower(): row[name] for name in columns if row.get(name)}
        | ({"age": int(row["Age"])} if (row.get("Age") or "").isdecimal() else {})
        for row in rows
        if row.get("ActorID")
    }


READER = Reader(
    name="crema_d",
    title="CREMA-D",
    summary="91 actors with sound, 6 classes, soft labels from the crowd's votes",
    owner="its authors, in the repository CheyneyComputerScience/CREMA-D (with Git LFS)",
    layout="VideoFlash/1001_DFA_ANG_XX.flv, finishedResponses.csv, VideoDemographics.csv",
    licence="ODbL-1.0",
    label_set=CREMA6,
    read=read,
)
