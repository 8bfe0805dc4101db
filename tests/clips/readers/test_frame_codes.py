"""Sets with labels of each frame: Aff-Wild2, BP4D, DISFA, GFT."""

from __future__ import annotations

import math

import pytest

from mien.clips.readers.reading import DatasetError
from mien.clips.splits import split_from_columns
from mien.media.decode import decode_clip

NAN = float("nan")


def same(found, wanted) -> bool:
    return len(found) == len(wanted) and all(
        f == w or (math.isnan(f) and math.isnan(w)) for f, w in zip(found, wanted, strict=True)
    )


EXPR = "EXPR_Classification_Challenge"
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"


def write_expr(tree, prefix="") -> None:
    train = EXPR_HEADER + "0\n4\n-1\n7\n6\n"
    tree.text(f"{prefix}{EXPR}/Train_Set/clip 1_left.txt", train)
    tree.text(f"{prefix}{EXPR}/Validation_Set/v2.txt", EXPR_HEADER + "1\n1\n-1\n2\n5\n")
    tree.frames("cropped_aligned/clip 1_left", ["00001.jpg", "00002.jpg", "00003.jpg", "00005.jpg"])
    tree.frames("cropped_aligned_new_50_vids/v2", ["00001.jpg", "00004.jpg"])


@pytest.mark.parametrize("prefix", ["", "Annotations/"])
def test_expressions_are_one_row_a_labelled_frame(tree, column, prefix) -> None:
    write_expr(tree, prefix)
    report = tree.ingest("affwild2_expr")
    # Frame 4 of train has no picture, frame 3 no label.
    assert column(report, "label") == {
        **{"clip 1_left/00001": "neutral", "clip 1_left/00002": "happiness"},
        **{"clip 1_left/00005": "surprise"},
        **{"v2/00001": "anger", "v2/00002": "anger", "v2/00004": "disgust", "v2/00005": "sadness"},
    }
    shown = {ref.clip_id: ref.uri.rpartition("/")[2] for ref in report.manifest}
    # Test frames without a picture show the nearest: 2 -> 1 (not 4), 5 -> 4.
    assert shown["v2/00002"] == "00001.jpg"
    assert shown["v2/00005"] == "00004.jpg"
    assert set(column(report, "source").values()) == {"clip 1", "v2"}
    assert column(report, "frame")["v2/00005"] == 5
    assert report.manifest.subjects == ()
    split = split_from_columns(report.manifest)
    assert (len(split.train), len(split.test)) == (3, 4)
    summary = report.summary()
    assert "2 frames without a label (-1) were left out" in summary
    assert "1 labelled frames of train have no picture and were left out; 2 of test" in summary
    assert report.counts[0] == "train: 3 frames"


def test_an_expression_without_header_or_outside_of_the_classes_is_told(tree) -> None:
    write_expr(tree)
    tree.text(f"{EXPR}/Train_Set/clip 1_left.txt", "0\n4\n")
    report = tree.ingest("affwild2_expr")
    assert "1 videos have no header; their first line counts as frame 1: clip 1_left" in (
        report.summary()
    )
    tree.text(f"{EXPR}/Train_Set/clip 1_left.txt", EXPR_HEADER + "8\n")
    with pytest.raises(DatasetError, match="label 8; expected -1 to 7"):
        tree.ingest("affwild2_expr")
    tree.text(f"{EXPR}/Train_Set/clip 1_left.txt", EXPR_HEADER + "1\n\n2\n\n")
    with pytest.raises(DatasetError, match=r"left\.txt, line 3 is blank"):
        tree.ingest("affwild2_expr")


def test_videos_without_pictures_are_told(tree) -> None:
    write_expr(tree)
    tree.text(f"{EXPR}/Train_Set/none.txt", EXPR_HEADER + "1\n")
    report = tree.ingest("affwild2_expr")
    assert "1 videos have no picture at all and are left out: none." in report.summary()
    assert "3 annotated videos" in report.summary()


