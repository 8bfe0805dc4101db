"""``mien monitor`` as typed, on tables as `mien predict` and `mien evaluate` write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.evaluate.predictions import make_predictions, write_predictions
from mien.infer.package import PackageInfo, load_package, save_package
from mien.infer.rows import Columns, WindowRow, table_writer
from mien.monitor.picture import picture_statistics
from mien.monitor.reading import read_sample
from mien.monitor.sample import (
    REFERENCE_FILE,
    Sample,
    SampleError,
    sample_of_predictions,
    thinned,
    write_sample,
)
from mien.track.mlflow_tracker import open_client
from mien.track.registry import register
from mien.track.tracker import TrackerSpec, embedded_uri
from mien_jobs.cli import main
from mien_models.contract import StreamSpec, plain_batch

CLASSES = ("joy", "grief")
LABELS = LabelSet(name="two", classes=CLASSES)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With predictions of 40 people, two clips each, as what it was accepted with."""
    info = PackageInfo(
        method="probe",
        config={},
        label_set=LABELS,
        prediction_stream=StreamSpec(),
        stages_begun=0,
    )
    folder = tmp_path_factory.mktemp("model") / "package"
    package = save_package(folder, info, {"weight": torch.tensor([1.0])})
    write_sample(str(package / REFERENCE_FILE), reference_sample(weights_of(package)))
    return package


def weights_of(package: Path) -> str:
    return load_package(package)[0].weights_sha256


def reference_sample(weights: str) -> Sample:
    rng = np.random.default_rng(0)
    ids = [f"clip-{index}" for index in range(80)]
    predictions = make_predictions(
        clip_ids=ids,
        logits_NK=rng.normal(size=(80, 2)),
        label_set=LABELS,
        true_N=[0] * 80,
        subject_ids=[f"anna-{index // 2}" for index in range(80)],
        has_audio_N=[True] * 80,
        face_share_N=[0.9] * 80,
        weights_sha256=weights,
    )
    features = dict(zip(ids, rng.normal(size=(80, 4)), strict=True))
    pictures = dict(zip(ids, rng.normal(0.5, 0.05, (80, 3)), strict=True))
    return sample_of_predictions(predictions, features=features, pictures=pictures)


def predict(
    folder: Path, weights: str, *, films: int = 40, joy: float = 0.0, seed: int = 1
) -> Path:
    """What `mien predict --features` leaves of films of two windows; ``joy`` shifts the labels."""
    rng = np.random.default_rng(1)
    columns = Columns(classes=CLASSES, with_features=True, weights_sha256=weights)
    for film in range(films):
        location = str(folder / "windows" / f"film-{film}.parquet")
        with table_writer(location, columns.window_schema) as write:
            for start in (0.0, 3.0):
                p_joy = float(1 / (1 + np.exp(rng.normal() * 2**0.5 - joy)))
                row = WindowRow(
                    start_s=start,
                    end_s=start + 3,
                    has_audio=True,
                    track=1,
                    probabilities=(p_joy, 1 - p_joy),
                    faces=0.9,
                    features=tuple(rng.normal(size=4)),
                    picture=tuple(rng.normal(0.5, 0.05, 3)),
                )
                write([columns.of_window(row, f"film-{film}.mp4")])
            nobody = WindowRow(start_s=6.0, end_s=7.0, has_audio=True, reason="no_face")
            write([columns.of_window(nobody, f"film-{film}.mp4")] if film == 0 else [])
    return folder


def test_quiet_and_loud_in_mlflow(
    package: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = embedded_uri(tmp_path / "runs")
    (tmp_path / "runs").mkdir()
    run = TrackerSpec(uri=uri, run_key="training").open()
    register(uri, run.run_id, package, name="faces")
    weights = weights_of(package)
    command = ["monitor", "--model", "models:/faces@champion"]
    assert main([*command, str(predict(tmp_path / "same", weights))]) == 0
    told = capsys.readouterr().out
    assert "Quiet: nothing moved further" in told
    assert "81 clips or windows of 40 films or people against the reference's 80" in told
    assert "MLflow run: " in told
    assert main([*command, str(predict(tmp_path / "joyful", weights, joy=3.0))]) == 3
    told = capsys.readouterr().out
    assert "A person should look: class_mix (joy" in told
    facts = json.loads((tmp_path / "monitor" / "monitor.json").read_text())
    assert facts["look"] is True
    assert facts["weights_sha256"] == weights
    assert (tmp_path / "monitor" / "monitor.html").read_text().count("data:image/png") == 3
    client = open_client(uri)
    experiment = client.get_experiment_by_name("monitoring")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["mien.monitor"] for run in runs) == ["look", "quiet"]
    assert all(run.data.metrics["monitor/class_mix"] >= 0 for run in runs)


