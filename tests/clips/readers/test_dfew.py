"""DFEW: folds, votes, both layouts, what is missing."""

from __future__ import annotations

import fsspec
import openpyxl
import pytest

from mien.clips.ingest_dataset import ingest_dataset
from mien.clips.readers.reading import DatasetError
from mien.clips.splits import split_from_columns
from mien.media.decode import probe_clip

# Clip -> id in the file (1 happy 2 sad 3 neutral 4 angry 5 surprise 6 disgust 7 fear).
IDS = {1: 1, 2: 2, 3: 3, 14: 4, 15: 5, 1600: 6, 16372: 7}
TEST_OF_SET = {1: [1, 2], 2: [3], 3: [14], 4: [15, 1600], 5: [16372]}
RELEASE = "EmoLabel_DataSplit/{part}(single-labeled)/set_{number}.csv"
RENAMED = "EmoLabel_DataSplit/{part}(single-labeled)/{part}_set_{number}.csv"
OWNERS = "single_label/label/single_{part}set_{number}.csv"


def write_sets(tree, pattern=RELEASE, numbers=(1, 2, 3, 4, 5)) -> None:
    for number in numbers:
        test = TEST_OF_SET[number]
        for part, clips in (("test", test), ("train", [c for c in IDS if c not in test])):
            lines = "".join(f"{clip},{IDS[clip]}\n" for clip in clips)
            tree.text(pattern.format(part=part, number=number), f"video_name,label\n{lines}")


def write_clips(tree, folder="Clip/clip_224x224", clips=IDS) -> None:
    for clip in clips:
        tree.frames(f"{folder}/{clip:05d}", ["1.jpg", "2.jpg", "10.jpg"])


def write_votes(tree, header, rows) -> None:
    book = openpyxl.Workbook()
    for row in (header, *rows):
        book.active.append(row)
    (tree.root / "Annotation").mkdir()
    book.save(tree.root / "Annotation/annotation.xlsx")


VOTES = ("1happy", "2sad", "3neutral", "4angry", "5surprise", "6disgust", "7fear")


@pytest.mark.parametrize("pattern", [RELEASE, RENAMED])
def test_every_clip_is_tested_on_in_one_fold(tree, column, pattern) -> None:
    write_sets(tree, pattern)
    write_clips(tree)
    report = tree.ingest("dfew")
    labels = column(report, "label")
    assert labels["00001"] == "happiness"
    assert labels["00014"] == "anger"
    assert labels["16372"] == "fear"
    assert column(report, "fold") == {
        **{"00001": 1, "00002": 1, "00003": 2, "00014": 3, "00015": 4, "01600": 4, "16372": 5}
    }
    assert report.manifest.column("num_frames") == [3] * 7
    assert report.manifest.subjects == ()
    split = split_from_columns(report.manifest, fold=4)
    assert split.test == ("00015", "01600")
    assert split.train == ("00001", "00002", "00003", "00014", "16372")


def test_counts_stand_beside_the_published_ones(tree) -> None:
    write_sets(tree)
    write_clips(tree, clips=[clip for clip in IDS if clip != 14])
    report = tree.ingest("dfew")
    assert report.counts[0] == (
        "fold 1 train: 4 of the published 9,356 clips (9,352 fewer); 1 left out, first "
        "Clip/clip_224x224/00014 (missing_file)"
    )
    assert "neutral 1 (published 2,135)" in report.counts[1]
    assert "fold 3 test: 0 of the published 2,340 clips" in "\n".join(report.counts)
    [rejected] = report.quarantined
    assert (rejected.path, rejected.reason) == ("Clip/clip_224x224/00014", "missing_file")
    assert "no subject_id" in report.summary()


def test_doubled_folder_of_some_copies_is_entered(tree) -> None:
    write_sets(tree)
    write_clips(tree, "Clip/clip_224x224/clip_224x224")
    report = tree.ingest("dfew")
    assert report.quarantined == ()
    assert report.manifest.ref(0).uri.endswith("clip_224x224/clip_224x224/00001")


def test_layout_of_the_owners_code_and_names_without_padding(tree) -> None:
    write_sets(tree, OWNERS)
    for clip in IDS:
        tree.frames(f"single_label/data/{clip}", ["a.jpg"])
    report = tree.ingest("dfew")
    assert len(report.manifest) == 7
    assert report.manifest.ref(0).uri.endswith("single_label/data/1")


def test_originals_give_the_sound_of_picture_folders_or_are_the_clips(tree) -> None:
    write_sets(tree)
    tree.video("Clip/original/1.mp4")
    report = tree.ingest("dfew")
    assert [ref.clip_id for ref in report.manifest] == ["00001"]
    assert report.manifest.ref(0).audio_uri is None
    write_clips(tree)
    report = tree.ingest("dfew")
    assert report.manifest.ref(0).audio_uri == str(tree.root / "Clip/original/1.mp4")
    assert report.manifest.ref(1).audio_uri is None


