"""FERV39k and MAFW: lists of the owners and of others, captions in GB18030, folds."""

from __future__ import annotations

import pytest

from mien.clips.readers.reading import DatasetError
from mien.clips.splits import split_from_columns

CLIPS = ("Action/Angry/0001", "Action/Happy/0002", "DailyLife/Sad/0001", "War/Surprise/0100")


def write_ferv39k(tree, media="2_ClipsforFaceCrop/") -> None:
    for clip in CLIPS:
        tree.frames(f"{media}{clip}", ["0.jpg", "1.jpg"])


def test_lists_of_the_owners_without_header(tree, column) -> None:
    lines = [f"{clip} {clip.split('/')[1]}" for clip in CLIPS]
    tree.text("4_setups/All_scenes/train_All.csv", "\n".join(lines[:3]) + "\n")
    tree.text("4_setups/All_scenes/test_All.csv", lines[3] + "\n")
    write_ferv39k(tree)
    report = tree.ingest("ferv39k")
    assert column(report, "label") == dict(
        zip(CLIPS, ("anger", "happiness", "sadness", "surprise"), strict=True)
    )
    assert report.manifest.column("split") == ["train", "train", "train", "test"]
    assert column(report, "scene")["DailyLife/Sad/0001"] == "DailyLife"
    assert report.counts[0].startswith("train: 3 of the published 31,088 clips")
    assert "3 of the published 22 kinds of scene" in report.summary()


def test_numbered_lists_of_s2d_are_read_by_their_own_index(tree, column) -> None:
    # Alphabetical ids, unlike DFEW's.
    tree.text("Annotation/label_index.txt", "Angry 0\nDisgust 1\nFear 2\nHappy 3\nSad 5\n")
    train = f"path,id\ndata/x/{CLIPS[0]},0\n{CLIPS[1]},3\n{CLIPS[2]},3\n{CLIPS[3]},6\n"
    tree.text("Annotation/train.csv", train)
    tree.text("Annotation/test.csv", f"path,id\n{CLIPS[2]},5\n")
    write_ferv39k(tree)
    report = tree.ingest("ferv39k")
    assert column(report, "label") == {
        **{CLIPS[0]: "anger", CLIPS[1]: "happiness", CLIPS[2]: "sadness"}
    }
    wrong = [(entry.path, entry.reason, entry.message) for entry in report.quarantined]
    assert [entry[:2] for entry in wrong] == [("Annotation/train.csv", "bad_row")] * 2
    assert "line 4" in wrong[0][2]
    assert "folder and class do not agree" in wrong[0][2]


def test_missing_lists_of_ferv39k_are_named(tree) -> None:
    write_ferv39k(tree)
    with pytest.raises(DatasetError, match=r"list of the train part.*train_All.csv.*Fudan"):
        tree.ingest("ferv39k")


SINGLE = {"00151": "anger", "00152": "Helplessness", "00153": "neutral"}
COMPOUND = {"00151": "anger_disgust_anxiety", "00152": "sadness_surprise", "00154": "anger"}


def write_mafw(tree, task, labels, *, base="Train & Test Set", captions=True) -> None:
    tests = dict(zip(labels, (1, 2, 3), strict=True))
    for number in range(1, 6):
        for part in ("train", "test"):
            clips = [c for c in labels if (tests[c] == number) == (part == "test")]
            lines = "".join(f"{clip}.mp4 {labels[clip]}\n" for clip in clips)
            path = f"{base}/{task}/no_caption/set_{number}/{part}.txt"
            tree.text(path, lines)
            if captions:
                texts = "".join(
                    f"{c}.mp4\t{labels[c]}\t皱眉。\tThe deep frown.\n" for c in clips[:1]
                )
                tree.text(path.replace("no_", "with_"), texts, "gb18030")
    for clip in labels:
        tree.video(f"data/clips/{clip}.mp4")


def test_single_classes_with_captions_in_gb18030(tree, column) -> None:
    write_mafw(tree, "single", SINGLE)
    report = tree.ingest("mafw")
    assert column(report, "label") == {
        **{"00151": "anger", "00152": "helplessness", "00153": "neutral"}
    }
    assert column(report, "fold") == {"00151": 1, "00152": 2, "00153": 3}
    assert column(report, "caption_zh")["00151"] == "皱眉。"
    assert column(report, "caption_en") == {
        **{"00151": "The deep frown.", "00152": "The deep frown.", "00153": "The deep frown."}
    }
    assert report.counts[0].startswith("all: 3 of the published 9,172 clips")
    assert "anger 1 (published 1,390)" in report.counts[1]
    assert report.counts[2].startswith("fold 1 train: 2 of the published 7,333 clips")
    assert split_from_columns(report.manifest, fold=2).test == ("00152",)
    assert report.manifest.ref(0).uri.endswith("data/clips/00151.mp4")


def test_captions_alone_are_enough_as_lists(tree, column) -> None:
    for number in range(1, 6):
        for part in ("train", "test"):
            path = f"split/single/with_caption/set_{number}/{part}.txt"
            is_test = (number == 1) == (part == "test")
            line = "00151.mp4\tfear\t害怕\tA man is afraid.\n" if is_test else ""
            tree.text(path, line, "gb18030")
    tree.frames("data/faces/00151", ["1.png"])
    report = tree.ingest("mafw")
    assert column(report, "caption_zh") == {"00151": "害怕"}
    assert report.manifest.ref(0).uri.endswith("data/faces/00151")


def test_compound_classes_keep_their_names(tree, column) -> None:
    write_mafw(tree, "compound", COMPOUND, base="anno", captions=False)
    report = tree.ingest("mafw_compound")
    assert column(report, "label") == COMPOUND
    assert "3 of the published 43 classes" in report.summary()
    assert "There are no lists with captions" in report.summary()
    assert report.counts[0].startswith("fold 1 train: 2 of the published 7,178 clips")
    with pytest.raises(DatasetError, match=r"no lists of the single sets"):
        tree.ingest("mafw")


def test_a_class_that_mafw_lacks_is_told(tree) -> None:
    write_mafw(tree, "single", {**SINGLE, "00153": "joy"})
    assert "Classes that MAFW does not have: joy." in tree.ingest("mafw").summary()


def test_a_line_that_is_none_is_an_error(tree) -> None:
    write_mafw(tree, "single", SINGLE)
    tree.text("Train & Test Set/single/no_caption/set_1/test.txt", "00151 anger\n")
    with pytest.raises(DatasetError, match=r"'00151 anger' is not FILE.mp4 CLASS"):
        tree.ingest("mafw")
    text = "00151.mp4 anger\n00151.mp4 fear\n"
    tree.text("Train & Test Set/single/no_caption/set_1/test.txt", text)
    with pytest.raises(DatasetError, match=r"gives 00151.mp4 two classes"):
        tree.ingest("mafw")
