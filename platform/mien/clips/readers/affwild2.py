"""Aff-Wild2 as the ABAW challenges annotate it: expressions, and action units, of each frame.

Expressions become one row a frame, since the metric is over frames; a row's picture file is that
frame. Action units become rows of consecutive frames, as the methods on them see clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mien.clips.labels import AFFWILD2_EXPR8
from mien.clips.readers.frames import (
    OCCURRENCE,
    CodedRecording,
    FrameCounts,
    code,
    csv_table,
    recording_rows,
)
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.tree import Tree, numbered
from mien.clips.schema import table_from_rows

FRAMES = ("cropped_aligned", "cropped_aligned_new_50_vids", "cropped")
UNLABELLED = -1
ACTION_UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
# Results are reported on the validation videos: labels of the test videos were never given out.
_SETS = {"train": "Train_Set", "test": "Validation_Set"}
_ANNOTATIONS = ("", "Annotations/", "annotations/", "annotations/annotations/", "ABAW Annotations/")
_EXPR = ("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge")
_AU = ("AU_Detection_Challenge",)
_VALIDATION_NOTE = (
    "The published validation videos are called test here, because results are reported on them; "
    "carve a validation part from train. Videos are divided, not people: no subject_id, and source "
    "is the video (of both subjects where there are _left and _right)."
)


@dataclass(slots=True)
class _Counts:
    unlabelled: int = 0
    skipped: int = 0
    nearest: int = 0
    without_pictures: list[str] = field(default_factory=list)
    without_header: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was left out and stood in for."""
        found = [
            f"{self.unlabelled:,} frames without a label (-1) were left out.",
            f"{self.skipped:,} labelled frames of train have no picture and were left out; "
            f"{self.nearest:,} of test show the nearest frame's picture, so that every labelled "
            "frame is scored.",
        ]
        for what, videos in (
            ("have no picture at all and are left out", self.without_pictures),
            ("have no header; their first line counts as frame 1", self.without_header),
        ):
            if videos:
                found.append(f"{len(videos)} videos {what}: {', '.join(videos[:3])}.")
        return found