def test_votes_become_soft_labels(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    rows = [[7, 0, 0, 1, 0, 2, 0, 1, 1], [0, 3, 0, 5, 0, 2, 0, 2, 2], [0] * 7 + [3, 0]]
    write_votes(tree, [*VOTES, "order", "label"], rows)
    report = tree.ingest("dfew")
    soft = [ref.soft_label for ref in report.manifest]
    assert soft[0]["happiness"] == pytest.approx(0.7)
    assert soft[0]["disgust"] == pytest.approx(0.2)
    assert soft[1]["anger"] == pytest.approx(0.5)
    assert soft[2] is None
    assert "2 of 7 clips" in report.summary()
    # Clip 2 is labelled sad (3 of 10), anger has more votes.
    assert "The label of 1 clips is not the class with most votes" in report.summary()


def test_a_sheet_with_other_columns_is_told_and_not_guessed_at(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    write_votes(tree, ["order", "happy", "sad"], [[1, 5, 5]])
    report = tree.ingest("dfew")
    assert "No soft labels" in report.summary()
    assert "1happy" in report.summary()
    assert len(report.manifest) == 7


def test_one_set_only_is_a_fold_with_a_warning(tree, column) -> None:
    write_sets(tree, numbers=[2])
    write_clips(tree)
    report = tree.ingest("dfew")
    assert column(report, "fold")["00003"] == 2
    assert set(column(report, "fold").values()) == {0, 2}
    assert "Only 1 of the 5 sets are there (2)" in report.summary()
    assert len(split_from_columns(report.manifest, fold=2).train) == 6


def test_lists_that_are_no_folds_are_told(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    path = "EmoLabel_DataSplit/test(single-labeled)/set_5.csv"
    tree.text(path, "video_name,label\n16372,7\n1,2\n")
    summary = tree.ingest("dfew").summary()
    assert "1 clips are in the test lists of two sets; the first counts: 00001." in summary
    assert "1 clips have different labels in different lists; the first counts: 00001." in summary
    assert "in both lists of set 5; they count as tested on: 00001" in summary


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\n1,1\n", "columns video_name and label"),
        ("video_name,label\n1,8\n", "label 8; expected 1 to 7"),
        ("video_name,label\n1,0\n", "label 0; expected 1 to 7"),
        ("video_name,label\n1,joy\n", "whole numbers"),
        ("video_name,label\n1,1\n00001,2\n", "names 1 clips twice"),
    ],
)
def test_a_list_that_is_none_is_an_error(tree, text, words) -> None:
    write_sets(tree)
    write_clips(tree)
    tree.text("EmoLabel_DataSplit/train(single-labeled)/set_1.csv", text)
    with pytest.raises(DatasetError, match=words):
        tree.ingest("dfew")


def test_what_is_missing_is_named_with_path_and_owner(tree) -> None:
    with pytest.raises(DatasetError, match=r"no list of a set.*set_1.csv.*Southeast University"):
        tree.ingest("dfew")
    write_sets(tree)
    with pytest.raises(DatasetError, match=r"no folder of clips.*clip_224x224.*jpg_256"):
        tree.ingest("dfew")
    write_clips(tree)
    (tree.root / "EmoLabel_DataSplit/test(single-labeled)/set_3.csv").unlink()
    with pytest.raises(DatasetError, match="no test list of set 3"):
        tree.ingest("dfew")
    with pytest.raises(DatasetError, match="there is no folder"):
        ingest_dataset("dfew", tree.root / "nowhere")


def test_a_better_root_is_proposed(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    with pytest.raises(DatasetError, match=f"Did you mean --root {tree.root}"):
        ingest_dataset("dfew", tree.root.parent)


def test_damaged_pictures_are_found_by_opening_only(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    for picture in (tree.root / "Clip/clip_224x224/00002").iterdir():
        picture.write_bytes(b"no picture")
    opened = tree.ingest("dfew")
    assert [(r.path[-5:], r.reason) for r in opened.quarantined] == [("00002", "truncated")]
    unopened = tree.ingest("dfew", probe=False)
    assert len(unopened.manifest) == 7
    assert unopened.manifest.column("num_frames") == [None] * 7
    assert "Files were not opened" in unopened.summary()


def test_a_bucket_is_read_as_a_folder_is(tree) -> None:
    write_sets(tree)
    write_clips(tree)
    fs = fsspec.filesystem("memory")
    fs.put(str(tree.root) + "/", "/dfew-bucket/DFEW", recursive=True)
    try:
        local = tree.ingest("dfew")
        remote = ingest_dataset("dfew", "memory://dfew-bucket/DFEW")
        assert remote.manifest.content_hash() == local.manifest.content_hash()
        assert remote.counts == local.counts
        uri = remote.manifest.ref(0).uri
        assert uri == "memory://dfew-bucket/DFEW/Clip/clip_224x224/00001"
        assert probe_clip(uri).num_frames == 3
    finally:
        fs.rm("/dfew-bucket", recursive=True)
