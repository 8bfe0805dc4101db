"""Sets of single pictures: AffectNet, RAF-DB, CFEE."""

from __future__ import annotations

import io
import struct

import numpy as np
import openpyxl
import pytest

from mien.clips.labels import AFFECTNET7, KNOWN_LABEL_SETS
from mien.clips.readers.reading import DatasetError
from mien.clips.splits import split_from_columns
from mien.media.decode import decode_clip

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal\n"
)
TRAINING = (
    "1/a.jpg,2,3,10,12,1.0;2.0;3.0;4.0,1,0.5,-0.25\n"
    "1/b.JPG,0,0,0,0,1;2,7,-2,-2\n"
    "2/c.jpg,1,1,5,5,1;2,8,0,0\n"
    "2/d.jpg,1,1,5,5,1;2,10,-2,-2\n"
    "2/gone.jpg,1,1,5,5,1;2,0,0,0\n"
    "2/e.jpg,1,1,5,5,1;2,77,0,0\n"
    "2/f.jpg,1,1\n"
)


def write_old_affectnet(tree, *, header: str = HEADER) -> None:
    tree.text("training.csv", header + TRAINING)
    tree.text("validation.csv", HEADER + "3/v.jpg,1,1,5,5,1;2,4,0.1,0.2\n")
    for name in ("1/a.jpg", "1/b.JPG", "2/c.jpg", "3/v.jpg"):
        tree.picture(f"Manually_Annotated_Images/{name}")


@pytest.mark.parametrize("header", [HEADER, ""])
def test_old_affectnet_with_and_without_header(tree, column, header) -> None:
    write_old_affectnet(tree, header=header)
    report = tree.ingest("affectnet")
    assert column(report, "label") == {
        "1/a.jpg": "happiness",
        "1/b.JPG": "contempt",
        "3/v.jpg": "fear",
    }
    assert column(report, "split") == {"1/a.jpg": "train", "1/b.JPG": "train", "3/v.jpg": "test"}
    assert column(report, "face_box") == {
        **{"1/a.jpg": [2, 3, 12, 15], "1/b.JPG": None, "3/v.jpg": [1, 1, 6, 6]}
    }
    assert column(report, "valence") == {"1/a.jpg": 0.5, "1/b.JPG": None, "3/v.jpg": 0.1}
    assert column(report, "arousal")["1/a.jpg"] == -0.25
    reasons = sorted((entry.path.split("/")[-1], entry.reason) for entry in report.quarantined)
    assert reasons == [
        *[("c.jpg", "no_class"), ("d.jpg", "no_class"), ("e.jpg", "bad_value")],
        *[("gone.jpg", "missing_file"), ("training.csv", "bad_row")],
    ]
    assert "left out: 1 with expression 10 (no face), 1 with expression 8 (none)." in (
        report.summary()
    )
    assert report.counts[0].startswith(
        "train: 2 of the published 287,651 pictures (287,649 fewer); 1 left out, first "
        "Manually_Annotated_Images/2/gone.jpg (missing_file)"
    )
    assert report.counts[2].startswith(
        "test (the published validation part): 1 of the published 4,"
    )


def test_a_picture_is_a_clip_of_one_frame(tree) -> None:
    write_old_affectnet(tree)
    report = tree.ingest("affectnet")
    clip = decode_clip(report.manifest.ref(1).uri, choose_frames=lambda count: [count - 1])
    assert clip.frames_THWC.shape == (1, 16, 24, 3)
    assert report.manifest.column("num_frames") == [1, 1, 1]
    assert report.manifest.column("width") == [24] * 3


def test_seven_classes_leave_contempt_out_and_compare_with_the_sizes_of_seven(tree) -> None:
    write_old_affectnet(tree)
    report = tree.ingest("affectnet", label_set=AFFECTNET7)
    assert set(report.manifest.labels) == {"happiness", "fear"}
    assert "of the published 283,901 pictures" in report.counts[0]
    assert "of the published 3,500 pictures" in report.counts[2]
    assert any(entry.reason == "unknown_label" for entry in report.quarantined)


