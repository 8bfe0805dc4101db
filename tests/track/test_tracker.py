"""Tracking against a real MLflow in a local data base."""

from __future__ import annotations

import csv
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mien.track.mlflow_tracker import MlflowTracker
from mien.track.tracker import (
    NoTracker,
    Tracker,
    TrackerError,
    TrackerSpec,
    embedded_uri,
    flatten,
    safe_name,
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return embedded_uri(tmp_path_factory.mktemp("with blank") / "mlruns")


def open_run(uri: str, key: str, **settings: Any) -> MlflowTracker:
    tracker = TrackerSpec(uri=uri, experiment="faces", run_key=key, **settings).open()
    assert isinstance(tracker, MlflowTracker)
    return tracker


def history(tracker: MlflowTracker, key: str) -> list[tuple[int, float]]:
    found = tracker.client.get_metric_history(tracker.run_id, key)
    return [(metric.step, metric.value) for metric in found]


def artifact(tracker: MlflowTracker, path: str, folder: Path) -> Path:
    return Path(tracker.client.download_artifacts(tracker.run_id, path, str(folder)))


def test_flatten() -> None:
    nested = {
        "train": {"lr": 3e-4, "betas": (0.9, 0.999), "compile": False},
        "views": [{"num_frames": 2}, {"num_frames": 3}],
        "label": None,
        "name": "tiny",
        "labels": {"sad (weak)": 1},
        "empty": {},
    }
    assert flatten(nested) == {
        "train.lr": "0.0003",
        "train.betas": "[0.9, 0.999]",
        "train.compile": "false",
        "views.0.num_frames": "2",
        "views.1.num_frames": "3",
        "label": "null",
        "name": "tiny",
        "labels.sad _weak_": "1",
        "empty": "{}",
    }


def test_safe_name_keeps_other_alphabets() -> None:
    assert safe_name("test/recall/überrascht!") == "test/recall/überrascht_"


def test_a_run_holds_what_was_logged(uri: str, tmp_path: Path) -> None:
    tracker = open_run(uri, "whole", run_name="first try")
    tracker.log_params(
        {"train": {"lr": 0.1}, "long": "x" * 600, "many": {str(i): i for i in range(120)}}
    )
    tracker.set_tags({"git": "abc"})
    for _ in range(2):  # as a run does that goes on
        tracker.log_dataset(
            "faces/clips", digest="0a1b", source="s3://faces/clips.parquet", facts={"clips": 12}
        )
    for step in range(3):
        tracker.log_metrics({"train/loss": 3.0 - step, "val/uar": 0.5}, step)
    tracker.log_json("recipe", {"a": [1, 2]})
    tracker.log_table(
        "scores/per_class", [{"class": "joy", "recall": 0.5}, {"class": "awe", "n": 1}]
    )
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    tracker.log_figure("plots/curve.png", figure)
    (tmp_path / "notes.txt").write_text("hello")
    tracker.log_file(tmp_path / "notes.txt", "texts")
    tracker.log_file(tmp_path, "everything")
    tracker.finish()

    run = tracker.client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first try"
    assert run.data.params["train.lr"] == "0.1"
    assert run.data.params["many.119"] == "119"
    assert run.data.params["long"] == "x" * 497 + "..."
    assert run.data.tags["git"] == "abc"
    (made_from,) = (one.dataset for one in run.inputs.dataset_inputs)
    assert (made_from.name, made_from.digest) == ("faces/clips", "0a1b")
    assert json.loads(made_from.source) == {"uri": "s3://faces/clips.parquet"}
    assert json.loads(made_from.profile) == {"clips": 12}
    assert history(tracker, "train/loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    got = tmp_path / "got"
    got.mkdir()
    assert json.loads(artifact(tracker, "params/long.json", got).read_text()) == "x" * 600
    assert json.loads(artifact(tracker, "recipe.json", got).read_text()) == {"a": [1, 2]}
    with open(artifact(tracker, "scores/per_class.csv", got)) as file:
        assert list(csv.DictReader(file)) == [
            {"class": "joy", "recall": "0.5", "n": ""},
            {"class": "awe", "recall": "", "n": "1"},
        ]
    assert artifact(tracker, "plots/curve.png", got).read_bytes()[:4] == b"\x89PNG"
    assert artifact(tracker, "texts/notes.txt", got).read_text() == "hello"
    assert artifact(tracker, "everything/notes.txt", got).read_text() == "hello"
    place = Path(uri.removeprefix("sqlite:///")).parent
    assert (place / "artifacts" / tracker.run_id / "artifacts" / "recipe.json").is_file()


@pytest.mark.parametrize("key", ["restart", "s3://bucket/Ann's Läufe (2)/run, 1%"])
def test_a_restart_continues_the_run(uri: str, key: str) -> None:
    """The second start repeats steps 2 and 3, as a loop does after an uncommitted checkpoint."""
    first = open_run(uri, key)
    first.log_params({"lr": 0.1, "workers": 2})
    for step in range(4):
        first.log_metrics({"loss": 1.0 * step}, step)
    first.finish("FAILED")

    second = open_run(uri, key)
    assert second.is_resumed
    assert second.run_id == first.run_id
    assert second.client.get_run(second.run_id).info.status == "RUNNING"
    second.log_params({"lr": 0.1, "workers": 4, "new": 1})
    for step in range(2, 6):
        second.log_metrics({"loss": 1.0 * step}, step)
    second.finish()
    data = second.client.get_run(second.run_id).data
    assert history(second, "loss") == [(step, 1.0 * step) for step in range(6)]
    assert data.params == {"lr": "0.1", "workers": "2", "new": "1"}
    assert data.tags["mien.changed.workers"] == "4"
    assert "mien.changed.lr" not in data.tags


def test_other_key_other_run_and_parent(uri: str) -> None:
    parent = open_run(uri, "sweep")
    child = open_run(uri, "sweep/trial 1", parent_run_id=parent.run_id)
    assert child.run_id != parent.run_id
    assert not child.is_resumed
    tags = child.client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_that_are_no_numbers_are_named(uri: str, value: float) -> None:
    tracker = open_run(uri, "nan")
    with pytest.raises(TrackerError, match=r"'val/uar' is (nan|inf) at step 7"):
        tracker.log_metrics({"loss": 1.0, "val/uar": value}, 7)


def test_many_metrics_in_batches(uri: str) -> None:
    tracker = open_run(uri, "many")
    for step in range(2500):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.flush()
    assert len(history(tracker, "loss")) == 2500


def test_a_silent_server_loses_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_run(uri, "outage")
    write = MlflowClient.log_batch

    def down(*_args: Any, **_kwargs: Any) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(MlflowClient, "log_batch", down)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.flush()
    assert "1 metrics wait in memory" in caplog.text
    with pytest.raises(MlflowException, match="connection refused"):
        tracker.finish()
    monkeypatch.setattr(MlflowClient, "log_batch", write)
    tracker.log_metrics({"loss": 2.0}, 2)
    tracker.finish()
    assert history(tracker, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_deleted_run_is_an_error_at_once(uri: str) -> None:
    tracker = open_run(uri, "deleted")
    tracker.client.delete_run(tracker.run_id)
    tracker.log_metrics({"loss": 1.0}, 1)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        tracker.flush()


def test_deleted_experiment_says_how_to_restore(tmp_path: Path) -> None:
    uri = embedded_uri(tmp_path)
    tracker = open_run(uri, "a")
    experiment = tracker.client.get_experiment_by_name("faces")
    tracker.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackerError, match="mlflow experiments restore -x 1"):
        open_run(uri, "b")


def test_things_that_can_not_be_logged(uri: str, tmp_path: Path) -> None:
    tracker = open_run(uri, "refusals")
    with pytest.raises(TrackerError, match=r"scores can't be written as JSON"):
        tracker.log_json("scores", {"uar": float("nan")})
    with pytest.raises(TrackerError, match="no such file or folder"):
        tracker.log_file(tmp_path / "missing")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "sqlite:///mlflow.db"}, "absolute path, with four slashes: sqlite:////"),
        ({"uri": "mlruns"}, "neither a server's URL"),
        ({"uri": "http://host", "run_key": 'say "a"'}, "run_key"),
        ({"uri": "http://host", "run_key": ""}, "run_key"),
    ],
)
def test_bad_specs(settings: dict[str, str], message: str) -> None:
    with pytest.raises(TrackerError, match=message):
        TrackerSpec(**{"run_key": "k", **settings})


def test_unreachable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec = TrackerSpec(uri="http://127.0.0.1:9", run_key="k")
    with pytest.raises(TrackerError, match=r"127\.0\.0\.1:9 can't be used.*server runs"):
        spec.open()


def test_no_tracker_and_spec_travel() -> None:
    spec = TrackerSpec(uri=None)
    tracker: Tracker = pickle.loads(pickle.dumps(spec)).open()
    assert isinstance(tracker, NoTracker)
    tracker.log_metrics({"loss": float("nan")}, 0)
    tracker.finish()
    assert tracker.run_id == ""


def _open_in_process(uri: str, key: str) -> str:
    return open_run(uri, key).run_id


@pytest.mark.slow
def test_processes_open_a_fresh_data_base_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [(embedded_uri(tmp_path), f"trial {i}") for i in range(3)]
        assert len(set(pool.starmap(_open_in_process, jobs))) == 3
