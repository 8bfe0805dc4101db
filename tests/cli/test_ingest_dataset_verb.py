"""``mien ingest NAME --root FOLDER``, and lists of three columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mien.clips.manifest import Manifest
from mien.clips.readers.registry import READERS
from mien_jobs import cli

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def rafdb(tmp_path: Path) -> Path:
    """Two of three listed pictures."""
    root = tmp_path / "RAF-DB"
    (root / "basic/EmoLabel").mkdir(parents=True)
    lines = "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7\n"
    (root / "basic/EmoLabel/list_patition_label.txt").write_text(lines)
    (root / "basic/Image/aligned").mkdir(parents=True)
    for name in ("train_00001", "test_0001"):
        Image.new("RGB", (8, 8)).save(root / f"basic/Image/aligned/{name}_aligned.jpg")
    return root


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A train and a test list beside two folders of frames."""
    for clip in ("a", "b"):
        (tmp_path / clip).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / clip / "0.jpg")
    (tmp_path / "train.txt").write_text("a 1 0\n")
    (tmp_path / "test.txt").write_text("b 1 1\n")
    return tmp_path


def test_a_data_set_goes_by_its_name(rafdb: Path, capsys: Capture) -> None:
    assert cli.main(["ingest", "rafdb", "--root", str(rafdb)]) == 0
    out = capsys.readouterr().out
    manifest = Manifest.read(str(rafdb / "rafdb.parquet"))
    assert manifest.column("label") == ["sadness", "neutral"]
    assert set(manifest.column("dataset")) == {"rafdb"}
    assert "train: 1 of the published 12,271 pictures (12,270 fewer); 1 left out, first" in out
    assert "left out basic/Image/aligned/train_00002_aligned.jpg: missing_file" in out
    assert (rafdb / "rafdb.quarantine.csv").read_text().count("\n") == 2
    # Pictures are no clips for a method on videos.
    assert "train on it" not in out


def test_files_need_not_be_opened(rafdb: Path, tmp_path: Path) -> None:
    (rafdb / "basic/Image/aligned/test_0001_aligned.jpg").write_text("damaged")
    line = ["ingest", "rafdb", "--root", str(rafdb), "--out"]
    assert cli.main([*line, str(tmp_path / "a.parquet"), "--no-probe"]) == 0
    assert cli.main([*line, str(tmp_path / "b.parquet")]) == 0
    assert len(Manifest.read(str(tmp_path / "a.parquet"))) == 2
    assert len(Manifest.read(str(tmp_path / "b.parquet"))) == 1


def test_every_data_set_is_listed_and_in_the_help(capsys: Capture) -> None:
    assert cli.main(["ingest", "--list"]) == 0
    listing = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["ingest", "--help"])
    text = capsys.readouterr().out
    for name, reader in READERS.items():
        assert f"  {name:<15}{reader.summary}" in listing
        assert f"  {name:<15}{reader.summary}" in text


def test_lists_are_told_from_tables(listed: Path, capsys: Capture) -> None:
    lists = [str(listed / "train.txt"), str(listed / "test.txt")]
    assert cli.main(["ingest", *lists, "--labels", "joy,fear"]) == 0
    manifest = Manifest.read(str(listed / "manifest.parquet"))
    assert manifest.column("label") == ["joy", "fear"]
    assert manifest.column("split") == ["train", "test"]
    (listed / "table.txt").write_text("path\tlabel\na\tjoy\n")
    table = str(listed / "table.txt")
    assert cli.main(["ingest", table, "--overwrite"]) == 0
    assert cli.main(["ingest", table, lists[0]]) == 2
    assert "only lists (.txt) may be several" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name a folder, a table or a published data set"),
        (["rafdb"], "needs --root FOLDER"),
        (["rafdb", "other", "--root", "."], "needs --root FOLDER"),
        (["rafdb", "--root", "nowhere"], "there is no folder"),
        (["rafdb", "--root", "."], "no list of pictures below"),
        (["rafdb", "--root", ".", "--subject-regex", "x"], "--subject-regex is for folders"),
        (["rafdb", "--root", ".", "--encoding", "gbk"], "--encoding is for tables"),
        (["rafdb", "--root", ".", "--window", "2"], "rafdb has no labels of each frame"),
        (["rafdbb"], "did you mean the published data set rafdb"),
        (["rafdbb", "--root", "."], "did you mean the data set rafdb?"),
        (["LISTED/train.txt"], "say what they stand for"),
        (["LISTED/train.txt", "--window", "2"], "--window is for published data sets"),
        (["LISTED", "--no-probe"], "--no-probe is for published data sets"),
    ],
)
def test_wrong_use_is_one_line(
    options: list[str], words: str, listed: Path, capsys: Capture
) -> None:
    line = [word.replace("LISTED", str(listed)) for word in options]
    assert cli.main(["ingest", *line]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1