def test_missing_parts_of_affwild2_are_named(tree) -> None:
    with pytest.raises(DatasetError, match=r"folder of frames.*cropped_aligned.*Imperial"):
        tree.ingest("affwild2_expr")
    tree.frames("cropped/v", ["00001.jpg"])
    with pytest.raises(DatasetError, match=r"no annotations below.*EXPR_Classification_Challenge"):
        tree.ingest("affwild2_expr")
    tree.text(f"{EXPR}/Train_Set/v.txt", EXPR_HEADER + "1\n")
    with pytest.raises(DatasetError, match="annotations of the test part"):
        tree.ingest("affwild2_expr")


AU_HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n"


def au_line(first: int, rest: int = 0) -> str:
    return f"{first}," + ",".join([str(rest)] * 11) + "\n"


def test_action_units_of_affwild2_follow_the_pictures_that_are_there(tree) -> None:
    lines = [au_line(1), au_line(0), au_line(1), au_line(-1), au_line(-1, -1), au_line(1)]
    tree.text("AU_Detection_Challenge/Train_Set/v.txt", AU_HEADER + "".join(lines))
    tree.text("AU_Detection_Challenge/Validation_Set/w.txt", AU_HEADER + au_line(0, 1))
    # Frame 2 is missing: the rest must not shift.
    tree.frames("cropped_aligned/v", [f"{n:05d}.jpg" for n in (1, 3, 4, 5, 6, 7)])
    tree.frames("cropped_aligned/w", ["00001.jpg"])
    report = tree.ingest("affwild2_au")
    train, test = report.manifest.column("action_units")
    # Pictures 1, 3, 4 (AU1 missing), 5 (nothing coded), 6; picture 7 has no line.
    assert same(train["AU1"], [1, 1, NAN, NAN, 1])
    assert same(train["AU26"], [0, 0, 0, NAN, 0])
    assert test["AU2"] == [1]
    ref = report.manifest.ref(0)
    assert (ref.start_s, ref.end_s, ref.num_frames) == (0.0, 0.2, 5)
    clip = decode_clip(ref.uri, choose_frames=range, start_s=ref.start_s, end_s=ref.end_s)
    assert clip.num_source_frames == 5
    assert "1 of 6 coded frames have no picture, first frame 2 of cropped_aligned/v" in (
        report.summary()
    )
    assert report.counts == ("train: 5 frames", "test (validation): 1 frames")


def test_other_codes_and_columns_are_errors(tree) -> None:
    tree.frames("cropped_aligned/v", ["00001.jpg"])
    tree.text("AU_Detection_Challenge/Validation_Set/w.txt", AU_HEADER + au_line(0))
    tree.text("AU_Detection_Challenge/Train_Set/v.txt", AU_HEADER + au_line(2))
    with pytest.raises(DatasetError, match=r"frame 1: '2' is no code; expected 0 to 1, or -1"):
        tree.ingest("affwild2_au")
    blank = AU_HEADER + au_line(1) + "\n" + au_line(0)
    tree.text("AU_Detection_Challenge/Train_Set/v.txt", blank)
    with pytest.raises(DatasetError, match=r"v\.txt, line 3 is blank"):
        tree.ingest("affwild2_au")
    tree.text("AU_Detection_Challenge/Train_Set/v.txt", "AU1,AU2\n1,0\n")
    with pytest.raises(DatasetError, match="has the columns AU1, AU2; expected"):
        tree.ingest("affwild2_au")


BP4D_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24)


def bp4d_table(rows) -> str:
    header = ",".join(["0", *map(str, BP4D_UNITS)])
    cells = (",".join(map(str, [frame, value, *[0] * 13])) for frame, value in rows)
    return "\n".join([header, *cells]) + "\n"


def write_bp4d(tree) -> None:
    for subject in ("F001", "M011", "F007"):
        table = bp4d_table([(8, 1), (9, 9), (10, 0), (12, 1)])
        tree.text(f"AUCoding/AU_OCC/{subject}_T1.csv", table)
    tree.frames("F001/T1", [f"{n:04d}.jpg" for n in range(6, 14)])
    tree.frames("M011/T1", [f"{n}.jpg" for n in (8, 9, 10, 11, 12)])
    tree.frames("F007/T1", [f"{n:03d}.jpg" for n in (8, 10, 12)])


