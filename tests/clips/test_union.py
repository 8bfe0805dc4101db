"""Several manifests as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError
from mien.clips.union import united
from mien_jobs.cli import main


def written(folder: Path, *rows: dict[str, Any]) -> Manifest:
    folder.mkdir()
    return Manifest.from_rows([{"uri": f"{row['clip_id']}.mp4", **row} for row in rows]).write(
        str(folder / "manifest.parquet")
    )


@pytest.fixture
def basic(tmp_path: Path) -> Manifest:
    rows = [{"clip_id": f"c{i}", "subject_id": "s1", "label": "anger", "fold": 1} for i in range(2)]
    return written(tmp_path / "basic", *rows, {"clip_id": "c9", "source": "film", "split": "test"})


@pytest.fixture
def compound(tmp_path: Path) -> Manifest:
    row = {"clip_id": "c0", "subject_id": "s1", "label": "sadly angry", "consent": False, "age": 30}
    return written(tmp_path / "more", row, {"clip_id": "x", "licence": "CC0-1.0", "age": 4})


def test_names_go_in_front_so_that_nobody_is_taken_for_another(
    basic: Manifest, compound: Manifest, tmp_path: Path
) -> None:
    merged = united({"a": basic, "b": compound}, same_people=False)
    assert merged.column("clip_id") == ["a:c0", "a:c1", "a:c9", "b:c0", "b:x"]
    assert merged.column("subject_id") == ["a:s1", "a:s1", None, "b:s1", None]
    assert merged.column("source") == [None, None, "a:film", None, None]
    assert merged.column("dataset") == ["a", "a", "a", "b", "b"]
    assert merged.column("consent") == [True, True, True, False, False]
    assert merged.column("fold") == [1, 1, None, None, None]
    assert merged.column("age") == [None, None, None, 30, 4]
    # Uris lead to where the clips lie, from wherever the new manifest is.
    read = Manifest.read(
        str(merged.write(str(tmp_path / "m" / "all.parquet")).base) + "/all.parquet"
    )
    assert [ref.uri for ref in read][2:4] == [
        str(tmp_path / "basic" / "c9.mp4"),
        str(tmp_path / "more" / "c0.mp4"),
    ]
    assert [ref.uri for ref in merged] == [ref.uri for ref in read]


def test_equal_names_may_mean_the_same_people(basic: Manifest, compound: Manifest) -> None:
    with pytest.raises(ManifestError, match="1 clip ids are in more than one of a, b: c0; leave"):
        united({"a": basic, "b": compound}, same_people=True)
    other = compound.by_ids(["x"])
    merged = united({"a": basic, "b": other}, same_people=True)
    assert merged.column("clip_id") == ["c0", "c1", "c9", "x"]
    assert merged.subjects == ("s1",)


def test_what_cannot_be_united_is_refused(basic: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="takes two or more"):
        united({"a": basic}, same_people=False)
    worded = written(tmp_path / "worded", {"clip_id": "w", "age": "old"})
    counted = written(tmp_path / "counted", {"clip_id": "w", "age": 3})
    with pytest.raises(ManifestError, match=r"a, b have a column of different types: .*age"):
        united({"a": worded, "b": counted}, same_people=False)


def test_the_verb_names_manifests_by_their_folders(
    basic: Manifest, compound: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.parquet"
    places = [str(basic.base), f"compound={compound.base}/manifest.parquet"]
    assert main(["clips", "merge", *places, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "compound: 2 clips, 1 people, 1 classes, 1 unlabelled" in said
    assert "5 clips, classes anger, sadly angry" in said
    assert set(Manifest.read(str(out)).column("dataset")) == {"basic", "compound"}
    assert main(["clips", "merge", places[0], places[0], "--out", str(out)]) == 2
    assert "two manifests are called 'basic'" in capsys.readouterr().err
