"""Ray Train: workers that are killed, settings that workers refuse, models that get registered."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import psutil
import pytest
import torch

from mien.evaluate.predictions import read_predictions
from mien.infer.package import load_package
from mien.track.mlflow_tracker import open_client
from mien.track.references import resolve
from mien.train.launch import train
from mien.train.on_ray import TrainingError, train_on_ray
from mien_jobs.methods import load_method
from mien_jobs.recipe import TrackPlan
from mien_jobs.training import fetch_package, prepare, run_training

pytestmark = pytest.mark.ray


def kill_a_worker() -> None:
    for process in psutil.process_iter(["cmdline"]):
        if any("RayTrainWorker" in word for word in process.info["cmdline"] or ()):
            process.kill()
            return
    raise AssertionError("no Ray Train worker is running")


def test_a_killed_worker_costs_nothing_but_time(small_recipe, local_ray):
    whole = prepare(small_recipe("mma_dfer", run="whole", workers=1)).job
    train(whole)
    broken = prepare(small_recipe("mma_dfer", run="broken", workers=1)).job
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "adapt step 3/" in line and not any("died" in said for said in lines):
            kill_a_worker()

    train_on_ray(broken, say)
    assert sum("the workers died" in line for line in lines) == 1
    assert sum("going on from the checkpoint" in line for line in lines) == 1
    (_, expected), (_, found) = (load_package(fetch_package(job)) for job in (whole, broken))
    different = {
        key: float((tensor - found[key]).abs().max())
        for key, tensor in expected.items()
        if not torch.equal(tensor, found[key])
    }
    assert different == {}


def test_what_workers_refuse_is_said_once_and_not_tried_again(small_recipe, local_ray):
    recipe = small_recipe("mma_dfer", workers=2)
    recipe = dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, select="val/f1", max_failures=3)
    )
    lines: list[str] = []
    with pytest.raises(TrainingError, match=r"val/f1.*val/uar"):
        train_on_ray(prepare(recipe).job, lines.append)
    assert not any("starting them again" in line for line in lines)


def test_a_run_is_tracked_scored_registered_and_found_again(small_recipe, local_ray, tmp_path):
    recipe = dataclasses.replace(
        small_recipe("mma_dfer", workers=2), track=TrackPlan(model="small", experiment="tests")
    )
    run = prepare(recipe)
    model = run_training(run)
    assert run.job.tracker is not None
    uri = run.job.tracker.uri
    client = open_client(uri)
    tracked = client.get_run(model.run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["config.epochs"] == "2"
    assert tracked.data.tags["mien.device"] == "cpu"
    note = tracked.data.tags["mlflow.note.content"]
    assert f"UAR {tracked.data.metrics['test/uar']:.3f}" in note
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in note.splitlines()]
    assert ["test", str(len(run.data.split.test)), "2"] in cells
    (dataset,) = (one.dataset for one in tracked.inputs.dataset_inputs)
    assert dataset.digest == run.data.manifest_hash[:12]
    assert json.loads(dataset.profile)["test"] == len(run.data.split.test)
    assert f"Best epoch: {model.fit.best_epoch} (val/uar " in note
    scores = {"test/uar", "test/video_audio/uar", "test/video/uar", "test/audio/uar", "val/uar"}
    assert scores <= tracked.data.metrics.keys()
    names = {entry.path for entry in client.list_artifacts(model.run_id)}
    assert {"confusion_test.png", "recall_test.png", "environment.json", "package"} <= names
    curve = client.get_metric_history(model.run_id, "train/adapt/loss")
    assert [point.step for point in curve] == sorted({point.step for point in curve})

    predictions = read_predictions(str(Path(run.job.folder) / "predictions-test.parquet"))
    assert len(predictions) == 3 * len(run.data.split.test)
    assert set(predictions.column("clip_id")) == set(run.data.split.test)

    info, _ = load_method(resolve(uri, "small@champion"))
    assert info.split_hash == run.data.split.content_hash
    assert json.loads((Path(run.job.folder) / "recipe.json").read_text())["split_hash"]

    again = run_training(prepare(recipe))
    assert again.run_id == model.run_id
    assert again.fit.steps == model.fit.steps


def test_another_recipe_under_the_same_name_is_refused(small_recipe):
    run_training(prepare(small_recipe("mma_dfer")), say=lambda line: None)
    other = small_recipe("mma_dfer", "config.epochs=3")
    with pytest.raises(ValueError, match=r"other settings \(config.epochs: 2 then, 3 now\)"):
        prepare(other)
