"""BP4D: 41 people in eight tasks, occurrence of 12 action units of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.clips.readers.frames import (
    OCCURRENCE,
    CodedRecording,
    FrameCounts,
    code,
    csv_table,
    recording_rows,
)
from mien.clips.readers.reading import BY_AGREEMENT, DatasetError, Options, Part, Reader, Reading
from mien.clips.readers.subject_folds import fold_of_subject, unknown_subjects
from mien.clips.readers.tree import Tree, numbered
from mien.clips.schema import table_from_rows

ACTION_UNITS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
NOT_CODED = frozenset({9})
FOLDS = fold_of_subject(
    (
        "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008",
        "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005",
        "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014",
    )
)
TEST_FRAMES = {1: 46_034, 2: 50_182, 3: 50_631}
CODES = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
MEDIA = ("", "2D+3D/", "Sequences(2D+3D)/", "img/", "images/")


def read(tree: Tree, options: Options) -> Reading:
    """See `Reader.read`.

    Raises:
        DatasetError: no table of codes, no pictures, a column that is missing, or another code.
    """
    codes = tree.find("folder of codes", CODES)
    names = sorted(name for name in tree.names(codes) if _recording(name))
    if not names:
        raise tree.missing("table of codes", [f"{codes}/F001_T1.csv"])
    subjects = sorted({name.partition("_")[0] for name in names})
    media = tree.first([prefix + subject for prefix in MEDIA for subject in subjects])
    if media is None:
        raise tree.missing("folder of a subject's pictures", [p + subjects[0] for p in MEDIA])
    prefix = media[: -len(media.rpartition("/")[2])]
    counts = FrameCounts()
    rows: list[dict[str, Any]] = []
    for name in names:
        subject, _, task = name.removesuffix(".csv").partition("_")
        folder = f"{prefix}{subject}/{task}"
        recording = CodedRecording(
            folder=folder,
            picture_of=numbered(tree.picture_names(folder)),
            codes_of=_codes(tree, f"{codes}/{name}"),
            columns={
                **{"subject_id": subject, "source": f"{subject}_{task}"},
                **{"fold": FOLDS.get(subject), "au_coding": OCCURRENCE},
            },
        )
        rows += recording_rows(tree, recording, options.window_frames, counts)
    parts = [
        Part(name=f"fold {fold} test", published=frames, test_fold=fold)
        for fold, frames in TEST_FRAMES.items()
    ]
    notes = [f"{len(names)} recordings of {len(subjects)} people.", *counts.notes()]
    notes += unknown_subjects(subjects, FOLDS)
    return Reading(table=table_from_rows(rows), parts=parts, unit="frames", notes=notes)


def _recording(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    subject, _, task = stem.partition("_")
    return suffix == "csv" and subject[:1] in ("F", "M") and task[:1] == "T"


def _codes(tree: Tree, path: str) -> Mapping[int, Mapping[str, float]]:
    """Frame -> unit -> 0, 1 or NaN. The first column is the frame's number, others are units."""
    header, rows = csv_table(tree.text(path))
    columns = {name.lstrip("0"): number for number, name in enumerate(header) if number}
    lacking = [unit for unit in ACTION_UNITS if str(unit) not in columns]
    if lacking:
        raise DatasetError(
            f"{tree.uri(path)} has no column for AU {', '.join(map(str, lacking))}; its header is "
            f"{', '.join(header[:12])}"
        )
    codes_of = {}
    for row in rows:
        where = f"{tree.uri(path)}, frame {row[0]}"
        if len(row) != len(header) or not row[0].isdecimal():
            raise DatasetError(f"{where}: {len(row)} cells, expected {len(header)}, frame first")
        codes_of[int(row[0])] = {
            f"AU{unit}": code(row[columns[str(unit)]], NOT_CODED, 1, where) for unit in ACTION_UNITS
        }
    return codes_of


READER = Reader(
    name="bp4d",
    title="BP4D",
    summary="41 people in 8 tasks, occurrence of 12 action units, 3 folds by person",
    owner="Lijun Yin's group (Binghamton University; page 'BP4D-Spontaneous')",
    layout="AUCoding/AU_OCC/F001_T1.csv and F001/T1/2440.jpg",
    licence=BY_AGREEMENT,
    label_set=None,
    read=read,
    takes_window=True,
)
