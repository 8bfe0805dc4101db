"""``mien explain`` as its user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.infer.package import PackageInfo, save_package
from mien_jobs import overrides
from mien_jobs.cli import main
from mien_jobs.methods import METHODS, make_recipe
from mien_jobs.training import with_data

CLASSES = ("happiness", "sadness", "anger")


SMALL = {
    "dtm": ["config.image_size_px=32", "config.border_px=4", "config.num_frames=2"],
    "mma_dfer": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.num_frames=3",
        "config.encoder.dim=24",
        "config.encoder.depth=2",
        "config.encoder.num_heads=2",
        "config.fusion.width=8",
        "config.fusion.gate_start=0.5",
        "config.autoencoder=none",
    ],
}


def make_package(name: str, manifest: Path, folder: Path) -> Path:
    """A network that nobody trained: its maps mean nothing, and are there."""
    recipe = with_data(make_recipe(name, "tiny"), str(manifest), "x")
    recipe = overrides.apply_overrides(recipe, SMALL[name])
    torch.manual_seed(0)
    method = METHODS[name].method(recipe.config, CLASSES)
    method.begin_stage(0)
    resolved = json.loads(overrides.to_json(recipe))
    info = PackageInfo(
        method=name,
        config=resolved["config"],
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
        recipe=resolved,
    )
    save_package(folder, info, method.state_dict())
    return folder


@pytest.fixture(scope="module")
def package(synth_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method that says nothing of its own weighing."""
    return make_package("dtm", synth_manifest, tmp_path_factory.mktemp("explain") / "package")


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
    assert -1 < checks["road_gain"] < 1
    assert (out / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert "2 clips explained" in capsys.readouterr().out


def test_a_network_that_attends_shows_it(synth_manifest: Path, tmp_path: Path) -> None:
    film = next(iter(Manifest.read(str(synth_manifest)))).uri
    package, out = make_package("mma_dfer", synth_manifest, tmp_path / "package"), tmp_path / "out"
    assert main(["explain", str(package), film, "--films", "--out", str(out)]) == 0
    (row,) = csv.DictReader((out / "clips.csv").read_text().splitlines())
    assert 0 <= float(row["key_times_s"]) < 0.6
    assert float(row["exchange_00_video"]) > 0
    assert (out / "attention.png").read_bytes().startswith(b"\x89PNG")
    with av.open(str(out / "films" / "001.mp4")) as container:
        shown = [(frame.time, frame.width, frame.height) for frame in container.decode(video=0)]
    assert [size for _, *size in shown] == [[448, 512]] * 4
    times = [time for time, *_ in shown]
    assert times == sorted(times)
    assert times[-1] - times[-2] == pytest.approx(0.5, abs=1e-3)


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
