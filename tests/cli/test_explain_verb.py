"""``mien explain`` as its user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.infer.package import PackageInfo, save_package
from mien_jobs import overrides
from mien_jobs.cli import main
from mien_jobs.methods import make_recipe
from mien_jobs.training import with_data
from mien_models.dtm import Dtm

CLASSES = ("happiness", "sadness", "anger")


@pytest.fixture(scope="module")
def package(synth_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that nobody trained: its maps mean nothing, and are there."""
    small = ["config.image_size_px=32", "config.border_px=4", "config.num_frames=2"]
    recipe = with_data(make_recipe("dtm", "tiny"), str(synth_manifest), "x")
    recipe = overrides.apply_overrides(recipe, small)
    torch.manual_seed(0)
    method = Dtm(recipe.config, CLASSES)
    method.begin_stage(0)
    resolved = json.loads(overrides.to_json(recipe))
    info = PackageInfo(
        method="dtm",
        config=resolved["config"],
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
        recipe=resolved,
    )
    folder = tmp_path_factory.mktemp("explain") / "package"
    save_package(folder, info, method.state_dict())
    return folder


def test_films_are_explained(
    package: Path, synth_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [ref.uri for ref in list(Manifest.read(str(synth_manifest)))[:2]]
    out = tmp_path / "out"
    assert main(["explain", str(package), *films, "--class", "anger", "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "clips.csv").read_text().splitlines()))
    assert [row["clip_id"] for row in rows] == films
    for row in rows:
        assert row["explained"] == "anger"
        assert 0 < float(row["probability"]) < 1
        assert float(row["area_of_nose"]) == pytest.approx(0.0747, abs=0.02)
    checks = json.loads((out / "checks.json").read_text())
    assert -1 < checks["deletion_gain"] < 1
    assert (out / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert "2 clips explained" in capsys.readouterr().out


def test_what_cannot_be_explained_is_said(
    package: Path, synth_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = next(iter(Manifest.read(str(synth_manifest)))).uri
    out = ["--out", str(tmp_path / "out")]
    assert main(["explain", str(package), film, "--class", "angre", *out]) == 2
    assert "anger" in capsys.readouterr().err
    assert main(["explain", str(package), film, "--data", "m.parquet", *out]) == 2
    assert "not both" in capsys.readouterr().err
    assert main(["explain", str(package), film, "--clips", "0", *out]) == 2
    assert not (tmp_path / "out").exists()