def test_what_is_typed_wrong(
    package: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = weights_of(package)
    few = predict(tmp_path / "few", weights, films=5)
    other = predict(tmp_path / "other", "b" * 64, films=1)
    (tmp_path / "empty").mkdir()
    bare = save_package(tmp_path / "bare", *load_package(package))
    cases = {
        (str(few), str(package)): "nothing can be compared: only 5 films or people can tell",
        (str(other), str(package)): "are of a model with other weights (bbbbbbbbbbbb)",
        (str(tmp_path / "empty"), str(package)): "holds no tables to compare",
        (str(few), str(bare)): "keeps no monitor-reference.parquet",
        (str(package / "model.json"), str(package)): "is not a Parquet file",
    }
    for (new, model), message in cases.items():
        assert main(["monitor", new, "--model", model]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "monitor").exists()
    assert main(["predict", "a.mp4", "--model", "m", "--features", "--out", "t.csv"]) == 2
    assert "a CSV cell holds no list" in capsys.readouterr().err


def test_a_reference_names_nobody_and_keeps_its_numbers(package: Path) -> None:
    raw = (package / REFERENCE_FILE).read_bytes()
    assert b"anna" not in raw
    assert b"clip-" not in raw
    found = read_sample([str(package / REFERENCE_FILE)])
    assert (len(found), found.num_units, found.classes) == (80, 40, CLASSES)
    assert found.features_ND is not None
    assert found.features_ND.shape == (80, 4)
    assert found.face_share_N == pytest.approx(np.full(80, 0.9), abs=1e-6)


def test_rows_are_thinned_evenly(package: Path, tmp_path: Path) -> None:
    whole = read_sample([str(predict(tmp_path / "out", "c" * 64, films=10))])
    few = thinned(whole, 15)
    counts = np.bincount(few.unit_N, minlength=10)
    assert len(few) == 15
    assert set(counts.tolist()) == {1, 2}


def test_files_of_an_evaluation_and_of_others(package: Path, tmp_path: Path) -> None:
    predictions = make_predictions(
        clip_ids=["a", "b"], logits_NK=np.eye(2), label_set=LABELS, true_N=[0, 1]
    )
    location = str(tmp_path / "predictions-test.parquet")
    write_predictions(location, predictions)
    found = read_sample([location])
    assert found.features_ND is None
    assert np.isnan(found.has_audio_N).all()
    windows = str(predict(tmp_path / "out", "c" * 64, films=1) / "windows" / "film-0.parquet")
    assert np.isnan(read_sample([windows]).probabilities_NK[-1]).all()
    with pytest.raises(SampleError, match="holds no windows of `mien predict`"):
        read_sample([windows, location])
    with pytest.raises(SampleError, match="got 2 files"):
        read_sample([location, location])
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(location).replace_schema_metadata({}), foreign)
    with pytest.raises(SampleError, match="holds no predictions"):
        read_sample([str(foreign)])


def test_light_and_resolution_are_seen_in_the_pictures() -> None:
    rng = torch.Generator().manual_seed(0)
    video = torch.randint(40, 255, (2, 3, 3, 32, 32), generator=rng, dtype=torch.uint8)
    dark = (video * 0.25).to(torch.uint8)
    small = torch.nn.functional.avg_pool2d(video.flatten(0, 1).float(), 4)
    low = torch.nn.functional.interpolate(small, size=32, mode="bilinear").to(torch.uint8)
    low = low.unflatten(0, (2, 3))
    plain, darkened, coarse = (
        picture_statistics(plain_batch(pictures).views[0]).mean(dim=0)
        for pictures in (video, dark, low)
    )
    assert darkened[0] == pytest.approx(float(plain[0]) / 4, rel=0.02)
    assert coarse[0] == pytest.approx(float(plain[0]), rel=0.02)
    assert coarse[2] < 0.7 * plain[2]
    grey = torch.full((1, 2, 3, 8, 8), 51, dtype=torch.uint8)
    assert picture_statistics(plain_batch(grey).views[0])[0].tolist() == pytest.approx(
        [0.2, 0, 0], abs=1e-6
    )


def test_calibrated_tables_are_not_taken_for_a_change(package: Path, tmp_path: Path) -> None:
    columns = Columns(
        classes=CLASSES, weights_sha256=weights_of(package), temperatures={"video": 2.0}
    )
    location = str(tmp_path / "film.parquet")
    with table_writer(location, columns.window_schema):
        pass
    with pytest.raises(SampleError, match=r"film\.parquet holds calibrated.*without --calibrated"):
        read_sample([location])
