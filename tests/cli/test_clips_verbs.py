"""``mien clips`` and ``mien forget`` as a user types them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mien.clips.manifest import Manifest
from mien_jobs import cli

Capture = pytest.CaptureFixture[str]


def rows_of(manifest: Manifest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = manifest.table.to_pylist(maps_as_pydicts="lossy")
    return [row | {"uri": manifest.ref(n).uri} for n, row in enumerate(rows)]


@pytest.fixture
def folder(synth_manifest: Path, tmp_path: Path) -> Path:
    """Six clips of two people, copied, with a manifest."""
    source = Manifest.read(str(synth_manifest))
    rows = [row for row in rows_of(source) if row["subject_id"] in source.subjects[:2]]
    for row in rows:
        place = tmp_path / "data" / f"{row['clip_id']}.mp4"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(row["uri"], place)
        row |= {"uri": str(place), "licence": "CC0-1.0"}
    data = str(tmp_path / "data")
    Manifest.from_rows(rows, base=data).write(f"{data}/manifest.parquet")
    return tmp_path / "data"


def test_show_lists_filters_and_says_how_many(folder: Path, capsys: Capture) -> None:
    assert cli.main(["clips", "show", str(folder), "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:3] == ["clip_id", "subject_id", "label"]
    assert "2 of 6 clips shown\n" in text

    where = ["--where", "label=anger", "--where", "consent=yes", "--where", "fold="]
    columns = ["--columns", "clip_id,licence"]
    assert cli.main(["clips", "show", str(folder), *where, *columns]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["clip_id", "licence"]
    assert [line.split()[1] for line in lines[2:4]] == ["CC0-1.0"] * 2
    assert lines[-1] == "2 of 6 clips shown, 2 match"


def test_show_one_clip_in_full(folder: Path, capsys: Capture) -> None:
    clip = Manifest.read(str(folder)).column("clip_id")[0]
    assert cli.main(["clips", "show", str(folder), clip]) == 0
    text = capsys.readouterr().out
    assert "AU12 " in text
    assert "64 x 64 px, 15 frames, 25 frames/s, 0.600 s" in text
    assert cli.main(["clips", "show", str(folder), clip[:-1]]) == 2
    assert f"Did you mean '{clip[:-1]}" in capsys.readouterr().err


def test_show_opens_no_file_without_consent(tmp_path: Path, capsys: Capture) -> None:
    row = {"clip_id": "[b]", "uri": "nowhere.mp4", "consent": False}
    Manifest.from_rows([row], base=str(tmp_path)).write(str(tmp_path / "manifest.parquet"))
    assert cli.main(["clips", "show", str(tmp_path), "[b]"]) == 0
    assert "not opened, there is no consent" in capsys.readouterr().out
    # Not taken for markup.
    assert cli.main(["clips", "show", str(tmp_path)]) == 0
    assert "[b]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["show", "--where", "lable=anger"], "no column 'lable'. Did you mean 'label'?"),
        (["show", "--where", "label"], "--where label: expected COLUMN=VALUE"),
        (["show", "--columns", "clip"], "no column 'clip'"),
        (["show", "--limit", "0"], "--limit 0"),
        (["check", "--workers", "0"], "--workers 0"),
        (["check", "--out", "report"], "--out report: the report's name ends in .csv"),
        (["contact-sheet", "--out", "x.jpg"], "--out x.jpg: the picture's name ends in .png"),
        (["contact-sheet", "--per-group", "0"], "--per-group 0"),
    ],
)
def test_bad_options_are_a_line(
    options: list[str], words: str, folder: Path, capsys: Capture
) -> None:
    assert cli.main(["clips", options[0], str(folder), *options[1:]]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1


def test_stats_prints_counts_and_warnings(folder: Path, capsys: Capture) -> None:
    assert cli.main(["clips", "stats", str(folder)]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["anger"] == ["2", "(2)"]
    assert "100% of pairs have a clip" in text
    assert "consent         6 of 6 clips" in text
    assert "licence         CC0-1.0 (6)" in text
    assert "warning: classes with fewer than 10 clips: anger (2)" in text


def test_check_finds_and_writes_and_exits_with_1(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["clips", "check", str(folder), "--workers", "1"]) == 0
    assert "6 clips opened, nothing wrong" in capsys.readouterr().out

    rows = rows_of(Manifest.read(str(folder)))
    rows.append(rows[0] | {"clip_id": "twin"})
    rows.append(rows[0] | {"clip_id": "secret", "uri": "/no/such/file.mp4", "consent": False})
    Manifest.from_rows(rows).write(str(folder / "manifest.parquet"))
    out = tmp_path / "report.csv"
    assert cli.main(["clips", "check", str(folder), "--workers", "1", "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "left out unread, of 8 clips: 1 without consent" in text
    assert "7 clips opened, something wrong with 2" in text
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {(row["clip_id"], row["kind"]) for row in found} == {
        ("twin", "duplicate"),
        (rows[0]["clip_id"], "duplicate"),
    }


def test_contact_sheet_is_written(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "faces.png"
    options = ["--out", str(out), "--by", "subject", "--per-group", "2", "--face-px", "48"]
    assert cli.main(["clips", "contact-sheet", str(folder), *options]) == 0
    assert f"wrote {out}: 4 clips in 2 rows" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.format == "PNG"


def forget(*arguments: str) -> int:
    return cli.main(["forget", *arguments])


def test_forget_from_the_first_look_to_the_receipt(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    manifest = Manifest.read(str(folder))
    who, other = manifest.subjects
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    assert forget(who, "--data", str(folder), "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"3 of 6 clips in {folder}/manifest.parquet" in text
    assert "not looked at: no cache (--cache), no runs (--runs), no MLflow (--tracking)" in text
    assert "nothing was changed" in text
    assert forget(who, "--data", str(folder), "--delete-media") == 2
    assert "would delete 3 source files for good; add --yes" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    assert forget(who, "--data", str(folder), "--delete-media", "--yes") == 0
    text = capsys.readouterr().out
    assert f"manifest {folder}/manifest.parquet: 3 of 6 rows removed" in text
    assert f"verified: 0 rows in manifest {folder}/manifest.parquet" in text
    assert Manifest.read(str(folder)).subjects == (other,)
    assert len(list(folder.glob("*.mp4"))) == 3
    (receipt,) = folder.glob("forgotten-*.json")
    assert f'"{who}' not in receipt.read_text()
    assert json.loads(receipt.read_text())["removed"]["media_files"] == 3

    assert forget(who, "--data", str(folder)) == 0
    assert f"{who} was forgotten, begun on" in capsys.readouterr().out


def test_forget_refuses_an_unknown_name_with_the_nearest(folder: Path, capsys: Capture) -> None:
    who = Manifest.read(str(folder)).subjects[0]
    assert forget(who + "x", "--data", str(folder)) == 2
    assert f"Nearest: {who}" in capsys.readouterr().err


def test_forget_checks_all_places_before_it_removes_anything(folder: Path, capsys: Capture) -> None:
    who = Manifest.read(str(folder)).subjects[0]
    before = (folder / "manifest.parquet").read_bytes()
    assert forget(who, "--data", str(folder), "--cache", str(folder / "no")) == 2
    assert forget(who, "--data", str(folder), "--runs", str(folder / "no")) == 2
    assert forget(who, "--data", str(folder), "--tracking", f"sqlite:///{folder}/no.db") == 2
    assert "there is no data base" in capsys.readouterr().err
    assert (folder / "manifest.parquet").read_bytes() == before
