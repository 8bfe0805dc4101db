"""DISFA: 27 people watch one film, intensities of 12 action units of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.clips.readers.frames import (
    INTENSITY,
    CodedRecording,
    FrameCounts,
    code,
    recording_rows,
)
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.subject_folds import fold_of_subject, unknown_subjects
from mien.clips.readers.tree import Tree, numbered
from mien.clips.schema import table_from_rows

ACTION_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
BENCHMARK_UNITS = (1, 2, 4, 6, 9, 12, 25, 26)
FOLDS = fold_of_subject(
    (
        "002 010 001 026 027 032 030 009 016",
        "013 018 011 028 012 006 031 021 024",
        "003 029 023 025 008 005 007 017 004",
    ),
    prefix="SN",
)
NUM_FRAMES = 130_814
CODES = ("ActionUnit_Labels", "ActionUnit_Labels/ActionUnit_Labels")
PICTURES = ("", "img/", "images/", "Images/")
VIDEOS = ("Videos_LeftCamera/LeftVideo{}_comp.avi", "Video_LeftCamera/LeftVideo{}_comp.avi")

Labels = Mapping[int, Mapping[str, float]]


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`; prepared pictures are taken where they are there, else left videos.

    Raises:
        DatasetError: no labels, neither pictures nor videos, a code other than 0 to 5, or windows
            of videos.
    """
    codes = tree.find("folder of labels", CODES[::-1])
    subjects = sorted(name for name in tree.names(codes) if name.startswith("SN"))
    if not subjects:
        raise tree.missing("subject's labels", [f"{codes}/SN001/SN001_au1.txt"])
    places = {name: _media(tree, name) for name in subjects}
    if not any(places.values()):
        raise tree.missing(
            "pictures or videos", [f"{subjects[0]}/0.png", VIDEOS[0].format(subjects[0])]
        )
    counts = FrameCounts()
    rows: list[dict[str, Any]] = []
    nothing = [name for name, place in places.items() if place is None]
    for subject, place in places.items():
        if place is None:
            continue
        labels = _labels(tree, codes, subject)
        columns = {"subject_id": subject, "fold": FOLDS.get(subject), "au_coding": INTENSITY}
        if place.endswith(".avi"):
            rows.append(_video_row(tree, place, labels, options) | columns)
            continue
        recording = CodedRecording(
            folder=place,
            picture_of=_picture_of(tree, place, max(labels)),
            codes_of=labels,
            columns=columns,
        )
        rows += recording_rows(tree, recording, options.window_frames, counts)
    parts = [Part(name="all", published=NUM_FRAMES)]
    parts += [Part(name=f"fold {fold} test", test_fold=fold) for fold in (1, 2, 3)]
    notes = [*counts.notes(), *unknown_subjects(subjects, FOLDS)]
    if nothing:
        notes.append(f"{len(nothing)} labelled subjects have no pictures: {', '.join(nothing)}.")
    notes.append(
        "Intensities 0 to 5 of 12 units are kept; the benchmark scores AU "
        f"{', '.join(map(str, BENCHMARK_UNITS))} with 2 and more as present."
    )
    return Reading(table=table_from_rows(rows), parts=parts, unit="frames", notes=notes)


def _media(tree: Tree, subject: str) -> str | None:
    folders = [prefix + subject for prefix in PICTURES]
    found = next((folder for folder in folders if tree.pictures(folder)), None)
    return found or tree.first(path.format(subject) for path in VIDEOS)


def _picture_of(tree: Tree, folder: str, last_label: int) -> dict[int, str]:
    """Label's frame (from 1) -> picture; pictures count from 0, unless they end where labels do."""
    pictures = numbered(tree.picture_names(folder))
    starts_at = 1 if 0 not in pictures and last_label in pictures else 0
    return {number + 1 - starts_at: name for number, name in pictures.items()}


def _labels(tree: Tree, codes: str, subject: str) -> Labels:
    """Frame (from 1) -> unit -> intensity."""
    found: dict[int, dict[str, float]] = {}
    for unit in ACTION_UNITS:
        path = f"{codes}/{subject}/{subject}_au{unit}.txt"
        if not tree.has(path):
            raise tree.missing(f"labels of AU {unit}", [path])
        for line in tree.lines(path):
            frame, comma, value = line.partition(",")
            if not comma or not frame.strip().isdecimal():
                raise DatasetError(f"{tree.uri(path)}: {line!r} is not FRAME,INTENSITY")
            where = f"{tree.uri(path)}, frame {frame}"
            found.setdefault(int(frame), {})[f"AU{unit}"] = code(value, frozenset(), 5, where)
    if not found:
        raise DatasetError(f"{tree.uri(codes)}/{subject} holds no label")
    return found


def _video_row(tree: Tree, path: str, labels: Labels, options: Options) -> dict[str, Any]:
    if options.window_frames is not None:
        raise DatasetError(
            "windows of DISFA need prepared pictures (SN001/0.png, ...), as its videos store no "
            "times; leave --window out, or cut the frames first"
        )
    frames = [labels.get(frame, {}) for frame in range(1, max(labels) + 1)]
    units = [f"AU{unit}" for unit in ACTION_UNITS]
    return {
        "clip_id": path.rpartition("/")[2],
        "uri": tree.uri(path),
        "num_frames": len(frames),
        "action_units": {unit: [f.get(unit, float("nan")) for f in frames] for unit in units},
    }


READER = Reader(
    name="disfa",
    title="DISFA",
    summary="27 people, intensities of 12 action units, 3 folds by person",
    owner="Mohammad Mahoor's group (page 'DISFA: Denver Intensity of Spontaneous Facial Action "
    "database')",
    layout="ActionUnit_Labels/SN001/SN001_au1.txt and SN001/0.png, or "
    "Videos_LeftCamera/LeftVideoSN001_comp.avi",
    licence=BY_AGREEMENT,
    label_set=None,
    read=read,
    takes_window=True,
)