def test_bp4d_matches_frames_by_number_and_9_is_not_coded(tree, column) -> None:
    write_bp4d(tree)
    report = tree.ingest("bp4d")
    fold_of = dict(zip(*(report.manifest.column(n) for n in ("subject_id", "fold")), strict=True))
    assert fold_of == {"F001": 3, "M011": 2, "F007": 1}
    units = column(report, "action_units")
    # 0006 to 0013 are there: coded are pictures 2 to 6, of which the fourth is not.
    assert same(units["F001/T1#2-7"]["AU1"], [1, NAN, 0, NAN, 1])
    assert same(units["M011/T1"]["AU1"], [1, NAN, 0, NAN, 1])
    assert same(units["F007/T1"]["AU1"], [1, 0, 1])
    assert sorted(units["M011/T1"]) == sorted(
        f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    )
    ref = next(ref for ref in report.manifest if ref.subject_id == "F001")
    clip = decode_clip(ref.uri, choose_frames=range, start_s=ref.start_s, end_s=ref.end_s)
    assert clip.num_source_frames == ref.num_frames == 5
    assert report.counts[0] == "fold 1 test: 3 of the published 46,034 frames (46,031 fewer)"
    assert "1 of 12 coded frames have no picture, first frame 9 of F007/T1" in report.summary()
    assert "38 of the published 41 subjects are not there" in report.summary()
    split = split_from_columns(report.manifest, fold=1)
    assert split.test == ("F007/T1",)


def test_windows_cut_recordings_without_losing_a_frame(tree, column) -> None:
    write_bp4d(tree)
    report = tree.ingest("bp4d", window_frames=2)
    whole = column(tree.ingest("bp4d"), "action_units")["F001/T1#2-7"]["AU1"]
    refs = [ref for ref in report.manifest if ref.subject_id == "F001"]
    assert [ref.clip_id for ref in refs] == ["F001/T1#2-4", "F001/T1#4-6", "F001/T1#6-7"]
    units = column(report, "action_units")
    assert same([v for ref in refs for v in units[ref.clip_id]["AU1"]], whole)
    for ref in refs:
        clip = decode_clip(ref.uri, choose_frames=range, start_s=ref.start_s, end_s=ref.end_s)
        assert clip.num_source_frames == ref.num_frames


def test_windows_are_refused_where_there_are_no_frame_labels(tree) -> None:
    with pytest.raises(DatasetError, match="has no labels of each frame"):
        tree.ingest("dfew", window_frames=4)
    with pytest.raises(DatasetError, match="expected at least 1"):
        tree.ingest("bp4d", window_frames=0)


def test_bp4d_errors_name_file_and_column(tree) -> None:
    with pytest.raises(DatasetError, match=r"folder of codes.*AU_OCC.*Binghamton"):
        tree.ingest("bp4d")
    tree.text("AUCoding/AU_OCC/F001_T1.csv", "0,1,2\n1,0,0\n")
    with pytest.raises(DatasetError, match="folder of a subject's pictures"):
        tree.ingest("bp4d")
    tree.frames("F001/T1", ["1.jpg"])
    with pytest.raises(DatasetError, match=r"F001_T1.csv has no column for AU 4, 6"):
        tree.ingest("bp4d")
    tree.text("AUCoding/AU_OCC/F001_T1.csv", bp4d_table([(1, 3)]))
    with pytest.raises(DatasetError, match=r"frame 1: '3' is no code; expected 0 to 1, or 9"):
        tree.ingest("bp4d")


def write_disfa(tree, subject: str, intensities=(0, 2, 5)) -> None:
    for unit in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
        values = intensities if unit == 12 else (0,) * len(intensities)
        lines = "".join(f"{frame},{value}\n" for frame, value in enumerate(values, 1))
        tree.text(f"ActionUnit_Labels/{subject}/{subject}_au{unit}.txt", lines)


def test_disfa_labels_count_from_one_and_pictures_from_zero(tree, column) -> None:
    write_disfa(tree, "SN001", (0, 2, 5, 1))
    write_disfa(tree, "SN003", (0, 2, 5, 1))
    tree.frames("SN001", ["0.png", "1.png", "3.png"])
    tree.frames("SN003", ["1.png", "2.png", "3.png", "4.png"])
    report = tree.ingest("disfa")
    units = column(report, "action_units")
    assert units["SN001"]["AU12"] == [0, 2, 1]
    assert units["SN003"]["AU12"] == [0, 2, 5, 1]
    assert column(report, "fold") == {"SN001": 3, "SN003": 1}
    assert len(units["SN001"]) == 12
    assert "1 of 8 coded frames have no picture, first frame 3 of SN001" in report.summary()
    assert report.counts[0] == "all: 7 of the published 130,814 frames (130,807 fewer)"
    assert report.counts[1] == "fold 1 test: 4 frames"
    assert set(column(report, "au_coding").values()) == {"intensity"}