def read_expressions(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    Raises:
        DatasetError: no annotations, no frames, or a label outside of -1 to 7.
    """
    folders = _frame_folders(tree)
    counts = _Counts()
    tables = [
        _expression_rows(tree, folders, annotation, video, part, counts)
        for part, annotation, video in _annotated_videos(tree, _EXPR)
    ]
    table = pa.concat_tables([t for t in tables if t is not None] or [table_from_rows([])])
    parts = [Part(name="train", split="train"), Part(name="test (validation)", split="test")]
    notes = [f"{len(tables)} annotated videos.", *counts.notes(), _VALIDATION_NOTE]
    return Reading(table=table, parts=parts, unit="frames", notes=notes)


def read_action_units(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    Raises:
        DatasetError: no annotations, no frames, or a code outside of -1, 0 and 1.
    """
    folders = _frame_folders(tree)
    counts = FrameCounts()
    tables = []
    without_pictures = []
    for part, annotation, video in _annotated_videos(tree, _AU):
        folder = _folder_of(tree, folders, video)
        if folder is None:
            without_pictures.append(video)
            continue
        recording = CodedRecording(
            folder=folder,
            picture_of=numbered(tree.picture_names(folder)),
            codes_of=_codes(tree, annotation),
            columns={"split": part, "source": _source(video), "au_coding": OCCURRENCE},
        )
        rows = list(recording_rows(tree, recording, options.window_frames, counts))
        tables += [table_from_rows(rows)] if rows else []
    table = pa.concat_tables(tables or [table_from_rows([])], promote_options="default")
    parts = [Part(name="train", split="train"), Part(name="test (validation)", split="test")]
    notes = [*counts.notes(), _VALIDATION_NOTE]
    if without_pictures:
        listed = ", ".join(without_pictures[:3])
        notes.append(f"{len(without_pictures)} annotated videos have no pictures: {listed}.")
    return Reading(table=table, parts=parts, unit="frames", notes=notes)


def _frame_folders(tree: Tree) -> list[str]:
    tree.find("folder of frames", FRAMES)
    aligned = [folder for folder in FRAMES[:2] if tree.has(folder)]
    return aligned or [FRAMES[2]]


def _annotated_videos(tree: Tree, challenges: Sequence[str]) -> list[tuple[str, str, str]]:
    """Part, annotation file and video name of each annotated video."""
    base = tree.find(
        "annotations", [prefix + name for prefix in _ANNOTATIONS for name in challenges]
    )
    videos = []
    for part, folder in _SETS.items():
        path = f"{base}/{folder}"
        if not tree.has(path):
            raise tree.missing(f"annotations of the {part} part", [path])
        names = sorted(name for name in tree.names(path) if name.endswith(".txt"))
        videos += [(part, f"{path}/{name}", name.removesuffix(".txt")) for name in names]
    return videos


def _folder_of(tree: Tree, folders: Sequence[str], video: str) -> str | None:
    return next((f"{base}/{video}" for base in folders if video in tree.names(base)), None)


def _source(video: str) -> str:
    return video.removesuffix("_left").removesuffix("_right")


def _expression_rows(
    tree: Tree, folders: Sequence[str], annotation: str, video: str, part: str, counts: _Counts
) -> pa.Table | None:
    """A table of the labelled frames of a video; millions of rows are made column by column."""
    labels = _labels(tree, annotation, video, counts)
    counts.unlabelled += int((labels == UNLABELLED).sum())
    folder = _folder_of(tree, folders, video)
    picture_of = numbered(tree.picture_names(folder)) if folder else {}
    if folder is None or not picture_of:
        counts.without_pictures.append(video)
        return None
    frames = np.flatnonzero(labels != UNLABELLED) + 1
    shown = _nearest(frames, np.asarray(sorted(picture_of)))
    if part == "train":
        counts.skipped += int((shown != frames).sum())
        frames = frames[shown == frames]
        shown = frames
    counts.nearest += int((shown != frames).sum())
    classes = pa.array(AFFWILD2_EXPR8.classes).take(pa.array(labels[frames - 1]))
    base = tree.uri(folder)
    return pa.table(
        {
            "clip_id": pa.array([f"{video}/{frame:05d}" for frame in frames.tolist()]),
            "uri": pa.array([f"{base}/{picture_of[number]}" for number in shown.tolist()]),
            "num_frames": pa.repeat(pa.scalar(1, pa.int32()), len(frames)),
            "source": pa.repeat(pa.scalar(_source(video)), len(frames)),
            "label": classes,
            "split": pa.repeat(pa.scalar(part), len(frames)),
            "frame": pa.array(frames.astype(np.int32)),
        }
    )


def _labels(tree: Tree, annotation: str, video: str, counts: _Counts) -> npt.NDArray[np.int64]:
    """Class number of frame 1, 2, ...; -1 without one. The first line is a header."""
    lines = _frame_lines(tree, annotation)
    if lines and lines[0].removeprefix("-").isdecimal():
        counts.without_header.append(video)
    else:
        lines = lines[1:]
    try:
        labels = np.asarray([int(line) for line in lines], dtype=np.int64)
    except ValueError as error:
        raise DatasetError(
            f"{tree.uri(annotation)}: expected a whole number a line; {error}"
        ) from error
    wrong = labels[(labels < UNLABELLED) | (labels >= len(AFFWILD2_EXPR8))]
    if wrong.size:
        raise DatasetError(f"{tree.uri(annotation)}: label {wrong[0]}; expected -1 to 7")
    return labels


def _frame_lines(tree: Tree, annotation: str) -> list[str]:
    """The lines of an annotation; a blank one between others would shift all frames after it."""
    lines = [line.strip() for line in tree.text(annotation).rstrip().splitlines()]
    if "" in lines:
        raise DatasetError(
            f"{tree.uri(annotation)}, line {lines.index('') + 1} is blank; expected a line a frame"
        )
    return lines


def _nearest(frames: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each frame the nearest number that is there; the earlier of two as near."""
    right = np.minimum(np.searchsorted(there, frames), len(there) - 1)
    left = np.maximum(right - 1, 0)
    is_left = np.abs(frames - there[left]) <= np.abs(there[right] - frames)
    return np.where(is_left, there[left], there[right])


def _codes(tree: Tree, annotation: str) -> Mapping[int, Mapping[str, float]]:
    """Frame (from 1) -> unit -> 0, 1 or NaN; frames of which no unit is coded are left out."""
    header, rows = csv_table("\n".join(_frame_lines(tree, annotation)))
    units = [f"AU{name.upper().removeprefix('AU').lstrip('0')}" for name in header]
    if set(units) != set(ACTION_UNITS):
        raise DatasetError(
            f"{tree.uri(annotation)} has the columns {', '.join(header)}; expected "
            f"{', '.join(ACTION_UNITS)}"
        )
    codes_of = {}
    for frame, row in enumerate(rows, 1):
        where = f"{tree.uri(annotation)}, frame {frame}"
        if len(row) != len(units):
            raise DatasetError(f"{where}: {len(row)} values for {len(units)} units")
        codes = {
            unit: code(cell, frozenset({UNLABELLED}), 1, where)
            for unit, cell in zip(units, row, strict=True)
        }
        if not all(map(math.isnan, codes.values())):
            codes_of[frame] = codes
    return codes_of


_OWNER = (
    "Dimitrios Kollias and Stefanos Zafeiriou (page 'Aff-Wild2 database', Intelligent Behaviour "
    "Understanding Group, Imperial College London)"
)
_LAYOUT = (
    "{challenge}/{{Train_Set,Validation_Set}}/VIDEO.txt (or below Annotations/) and "
    "cropped_aligned/VIDEO/00001.jpg"
)

EXPR_READER = Reader(
    name="affwild2_expr",
    title="Aff-Wild2 EXPR",
    summary="frames of videos in the wild, 8 classes, split by video",
    owner=_OWNER,
    layout=_LAYOUT.format(challenge=_EXPR[0]),
    licence=BY_AGREEMENT,
    label_set=AFFWILD2_EXPR8,
    read=read_expressions,
)
AU_READER = Reader(
    name="affwild2_au",
    title="Aff-Wild2 AU",
    summary="videos in the wild, occurrence of 12 action units of each frame",
    owner=_OWNER,
    layout=_LAYOUT.format(challenge=_AU[0]),
    licence=BY_AGREEMENT,
    label_set=None,
    read=read_action_units,
    takes_window=True,
)
