"""complex_fer trained on real clips: stopped between stages, inside one, and at a stage's end."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mien.infer.package import load_package
from mien.train.launch import train
from mien_jobs import overrides
from mien_jobs.methods import load_method, make_recipe
from mien_jobs.training import fetch_package, prepare, run_training, with_data

SMALL = [
    "config.image_size_px=32",
    "config.border_px=4",
    "config.num_frames=2",
    "config.align_faces=false",
    "config.trunk.widths=[4, 6]",
    "config.trunk.grid=2",
    "config.trunk.dim=8",
    "config.classes.first_classes=happiness",
    "config.basic.batch_size=4",
    "config.basic.epochs=1",
    "config.basic.steps_per_epoch=3",
    "config.later.batch_size=4",
    "config.later.epochs=1",
    "config.later.steps_per_epoch=3",
    "config.memory.per_class=3",
    "config.memory.batch_size=3",
    "data.label_set=auto",
    "data.val_fraction=0.2",
    "data.test_fraction=0.2",
    "train.workers=0",
    "train.checkpoint_every_steps=2",
    "track.uri=off",
]
"""Three stages of three steps: one class, then one more, then one more."""


@pytest.fixture
def recipe_of(synth_manifest, tmp_path):
    def make(name: str):
        recipe = with_data(make_recipe("complex_fer", "tiny"), str(synth_manifest), name)
        recipe = dataclasses.replace(recipe, storage=str(tmp_path / "runs"))
        return overrides.apply_overrides(recipe, SMALL)

    return make


class Stopped(BaseException):
    """As a killed process."""


def stop_at(job, hook: str, call: int, *, before: bool):
    """The job with a method that dies at the given call of a hook, before or after doing it."""

    def build():
        method = job.build_method()
        original, count = getattr(method, hook), [0]

        def counted(*arguments):
            count[0] += 1
            if count[0] == call and before:
                raise Stopped
            result = original(*arguments)
            if count[0] == call:
                raise Stopped
            return result

        setattr(method, hook, counted)
        return method

    return dataclasses.replace(job, build_method=build)


@pytest.mark.parametrize(
    ("hook", "call", "before"),
    [
        # Inside the second stage, between checkpoints.
        pytest.param("after_step", 5, False, marks=pytest.mark.slow),
        # All steps of the second stage are done.
        pytest.param("end_stage", 2, True, marks=pytest.mark.slow),
        # Its exemplars are chosen, but not written.
        ("end_stage", 2, False),
        # Between the second stage and the third.
        pytest.param("stage", 3, True, marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_anywhere_ends_with_the_same_bits(recipe_of, hook, call, before):
    whole = prepare(recipe_of("whole")).job
    train(whole)
    broken = prepare(recipe_of("broken")).job
    with pytest.raises(Stopped):
        train(stop_at(broken, hook, call, before=before))
    train(broken)
    (expected, tensors), (found, again) = (
        load_package(fetch_package(job)) for job in (whole, broken)
    )
    assert found.json_state == expected.json_state
    assert len(found.json_state["memory"]["exemplars"]) == 9
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())


@pytest.mark.slow
def test_a_run_leaves_stages_memory_and_a_package_without_teachers(recipe_of, tmp_path):
    recipe = recipe_of("run")
    recipe = dataclasses.replace(
        recipe, track=dataclasses.replace(recipe.track, uri=f"sqlite:///{tmp_path}/mlflow.db")
    )
    run = prepare(recipe)
    said: list[str] = []
    model = run_training(run, said.append)
    stages = json.loads((tmp_path / "runs" / "run" / "stages-test.json").read_text())
    assert len(stages["stages"]) == 3
    assert stages["accuracy_matrix"][0][1:] == [None, None]
    assert any("Stage by stage, test split" in line for line in said)

    from mien.track.mlflow_tracker import open_client

    client = open_client(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.get_run(model.run_id).data.metrics
    assert tracked["test/stages/final_accuracy"] == pytest.approx(
        stages["figures"]["final_accuracy"]
    )
    assert tracked["train/basic/memory_clips"] == 3.0
    assert tracked[f"train/{stages['stages'][-1]}/memory_clips"] == 9.0
    artifacts = {entry.path for entry in client.list_artifacts(model.run_id)}
    assert {"stages_test.json", "stages_test.png", "stages_val.json"} <= artifacts

    info, method = load_method(model.package)
    assert not any("teacher" in name for name in method.state_dict())
    train_ids = set(run.data.split.train)
    assert {one["clip_id"] for one in info.json_state["memory"]["exemplars"]} <= train_ids