def test_disfa_videos_of_the_left_camera_are_read_too(tree) -> None:
    write_disfa(tree, "SN002", (0, 1, 2, 3))
    tree.video("Videos_LeftCamera/LeftVideoSN002_comp.avi")
    report = tree.ingest("disfa")
    [ref] = report.manifest
    assert (ref.clip_id, ref.subject_id, ref.fold) == ("LeftVideoSN002_comp.avi", "SN002", 3)
    assert report.manifest.column("action_units")[0]["AU12"] == [0, 1, 2, 3]
    assert "first LeftVideoSN002_comp.avi: 5 in the file, 4 listed" in report.summary()
    with pytest.raises(DatasetError, match="windows of DISFA need prepared pictures"):
        tree.ingest("disfa", window_frames=2)


def test_disfa_errors_name_file_and_frame(tree) -> None:
    write_disfa(tree, "SN001", (0, 6))
    with pytest.raises(DatasetError, match=r"no pictures or videos.*SN001/0.png"):
        tree.ingest("disfa")
    tree.frames("SN001", ["0.png"])
    with pytest.raises(DatasetError, match=r"au12.txt, frame 2: '6' is no code; expected 0 to 5"):
        tree.ingest("disfa")
    (tree.root / "ActionUnit_Labels/SN001/SN001_au26.txt").unlink()
    write_disfa(tree, "SN004")
    (tree.root / "ActionUnit_Labels/SN004/SN004_au26.txt").unlink()
    tree.text("ActionUnit_Labels/SN001/SN001_au12.txt", "1,0\n2,0\n")
    with pytest.raises(DatasetError, match="no labels of AU 26"):
        tree.ingest("disfa")


def write_gft(tree) -> None:
    codes = ["1 0 0 0 0 0 0 0 0 0", "9 -1 -9 0 0 0 0 0 0 1", "9 9 9 9 9 9 9 9 9 9"]
    tree.text("GFT_train_path.txt", "002A/1.jpg\n002A/2.jpg\n002A/3.jpg\n")
    tree.text("GFT_train_AUoccur.txt", "\n".join(codes) + "\n")
    tree.text("GFT_test_path.txt", "./005B/10.jpg\n")
    tree.text("GFT_test_AUoccur.txt", "0,1,0,0,0,0,0,0,0,0\n")
    tree.frames("imgs/002A", ["001.jpg", "002.jpg", "003.jpg"])
    tree.frames("imgs/005B", ["10.jpg"])


def test_gft_lists_and_their_three_codes_for_missing(tree) -> None:
    write_gft(tree)
    report = tree.ingest("gft")
    train, test = report.manifest.column("action_units")
    assert same(train["AU1"], [1, NAN])
    assert same(train["AU2"], [0, NAN])
    assert same(train["AU4"], [0, NAN])
    assert same(train["AU24"], [0, 1])
    assert test["AU2"] == [1]
    assert report.manifest.subjects == ("002A", "005B")
    assert split_from_columns(report.manifest).test == ("imgs/005B",)
    assert report.counts[0] == "train: 2 of the published 108,000 frames (107,998 fewer)"
    assert "1 people in train, 1 in test (published: 78 and 18)" in report.summary()


def test_gft_errors(tree) -> None:
    with pytest.raises(DatasetError, match=r"list of the train pictures.*7wcyz"):
        tree.ingest("gft")
    write_gft(tree)
    tree.text("GFT_test_AUoccur.txt", "0 1\n")
    with pytest.raises(DatasetError, match="line 1: 2 codes, expected 10"):
        tree.ingest("gft")
    tree.text("GFT_test_path.txt", "005B/10.jpg\n005B/11.jpg\n")
    with pytest.raises(DatasetError, match=r"has 2 lines, .* 1; expected one line of codes"):
        tree.ingest("gft")
