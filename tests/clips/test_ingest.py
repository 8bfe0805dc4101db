"""Ingestion of folders and tables: real files, planted faults."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from mien.clips.ingest import IngestReport, ingest_csv, ingest_folders, quarantine_uri
from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError

LABELS = LabelSet(name="two", classes=("happiness", "sadness"))


@pytest.fixture
def videos(tmp_path: Path, make_video) -> Path:
    """Two classes, two people, good files only."""
    root = tmp_path / "videos"
    first = make_video(root / "happiness/anna_01.mp4")
    for name in ("happiness/ben_01.mp4", "sadness/anna_02.mp4", "sadness/deep/ben_02.MP4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, root / name)
    return root


def reasons(report: IngestReport) -> dict[str, str]:
    return {rejected.path: rejected.reason for rejected in report.quarantined}


def table_of(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_class_folders_give_labels_and_people(videos: Path) -> None:
    report = ingest_folders(videos, subject_regex="([a-z]+)_")
    assert report.quarantined == ()
    assert report.manifest.column("clip_id") == [
        "happiness/anna_01.mp4",
        "happiness/ben_01.mp4",
        "sadness/anna_02.mp4",
        "sadness/deep/ben_02.MP4",
    ]
    assert report.manifest.column("label") == ["happiness", "happiness", "sadness", "sadness"]
    assert report.manifest.subjects == ("anna", "ben")
    assert report.manifest.column("num_frames") == [5, 5, 5, 5]
    assert report.manifest.column("width") == [32] * 4
    assert report.manifest.ref(0).uri == str(videos / "happiness/anna_01.mp4")


def test_people_come_from_the_named_group_the_first_group_or_the_match(videos: Path) -> None:
    for regex in ("([0-9]*)(?P<subject>anna|ben)_", "(anna|ben)_", "anna|ben"):
        report = ingest_folders(videos, subject_regex=regex)
        assert report.manifest.subjects == ("anna", "ben")


def test_a_regex_that_misses_is_told(videos: Path) -> None:
    report = ingest_folders(videos, subject_regex="(anna)_")
    assert report.manifest.column("subject_id").count(None) == 2
    assert any("does not match 2 paths" in note for note in report.notes)
    with pytest.raises(ManifestError, match="matches no path"):
        ingest_folders(videos, subject_regex="(nobody)")
    with pytest.raises(ManifestError, match="not a regular expression"):
        ingest_folders(videos, subject_regex="(")


def test_bad_files_are_quarantined_with_their_reasons(videos: Path, make_video) -> None:
    happy = videos / "happiness"
    (happy / "zero.mp4").touch()
    (happy / "text.mp4").write_text("this is no video\n" * 100)
    whole = (happy / "anna_01.mp4").read_bytes()
    (happy / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (happy / "gone.mp4").symlink_to(happy / "nowhere.mp4")
    shutil.copy(happy / "anna_01.mp4", videos / "stray.mp4")
    (happy / "notes.txt").write_text("ignored")
    (happy / ".hidden.mp4").touch()
    report = ingest_folders(videos)
    found = reasons(report)
    assert found.pop("happiness/cut.mp4") in {"not_a_video", "truncated"}
    assert found == {
        "happiness/zero.mp4": "empty_file",
        "happiness/text.mp4": "not_a_video",
        "happiness/gone.mp4": "missing_file",
        "stray.mp4": "no_class_folder",
    }
    assert len(report.manifest) == 4
    assert "5 left out" in report.summary()
    assert "1 .txt" in report.summary()


def test_a_name_that_is_not_utf8_is_quarantined_readably(videos: Path) -> None:
    bad = os.fsencode(videos / "sadness") + b"/caf\xe9.mp4"
    shutil.copy(videos / "sadness/anna_02.mp4", bad)
    report = ingest_folders(videos)
    assert reasons(report) == {"sadness/caf\\xe9.mp4": "bad_file_name"}
    report.write(str(videos / "manifest.parquet"))
    listed = (videos / "manifest.quarantine.csv").read_text(encoding="utf-8")
    assert "caf\\xe9.mp4,bad_file_name" in listed


def test_names_in_any_script_are_kept(videos: Path) -> None:
    shutil.copy(videos / "sadness/anna_02.mp4", videos / "sadness/смех 笑 100%.mp4")
    report = ingest_folders(videos)
    assert "sadness/смех 笑 100%.mp4" in report.manifest.column("clip_id")


def test_classes_outside_of_the_label_set_are_quarantined_unopened(videos: Path) -> None:
    (videos / "hapiness").mkdir()
    (videos / "hapiness/x.mp4").touch()
    report = ingest_folders(videos, label_set=LABELS)
    [rejected] = report.quarantined
    assert rejected.reason == "unknown_label"
    assert "happiness" in rejected.message
    assert len(report.manifest) == 4


def test_folders_of_frames_are_clips(videos: Path) -> None:
    folder = videos / "sadness/carl/0001"
    folder.mkdir(parents=True)
    for index in range(3):
        picture = np.full((24, 16, 3), index, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{index}.png")
    Image.new("RGB", (8, 8)).save(videos / "sadness/thumbnail.jpg")
    report = ingest_folders(videos)
    [clip] = report.manifest.filter(lambda ref: "carl" in ref.clip_id)
    assert (clip.clip_id, clip.label, clip.num_frames) == ("sadness/carl/0001", "sadness", 3)
    assert any("1 .jpg" in note for note in report.notes)


def test_links_are_followed_once(videos: Path) -> None:
    (videos / "sadness/loop").symlink_to(videos / "sadness")
    report = ingest_folders(videos)
    assert len(set(report.manifest.column("clip_id"))) == len(report.manifest)
    assert len(report.manifest) <= 6


@pytest.mark.parametrize("root", ["nowhere", "."])
def test_a_folder_without_clips_is_an_error(tmp_path: Path, root: str) -> None:
    with pytest.raises(ManifestError, match="FOLDER/CLASS"):
        ingest_folders(tmp_path / root)


def test_a_bucket_is_read_as_a_folder_is(videos: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(videos) + "/", "/ingest-bucket/videos", recursive=True)
    try:
        report = ingest_folders("memory://ingest-bucket/videos", subject_regex="([a-z]+)_")
        local = ingest_folders(videos, subject_regex="([a-z]+)_")
        assert report.manifest.content_hash() == local.manifest.content_hash()
        assert report.manifest.ref(0).uri.startswith("memory://")
        report.write("memory://ingest-bucket/videos/manifest.parquet")
        assert len(Manifest.read("memory://ingest-bucket/videos")) == 4
    finally:
        fs.rm("/ingest-bucket", recursive=True)


def test_the_quarantine_list_lies_beside_the_manifest(videos: Path) -> None:
    (videos / "sadness/zero.mp4").touch()
    target = videos / "manifest.parquet"
    written = ingest_folders(videos).write(str(target))
    assert list(written) == list(Manifest.read(str(target)))
    with open(quarantine_uri(str(target)), newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["path"], row["reason"]) == ("sadness/zero.mp4", "empty_file")
    (videos / "sadness/zero.mp4").unlink()
    ingest_folders(videos).write(str(target))
    listed = Path(quarantine_uri(str(target))).read_text(encoding="utf-8")
    assert listed == "path,reason,message\n"


def test_progress_counts_files(videos: Path) -> None:
    seen: list[tuple[int, int]] = []
    ingest_folders(videos, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_read_whatever_its_delimiter(videos: Path, delimiter: str) -> None:
    text = (
        "\ufeffPath,Emotion,speaker,fold,split,age,code,score,remark\r\n"
        "happiness/anna_01.mp4,happiness,anna,1,train,31,007,0.5,fine\r\n"
        "\r\n"
        "sadness/anna_02.mp4,,,2,Validation,,008,2,\r\n"
    ).replace(",", delimiter)
    report = ingest_csv(table_of(videos, text))
    assert report.quarantined == ()
    manifest = report.manifest
    assert manifest.column("label") == ["happiness", None]
    assert manifest.column("subject_id") == ["anna", None]
    assert manifest.column("fold") == [1, 2]
    assert manifest.column("split") == ["train", "val"]
    assert manifest.column("age") == [31, None]
    assert manifest.column("code") == ["007", "008"]
    assert manifest.column("score") == [0.5, 2.0]
    assert manifest.column("remark") == ["fine", None]
    assert manifest.ref(1).uri == str(videos / "sadness/anna_02.mp4")


def test_quotes_may_hold_delimiters(videos: Path) -> None:
    shutil.move(videos / "happiness/ben_01.mp4", videos / "happiness/b,en.mp4")
    text = 'path,soft_label\n"happiness/b,en.mp4","{""happiness"": 0.75, ""sadness"": 0.25}"\n'
    [clip] = ingest_csv(table_of(videos, text), label_set=LABELS).manifest
    assert clip.uri.endswith("/happiness/b,en.mp4")
    assert clip.soft_label == {"happiness": 0.75, "sadness": 0.25}


def test_parts_of_one_file_are_clips_of_their_own(videos: Path) -> None:
    text = (
        "path,start_s,end_s\n"
        "sadness/anna_02.mp4,0,0.08\n"
        "sadness/anna_02.mp4,0.08,\n"
        "sadness/anna_02.mp4,9,10\n"
        "sadness/anna_02.mp4,,\n"
    )
    report = ingest_csv(table_of(videos, text))
    assert report.manifest.column("clip_id") == [
        "sadness/anna_02.mp4#0.0-0.08",
        "sadness/anna_02.mp4#0.08-end",
        "sadness/anna_02.mp4",
    ]
    assert report.manifest.column("num_frames") == [None, None, 5]
    assert [rejected.reason for rejected in report.quarantined] == ["outside_file"]


def test_bad_rows_are_quarantined_with_line_and_reason(videos: Path) -> None:
    text = (
        "path,label,start_s,end_s,split,consent\n"
        "a.mp4,joy,abc,,train,yes\n"
        "b.mp4,joy,2,1,train,yes\n"
        "c.mp4,joy,,,exam,yes\n"
        "d.mp4,joy\n"
        ",joy,,,train,yes\n"
        "missing.mp4,happiness,,,train,yes\n"
        "happiness/anna_01.mp4,happiness,,,train,yes\n"
        "happiness/anna_01.mp4,sadness,,,train,yes\n"
        "e.mp4,joy,,,train,yes\n"
        "f.mp4,joy,,,train,perhaps\n"
        "g.mp4,joy,inf,,train,yes\n"
    )
    report = ingest_csv(table_of(videos, text), label_set=LABELS)
    assert reasons(report) == {
        "a.mp4": "bad_value",
        "b.mp4": "bad_value",
        "c.mp4": "bad_value",
        "d.mp4": "bad_row",
        "": "bad_row",
        "missing.mp4": "missing_file",
        "happiness/anna_01.mp4": "duplicate_clip_id",
        "e.mp4": "unknown_label",
        "f.mp4": "bad_value",
        "g.mp4": "bad_value",
    }
    assert report.manifest.column("label") == ["happiness"]
    messages = {rejected.path: rejected.message for rejected in report.quarantined}
    assert "line 2" in messages["a.mp4"]
    assert "line 8" in messages["happiness/anna_01.mp4"]


def test_files_without_consent_are_never_opened(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    from mien.clips import ingest

    real = ingest.probe_clip
    monkeypatch.setattr(ingest, "probe_clip", lambda uri: (opened.append(uri), real(uri))[1])
    text = (
        "path,consent\nhappiness/anna_01.mp4,yes\nhappiness/ben_01.mp4,no\nsadness/anna_02.mp4,\n"
    )
    report = ingest_csv(table_of(videos, text))
    assert opened == [str(videos / "happiness/anna_01.mp4")]
    assert set(reasons(report).values()) == {"no_consent"}
    assert len(report.quarantined) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("path,label\n", "no rows"),
        ("name,label\na,b\n", "no column path"),
        ("path,file\na,b\n", "path, file all mean uri"),
        ("path,,label\na,b,c\n", "column 2 has no name"),
        ('path,label\n"a,b\n', "line"),
    ],
)
def test_a_table_that_is_none_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        ingest_csv(table_of(tmp_path, text))


def test_the_encoding_of_a_table_can_be_named(videos: Path) -> None:
    path = videos / "labels.csv"
    path.write_bytes("path,remark\nhappiness/anna_01.mp4,高兴\n".encode("gb18030"))
    with pytest.raises(ManifestError, match="encoding="):
        ingest_csv(path)
    assert ingest_csv(path, encoding="gb18030").manifest.column("remark") == ["高兴"]


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"there is no .*labels\.csv"):
        ingest_csv(tmp_path / "labels.csv")