def npy(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


def write_npy(tree, path: str, value: object) -> None:
    tree.text(path, "")
    (tree.root / path).write_bytes(npy(value))


def test_new_affectnet_with_text_and_number_scalars(tree, column) -> None:
    for part, stem, expression in (
        *[("train_set", "0", "6"), ("train_set", "1", 3), ("train_set", "10", "8")],
        *[("val_set", "2", np.float32(0))],
    ):
        tree.picture(f"{part}/images/{stem}.jpg")
        write_npy(tree, f"{part}/annotations/{stem}_exp.npy", expression)
        write_npy(tree, f"{part}/annotations/{stem}_val.npy", "-0.5")
        write_npy(tree, f"{part}/annotations/{stem}_aro.npy", 0.75)
    tree.picture("train_set/images/11.jpg")
    report = tree.ingest("affectnet")
    assert column(report, "label") == {
        "train_set/images/0.jpg": "anger",
        "train_set/images/1.jpg": "surprise",
        "val_set/images/2.jpg": "neutral",
    }
    assert column(report, "valence")["train_set/images/0.jpg"] == -0.5
    assert column(report, "arousal")["train_set/images/0.jpg"] == 0.75
    assert [(e.path, e.reason) for e in report.quarantined] == [
        ("train_set/images/10.jpg", "no_class"),
        ("train_set/images/11.jpg", "bad_value"),
    ]


def test_nothing_is_unpickled(tree) -> None:
    tree.picture("train_set/images/0.jpg")
    write_npy(tree, "train_set/annotations/0_exp.npy", np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(DatasetError, match=r"0_exp.npy holds no single value.*allow_pickle"):
        tree.ingest("affectnet")


def test_missing_parts_of_affectnet_are_named(tree) -> None:
    with pytest.raises(DatasetError, match=r"table of the train part.*training.csv"):
        tree.ingest("affectnet")
    tree.text("training.csv", "subDirectory_filePath,expression\na,1\n")
    tree.text("Manually_Annotated_Images/x.txt", "")
    with pytest.raises(DatasetError, match=r"no column face_x, .*arousal"):
        tree.ingest("affectnet")
    (tree.root / "train_set/images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no annotations"):
        tree.ingest("affectnet")


@pytest.mark.parametrize("folder", ["basic/Image/aligned", "basic/Image/aligned/aligned"])
def test_rafdb_by_its_misspelt_list(tree, column, folder) -> None:
    lines = "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7\ntest_0002.jpg 8\nx.jpg 1\n"
    tree.text("basic/EmoLabel/list_patition_label.txt", lines)
    for name in ("train_00001", "train_00002", "test_0001", "test_0002"):
        tree.picture(f"{folder}/{name}_aligned.jpg")
    report = tree.ingest("rafdb")
    assert column(report, "label") == {
        **{"train_00001.jpg": "sadness", "train_00002.jpg": "surprise", "test_0001.jpg": "neutral"}
    }
    assert split_from_columns(report.manifest).test == ("test_0001.jpg",)
    assert [entry.reason for entry in report.quarantined] == ["bad_row", "bad_row"]
    assert "a class from 1 to 7" in report.quarantined[0].message
    assert report.counts[0].startswith("train: 2 of the published 12,271 pictures")
    assert report.counts[2].startswith("test: 1 of the published 3,068 pictures")


def test_rafdb_originals_stand_in_for_aligned_pictures(tree) -> None:
    tree.text("EmoLabel/list_patition_label.txt", "train_00001.jpg 1\n")
    tree.picture("Image/original/train_00001.jpg")
    report = tree.ingest("rafdb")
    assert report.manifest.ref(0).uri.endswith("Image/original/train_00001.jpg")
    assert "Pictures from Image/original" in report.summary()


def test_rafdb_compound(tree, column) -> None:
    tree.text("compound/EmoLabel/list_patition_label.txt", "train_0001.jpg 1\ntest_0001.jpg 11\n")
    for name in ("train_0001", "test_0001"):
        tree.picture(f"compound/Image/aligned/{name}_aligned.jpg")
    report = tree.ingest("rafdb_compound")
    assert column(report, "label") == {
        **{"train_0001.jpg": "happily surprised", "test_0001.jpg": "disgustedly surprised"}
    }
    assert "of the published 3,162 pictures" in report.counts[0]
    with pytest.raises(DatasetError, match=r"list_patition_label.txt.*Beijing"):
        tree.ingest("rafdb")


def write_cfee(tree, people=("101", "102", "205")) -> None:
    for person in people:
        tree.picture(f"CFEE_Database_230/01-04/Images1/01_{person}_3963.jpg")
        tree.picture(f"CFEE_Database_230/01-04/Images1/03_{person}_3964.JPG")
        tree.picture(f"CFEE_Database_230/01-04/Images1/04_{person}_3965.jpg")
        tree.picture(f"CFEE_Database_230/09-12/Images3/09_{person}_3966.jpg")
    tree.picture("CFEE_Database_230/09-12/Images3/thumb.jpg")
    tree.text("CFEE_Database_230/09-12/notes.txt", "")


def test_cfee_without_workbook_has_built_in_names(tree, column) -> None:
    write_cfee(tree)
    report = tree.ingest("cfee")
    labels = column(report, "label")
    assert len(labels) == 12
    assert labels["01_101_3963.jpg"] == "neutral"
    assert labels["03_101_3964.JPG"] == labels["04_101_3965.jpg"] == "sadness"
    assert labels["09_205_3966.jpg"] == "happily surprised"
    assert report.manifest.subjects == ("101", "102", "205")
    assert set(report.manifest.labels) <= set(KNOWN_LABEL_SETS["cfee22"].classes)
    assert [(e.path[-9:], e.reason) for e in report.quarantined] == [("thumb.jpg", "bad_file_name")]
    assert report.counts[0].startswith("all: 12 of the published 5,954 pictures")
    assert "no AU_annotation_all_subjects.xls" in report.summary()


def test_cfee_folds_are_blocks_of_sorted_people(tree, column) -> None:
    people = [f"{number:03d}" for number in range(100, 123)]
    write_cfee(tree, people)
    fold_of = dict(
        zip(*(tree.ingest("cfee").manifest.column(n) for n in ("subject_id", "fold")), strict=True)
    )
    assert [fold_of[person] for person in people] == [
        *[1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 10, 10]
    ]


def write_xlsx(tree, path, rows) -> None:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("summary")
    for row in rows:
        sheet.append(row)
    book.save(tree.root / path)


def test_cfee_takes_the_ids_that_its_workbook_names(tree, column) -> None:
    write_cfee(tree)
    rows = [(1, "Neutral"), (3, "Sad"), (9, "Happily  surprised"), (13, "Appalled")]
    write_xlsx(tree, "CFEE_Database_230/AU_annotation_all_subjects.xlsx", rows)
    report = tree.ingest("cfee")
    assert len(report.manifest) == 9
    assert column(report, "label")["09_101_3966.jpg"] == "happily surprised"
    assert "Pictures of ids that the workbook does not name: 04 (3)." in report.summary()


def xls(rows) -> bytes:
    """A BIFF5 workbook of one sheet named summary, in the way that xlrd reads without OLE2."""

    def record(kind: int, data: bytes) -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def cell(row: int, column: int, value) -> bytes:
        place = struct.pack("<HHH", row, column, 0)
        if isinstance(value, str):
            return record(0x0204, place + struct.pack("<H", len(value)) + value.encode("latin1"))
        return record(0x0203, place + struct.pack("<d", value))

    name = b"summary"
    start = record(0x0809, struct.pack("<HHHH", 0x0500, 0x0005, 0x0DBB, 1996))
    sheet_name = struct.pack("<BBB", 0, 0, len(name)) + name
    end = record(0x000A, b"")
    offset = len(start) + 4 + 4 + len(sheet_name) + len(end)
    head = start + record(0x0085, struct.pack("<I", offset) + sheet_name) + end
    cells = b"".join(cell(r, c, v) for r, row in enumerate(rows) for c, v in enumerate(row))
    return head + record(0x0809, struct.pack("<HHHH", 0x0500, 0x0010, 0x0DBB, 1996)) + cells + end


def test_cfee_workbook_of_the_release_is_an_xls(tree, column) -> None:
    write_cfee(tree)
    path = tree.root / "CFEE_Database_230/AU_annotation_all_subjects.xls"
    path.write_bytes(xls([("id", "emotion"), (1.0, "Neutral"), (4.0, "Sad")]))
    report = tree.ingest("cfee")
    assert sorted(set(report.manifest.column("label"))) == ["neutral", "sadness"]
    path.write_bytes(b"no workbook")
    with pytest.raises(DatasetError, match="is no workbook that can be read"):
        tree.ingest("cfee")


def test_cfee_without_pictures_is_an_error(tree) -> None:
    with pytest.raises(DatasetError, match=r"folder of pictures.*Ohio State"):
        tree.ingest("cfee")
