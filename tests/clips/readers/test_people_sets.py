"""Sets that say who is seen: VoxCeleb2 and CREMA-D; and the three-column lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.clips.ingest_list import ingest_lists, is_list
from mien.clips.labels import DFEW7, KNOWN_LABEL_SETS, LabelSet
from mien.clips.readers.reading import DatasetError
from mien.clips.readers.registry import READERS
from mien.clips.schema import ManifestError
from mien.clips.splits import split_by_subject


def test_voxceleb2_identity_is_the_subject(tree, column) -> None:
    for clip in ("dev/mp4/id00012/aBc-_1/00001.mp4", "dev/mp4/id00012/aBc-_1/00002.mp4"):
        tree.video(clip)
    tree.video("test/mp4/id00017/x/00001.mp4")
    tree.text("dev/mp4/id00012/aBc-_1/notes.txt", "")
    tree.text("broken.txt", "/their/vox/dev/mp4/id00012/aBc-_1/00002.mp4\n")
    report = tree.ingest("voxceleb2")
    assert column(report, "subject_id") == {
        **{"id00012/aBc-_1/00001.mp4": "id00012", "id00017/x/00001.mp4": "id00017"}
    }
    assert column(report, "split")["id00017/x/00001.mp4"] == "test"
    assert column(report, "source")["id00012/aBc-_1/00001.mp4"] == "id00012/aBc-_1"
    assert report.manifest.labels == ()
    assert [e.reason for e in report.quarantined] == ["listed_broken"]
    assert report.counts[0] == "dev: 1 of the published 1,092,009 clips (1,092,008 fewer)"


def test_voxceleb2_folders_of_frames(tree) -> None:
    tree.frames("id00012/VIDEO/TRACK", ["frame0001.jpg", "frame0002.jpg"])
    report = tree.ingest("voxceleb2")
    assert [ref.clip_id for ref in report.manifest] == ["id00012/VIDEO/TRACK"]
    assert report.manifest.column("num_frames") == [2]
    (tree.root / "id00012").rename(tree.root / "someone")
    with pytest.raises(DatasetError, match=r"no identity below.*Oxford"):
        tree.ingest("voxceleb2")


CREMA_NAMES = ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_IEO_SAD_LO")
RESPONSES = (
    '"","localid","queryType","clipName","respEmo"\n'
    '"1","a",3,"1001_DFA_ANG_XX","A"\n'
    '"2","b",3,"1001_DFA_ANG_XX","A"\n'
    '"3","c",3,"1001_DFA_ANG_XX","D"\n'
    '"4","c",1,"1001_DFA_ANG_XX","N"\n'
    '"5","c",2,"1001_DFA_ANG_XX","N"\n'
    '"6","d",3,"1001_IEO_HAP_HI","N"\n'
)
TABULATED = (
    '"","A","D","F","H","N","S","fileName","numResponses"\n'
    '"100001",0,0,0,0,9,0,"1001_DFA_ANG_XX",9\n'
    '"200001",0,0,0,0,9,0,"1001_DFA_ANG_XX",9\n'
    '"300001",2,1,0,0,0,0,"1001_DFA_ANG_XX",3\n'
    '"300002",0,0,0,0,1,0,"1001_IEO_HAP_HI",1\n'
)


def write_crema(tree) -> None:
    for name in CREMA_NAMES:
        tree.video(f"VideoFlash/{name}.flv")
    tree.video("VideoFlash/readme_1.flv")
    tree.text("VideoDemographics.csv", '"ActorID","Age","Sex"\n1001,51,"Male"\n1003,20,"Male"\n')


@pytest.mark.parametrize(
    ("path", "text"),
    [("finishedResponses.csv", RESPONSES), ("processedResults/tabulatedVotes.csv", TABULATED)],
)
def test_crema_votes_on_picture_and_sound_are_soft_labels(tree, column, path, text) -> None:
    write_crema(tree)
    tree.text(path, text)
    report = tree.ingest("crema_d")
    assert column(report, "label") == dict(
        zip(CREMA_NAMES, ("anger", "happiness", "sadness"), strict=True)
    )
    assert column(report, "soft_label") == {
        **{CREMA_NAMES[0]: pytest.approx({"anger": 2 / 3, "disgust": 1 / 3})},
        **{CREMA_NAMES[1]: {"neutral": 1.0}, CREMA_NAMES[2]: None},
    }
    assert column(report, "num_votes") == dict(zip(CREMA_NAMES, (3, 1, None), strict=True))
    assert report.manifest.subjects == ("1001", "1002")
    assert column(report, "age") == dict(zip(CREMA_NAMES, (51, 51, None), strict=True))
    assert column(report, "level") == dict(zip(CREMA_NAMES, (None, "high", "low"), strict=True))
    assert set(column(report, "licence").values()) == {"ODbL-1.0"}
    assert [(e.path, e.reason) for e in report.quarantined] == [
        ("VideoFlash/readme_1.flv", "bad_file_name")
    ]
    assert "Of 1 clips the crowd hears and sees another emotion" in report.summary()
    assert "all: 3 of the published 7,442 clips" in report.counts[0]
    assert split_by_subject(
        report.manifest, fractions={"train": 0.5, "test": 0.5}, seed=0
    ).test in [CREMA_NAMES[:2], CREMA_NAMES[2:]]


def test_votes_for_other_classes_do_not_reach_a_model_without_them(tree) -> None:
    write_crema(tree)
    tree.text("finishedResponses.csv", RESPONSES)
    two = LabelSet(name="two", classes=("anger", "happiness"))
    report = tree.ingest("crema_d", label_set=two)
    assert len(report.manifest) == 0
    messages = {entry.path: entry.message for entry in report.quarantined}
    assert messages["VideoFlash/1001_DFA_ANG_XX.flv"].startswith("soft label: unknown label")
    assert messages["VideoFlash/1002_IEO_SAD_LO.flv"].startswith("unknown label 'sadness'")
    assert report.counts[0].startswith("all: 0 clips; 3 left out")


def test_crema_without_votes_says_so(tree) -> None:
    write_crema(tree)
    report = tree.ingest("crema_d")
    assert "no soft labels" in report.summary()
    assert report.manifest.column("soft_label") == [None] * 3


def test_pointers_of_git_lfs_are_known(tree) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    tree.text("VideoFlash/1001_DFA_ANG_XX.flv", pointer)
    with pytest.raises(DatasetError, match=r"pointers of Git LFS.*git lfs pull"):
        tree.ingest("crema_d")
    write_crema(tree)
    tree.text("finishedResponses.csv", pointer)
    with pytest.raises(DatasetError, match=r"finishedResponses.csv is a pointer of Git LFS"):
        tree.ingest("crema_d")


def test_an_unknown_reader_lists_all(tree) -> None:
    with pytest.raises(DatasetError, match=r"no reader is called 'nope'; there are dfew, ferv39k"):
        tree.ingest("nope")


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_a_clear_error_for_every_reader(tree, name) -> None:
    tree.text("readme.txt", "")
    with pytest.raises(DatasetError) as caught:
        tree.ingest(name)
    message = str(caught.value)
    assert READERS[name].owner in message
    assert READERS[name].layout in message
    assert "looked for" in message
    assert "the folder holds: readme.txt" in message


def test_label_sets_of_readers_are_known_by_name() -> None:
    for reader in READERS.values():
        if reader.label_set is not None:
            assert KNOWN_LABEL_SETS[reader.label_set.name] is reader.label_set


def write_list(tree, name: str, text: str) -> Path:
    tree.text(name, text)
    return tree.root / name


def test_lists_of_three_columns(tree, column) -> None:
    tree.frames("data/00001", ["1.jpg", "2.jpg"])
    tree.frames("data/with blank/00002", ["1.jpg"])
    train = write_list(tree, "DFEW_set_1_train.txt", "data/00001 2 0\ndata/00001 2 1\n")
    test = write_list(
        tree, "DFEW_set_1_test.txt", "data/with blank/00002 37 6\ndata/gone 5 3\nnonsense\n"
    )
    report = ingest_lists([train, test], tree.root, label_set=DFEW7)
    assert column(report, "label") == {"data/00001": "happiness", "data/with blank/00002": "fear"}
    assert column(report, "split") == {"data/00001": "train", "data/with blank/00002": "test"}
    assert sorted(
        (entry.path.rpartition("/")[2], entry.reason) for entry in report.quarantined
    ) == [
        *[("00001", "duplicate_clip_id"), ("DFEW_set_1_test.txt", "bad_row")],
        ("gone", "missing_file"),
    ]


def test_lists_are_known_by_their_lines(tree) -> None:
    assert is_list(str(write_list(tree, "a.txt", "x/1 16 0\nx y/2 16 3\n")))
    assert is_list(str(write_list(tree, "a.txt", "x/1 16 happiness\n")))
    assert not is_list(str(write_list(tree, "a.txt", "path,label\na.mp4,joy\n")))
    assert not is_list(str(write_list(tree, "a.txt", "path label frames\na.mp4 joy 5\n")))
    assert not is_list(str(write_list(tree, "a.txt", "")))


def test_numbers_in_lists_need_their_classes(tree) -> None:
    tree.frames("a", ["1.jpg"])
    path = write_list(tree, "list.txt", "a 1 2\n")
    with pytest.raises(ManifestError, match="say what they stand for"):
        ingest_lists([path])
    with pytest.raises(ManifestError, match="line 1: class 2, but two has 2 classes"):
        ingest_lists([path], label_set=LabelSet(name="two", classes=("x", "y")))
    report = ingest_lists([path], label_set=LabelSet(name="three", classes=("x", "y", "z")))
    assert report.manifest.column("label") == ["z"]


def test_paths_of_another_machine_are_recognised(tree) -> None:
    path = write_list(tree, "train.txt", "/their/disk/DFEW/00001 16 1\n")
    with pytest.raises(ManifestError, match="paths of another machine"):
        ingest_lists([path], tree.root, label_set=DFEW7)
