"""Published sizes add up, counting says what differs, and windows lose no frame."""

from __future__ import annotations

import math
from collections.abc import Mapping

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.clips.readers import affectnet, bp4d, cfee, dfew, disfa, ferv39k, mafw, rafdb
from mien.clips.readers.counts import count_lines
from mien.clips.readers.frames import CodedRecording, FrameCounts, recording_rows
from mien.clips.readers.reading import Part
from mien.clips.readers.tree import Tree, numbered


def total(published: int | Mapping[str, int] | None) -> int:
    return sum(published.values()) if isinstance(published, Mapping) else int(published or 0)


@pytest.mark.parametrize(("sizes", "clips"), [(dfew.SIZES, 11_697), (mafw.SINGLE_SIZES, 9_172)])
def test_five_test_parts_are_all_clips_and_each_train_part_the_rest(sizes, clips) -> None:
    assert sum(total(test) for _, test in sizes.values()) == clips
    assert all(total(train) + total(test) == clips for train, test in sizes.values())
    assert sum(mafw.SINGLE_CLASSES.values()) == 9_172


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (ferv39k.PARTS, [31_088, 7_847]),
        (affectnet.PARTS, [287_651, 4_000]),
        (rafdb.BASIC.parts, [12_271, 3_068]),
    ],
)
def test_classes_add_up_to_their_part(parts, sizes) -> None:
    assert [total(part.published) for part in parts] == sizes


def test_subject_folds_are_those_of_the_published_codes() -> None:
    assert len(bp4d.FOLDS) == 41
    assert {fold: list(bp4d.FOLDS.values()).count(fold) for fold in (1, 2, 3)} == {
        **{1: 13, 2: 14, 3: 14}
    }
    assert [bp4d.FOLDS[name] for name in ("F001", "M011", "F007")] == [3, 2, 1]
    assert len(disfa.FOLDS) == 27
    assert [disfa.FOLDS[name] for name in ("SN002", "SN013", "SN003")] == [3, 2, 1]
    assert sum(bp4d.TEST_FRAMES.values()) == 146_847


def test_ids_of_cfee_cover_its_classes() -> None:
    assert len(cfee.CLASS_OF_ID) == 26
    assert set(cfee.CLASS_OF_ID.values()) == set(cfee.READER.label_set.classes)
    assert len(cfee.READER.label_set) == 22


def test_whole_cfee_is_as_published(tree) -> None:
    ids = [number for number in range(1, 27) if number not in (4, 17, 19, 20)]
    people = [f"{number:03d}" for number in range(100, 330)]
    for number in ids:
        for person in people:
            tree.text(f"x/Images1/{number:02d}_{person}_1.jpg", "")
    report = tree.ingest("cfee", probe=False)
    # Without the workbook all 26 ids are expected.
    assert report.counts == ("all: 5,060 of the published 5,954 pictures (894 fewer)",)
    folds = report.manifest.column("fold")
    assert [folds.count(fold) for fold in range(1, 11)] == [23 * 22] * 10
    assert "230 of the published 230 people" in report.summary()


TABLE = pa.table(
    {
        "clip_id": ["a", "b", "c", "d"],
        "label": ["x", "x", "y", None],
        "split": ["train", "train", "test", "test"],
        "fold": [1, 2, 2, None],
        "num_frames": pa.array([10, 20, 30, None], pa.int32()),
    }
)


def counted(part: Part, kept=(True, True, True, True), unit="clips") -> list[str]:
    first = {row: "somewhere (why)" for row in range(4)}
    return count_lines(TABLE, np.asarray(kept), [part], unit=unit, first_left_out=first)


def test_counting_says_what_differs() -> None:
    train = Part(name="train", split="train", published={"x": 2})
    assert counted(train) == ["train: 2 clips, as published", "  x 2"]
    assert counted(train, (True, False, True, True)) == [
        "train: 1 of the published 2 clips (1 fewer); 1 left out, first somewhere (why)",
        "  x 1 (published 2)",
    ]
    assert counted(Part(name="test", split="test", published=1)) == [
        "test: 2 of the published 1 clips (1 more)",
        "  y 1",
    ]
    assert counted(Part(name="all")) == ["all: 4 clips"]
    assert counted(Part(name="test 2", test_fold=2, published=2)) == [
        "test 2: 2 clips, as published"
    ]
    assert counted(Part(name="train 2", train_fold=2)) == ["train 2: 1 clips"]
    assert counted(Part(name="all", published=60), unit="frames") == [
        "all: 60 frames, as published"
    ]


@given(
    there=st.sets(st.integers(0, 40), min_size=1, max_size=30),
    coded=st.sets(st.integers(0, 40), max_size=30),
    window=st.none() | st.integers(1, 9),
)
def test_rows_hold_every_coded_picture_once(there, coded, window) -> None:
    fs = fsspec.filesystem("memory")
    try:
        for number in there:
            fs.pipe_file(f"/coded/r/{number:03d}.jpg", b"")
        tree = Tree("memory://coded", title="t", owner="o", layout="l")
        recording = CodedRecording(
            folder="r",
            picture_of=numbered(tree.picture_names("r")),
            codes_of={number: {"AU1": float(number)} for number in coded},
        )
        counts = FrameCounts()
        rows = list(recording_rows(tree, recording, window, counts))
    finally:
        fs.rm("/coded", recursive=True)
    order = sorted(there)
    found = []
    for row in rows:
        start = 0 if row["start_s"] is None else round(row["start_s"] * 25)
        stop = len(order) if row["end_s"] is None else round(row["end_s"] * 25)
        values = row["action_units"]["AU1"]
        assert len(values) == stop - start == row["num_frames"]
        assert window is None or len(values) <= window
        for number, value in zip(order[start:stop], values, strict=True):
            assert value == number if number in coded else math.isnan(value)
            found.append(number)
    assert len(found) == len(set(found))
    assert there & coded <= set(found)
    assert counts.without_picture == len(coded - there)
    assert len({row["clip_id"] for row in rows}) == len(rows)
