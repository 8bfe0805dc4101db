"""``mien ingest`` on real files: a folder per class, and a table."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from mien.clips.manifest import Manifest
from mien_jobs import cli
from mien_jobs.verbs.ingest import parse_labels

Capture = pytest.CaptureFixture[str]


def write_video(path: Path, num_frames: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(num_frames):
            picture = np.full((32, 32, 3), 20 * index, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people in two classes, a text with the name of a video, and an empty file."""
    root = tmp_path / "own videos"
    for name in ("anger/anna_1.mp4", "fear/anna_2.mp4", "fear/bob_1.mp4"):
        write_video(root / name)
    (root / "fear" / "bob_2.mp4").write_text("no video")
    (root / "fear" / "bob_3.mp4").write_bytes(b"")
    return root


def test_folder_becomes_a_manifest_and_a_list_of_what_was_left_out(
    folder: Path, capsys: Capture
) -> None:
    assert cli.main(["ingest", str(folder), "--subject-regex", "([a-z]+)_"]) == 0
    out = capsys.readouterr().out
    manifest = Manifest.read(str(folder / "manifest.parquet"))
    rows = {(ref.label, ref.subject_id, ref.num_frames) for ref in manifest}
    assert rows == {("anger", "anna", 5), ("fear", "anna", 5), ("fear", "bob", 5)}
    with (folder / "manifest.quarantine.csv").open(newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {"fear/bob_2.mp4": "not_a_video", "fear/bob_3.mp4": "empty_file"}
    assert "3 clips of 2 people: anger 1, fear 2" in out
    assert "left out fear/bob_3.mp4: empty_file" in out
    assert f"--data '{folder / 'manifest.parquet'}'" in out


def test_manifest_that_is_there_is_not_replaced_unasked(folder: Path, capsys: Capture) -> None:
    target = folder / "manifest.parquet"
    target.write_bytes(b"precious")
    assert cli.main(["ingest", str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert cli.main(["ingest", str(folder), "--overwrite"]) == 0
    assert len(Manifest.read(str(target))) == 3


def test_nothing_kept_is_exit_code_1_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "m.parquet"
    assert cli.main(["ingest", str(folder), "--labels", "joy,sorrow", "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "5 unknown_label" in printed
    assert printed.splitlines()[-1] == "no clip can be used; nothing was written"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_table_becomes_a_manifest(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(
        "path;label;subject;start_s;end_s;split\n"
        "anger/anna_1.mp4;anger;anna;0;0.1;train\n"
        "fear/bob_1.mp4;fear;bob;;;test\n"
        "fear/none.mp4;fear;bob;;;test\n",
        encoding="utf-16",
    )
    line = ["ingest", str(table), "--root", str(folder), "--encoding", "utf-16"]
    assert cli.main([*line, "--labels", "dfew7"]) == 0
    refs = list(Manifest.read(str(tmp_path / "manifest.parquet")))
    assert [(ref.subject_id, ref.end_s, ref.split) for ref in refs] == [
        ("anna", 0.1, "train"),
        ("bob", None, "test"),
    ]
    assert Path(refs[1].uri) == folder / "fear" / "bob_1.mp4"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no/folder"], "there is no folder"),
        (["no/table.csv"], "there is no"),
        (["FOLDER", "--root", "x"], "--root is for tables, lists"),
        (["FOLDER", "--subject-regex", "("], "not a regular expression"),
        (["FOLDER", "--subject-regex", "zzz"], "matches no path"),
        (["FOLDER", "--labels", "dfew"], "did you mean dfew7?"),
        (["FOLDER", "--threads", "0"], "--threads 0"),
        (["FOLDER", "--out", "m.csv"], "ends in .parquet"),
        (["clips.csv", "--subject-regex", "x"], "--subject-regex is for folders"),
    ],
)
def test_wrong_use_is_one_line(
    options: list[str], words: str, folder: Path, capsys: Capture
) -> None:
    line = [str(folder) if word == "FOLDER" else word for word in options]
    assert cli.main(["ingest", *line]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


def test_labels_are_a_known_set_or_a_list() -> None:
    assert parse_labels("dfew7").classes[0] == "happiness"
    assert parse_labels("a, b").classes == ("a", "b")
