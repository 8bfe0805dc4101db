"""``mien predict`` as a user types it, with a real package."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.infer.package import PackageInfo, save_package, set_temperatures
from mien.infer.rows import PROBABILITIES_KEY
from mien_jobs import overrides
from mien_jobs.cli import main
from mien_models.mma_dfer import MmaDfer, MmaDferConfig

CLASSES = ("joy", "grief")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audio-visual network with random weights."""
    config = dataclasses.replace(MmaDferConfig.tiny(), autoencoder=None)
    torch.manual_seed(0)
    method = MmaDfer(config, CLASSES)
    method.begin_stage(0)
    info = PackageInfo(
        method="mma_dfer",
        config=json.loads(overrides.to_json(config)),
        label_set=LabelSet(name="two", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
    )
    return save_package(tmp_path_factory.mktemp("model") / "package", info, method.state_dict())


@pytest.fixture
def clip(synth_manifest: Path) -> Path:
    return sorted(synth_manifest.parent.rglob("*.mp4"))[0]


def test_one_film(
    clip: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / name for name in ("f.parquet", "o.mp4", "t.png")}
    wishes = ["--rows", "frames", "--effects", "--out", str(files["f.parquet"])]
    pictures = ["--overlay", str(files["o.mp4"]), "--timeline", str(files["t.png"])]
    assert main(["predict", str(clip), "--model", str(package), *wishes, *pictures]) == 0
    told = capsys.readouterr().out
    assert "mma_dfer, classes joy, grief, on cpu" in told
    assert "sound adds" in told
    table = pq.read_table(files["f.parquet"])
    assert set(table["label"].to_pylist()) <= set(CLASSES)
    for path in files.values():
        assert path.stat().st_size > 1000
        assert f"wrote {path}" in told


def test_folder_exit_codes_and_messages(
    clip: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copy(clip, films / "good.mp4")
    command = ["predict", "--input", str(films), "--model", str(package), "--workers", "0"]
    command += ["--out", str(tmp_path / "out"), "--format", "csv"]
    assert main(command) == 0
    (films / "text.mp4").write_text("hello")
    capsys.readouterr()
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "1 of 2 inputs done, 1 failed (1 not_a_video)" in told
    assert "text.mp4: (not_a_video)" in told
    assert len(list((tmp_path / "out" / "windows").glob("*.csv"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to predict: name a film or a folder"),
        (["none.mp4"], "there is no"),
        (["."], "holds no film: it is empty"),
        (["a.mp4", "b.mp4", "--out", "t.csv"], "2 inputs don't fit into one file"),
        (["a.mp4", "--step", "5", "--window", "2"], "frames between would be left out"),
        (["a.mp4", "--people", "0"], "--people 0: expected 1 or more"),
        (["a.mp4", "--post-filter", "4", "--timeline", "t.png"], "expected an odd number"),
        (["a.mp4", "--post-filter", "5", "--out", "t.csv"], "nothing shows frames here: add"),
        (["a.mp4", "--timeline", "t.jpg"], "t.jpg: expected a name that ends in .png"),
        (["a.mp4", "--overlay", "o.gif"], r"o.gif: expected a name that ends in .mp4"),
    ],
)
def test_what_is_typed_wrong(
    arguments: list[str],
    message: str,
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *arguments, "--model", str(package)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(
    synth_manifest: Path, package: Path, tmp_path: Path
) -> None:
    clips = sorted(synth_manifest.parent.rglob("*.mp4"))[:12]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mien_jobs.cli", "predict", *map(str, clips)]
    command += ["--model", str(package), "--out", str(out), "--workers", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    records = out / "records"
    deadline = time.monotonic() + 200
    while len(list(records.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    before = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert 3 <= len(before) < len(clips)
    assert not (out / "inputs.csv").exists()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode == 0
    after = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert len(after) == len(clips)
    assert {name: after[name] for name in before} == before  # seconds included: not done again
    rows = pq.read_table(out / "frames", columns=["input", "frame"]).to_pylist()
    assert len({(row["input"], row["frame"]) for row in rows}) == len(rows)
    assert {row["input"] for row in rows} == set(map(str, clips))


def test_calibrated_probabilities_are_asked_for_and_named(
    clip: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = shutil.copytree(package, tmp_path / "fitted")
    set_temperatures(fitted, {"video+audio": 0.25, "video": 9.0})
    tables = {}
    for name, options in (("raw", []), ("calibrated", ["--calibrated"])):
        out = tmp_path / f"{name}.parquet"
        assert (
            main(["predict", str(clip), "--model", str(fitted), "--out", str(out), *options]) == 0
        )
        assert f"{name} probabilities" in capsys.readouterr().out
        tables[name] = pq.read_table(out)
        assert tables[name].schema.metadata[PROBABILITIES_KEY].decode().startswith(f"{name}: ")
    raw, calibrated = (
        np.array([[row[f"p_{name}"] for name in CLASSES] for row in tables[kind].to_pylist()])
        for kind in ("raw", "calibrated")
    )
    by_hand = raw**4 / (raw**4).sum(axis=1, keepdims=True)  # the clip has sound: T = 1/4
    np.testing.assert_allclose(calibrated, by_hand, rtol=1e-9)
    assert tables["raw"]["label"].equals(tables["calibrated"]["label"])
    assert np.abs(calibrated - raw).max() > 1e-3

    assert main(["predict", str(clip), "--model", str(package), "--calibrated"]) == 2
    assert "this package has no temperature" in capsys.readouterr().err
