"""What must hold for every method, on real encoded clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mien.infer.package import load_package
from mien.seeds import seed_torch
from mien.stream.source import ClipSource, in_process
from mien.train.launch import TrainJob, run_worker, train
from mien.train.stage_run import StageRun
from mien.train.world import World
from mien_jobs.methods import METHODS, load_method
from mien_jobs.training import fetch_package, prepare
from mien_models.contract import Method, Progress, Stage, TensorPredictor, plain_batch
from mien_models.explain import heat_maps, on_picture

pytestmark = pytest.mark.parametrize("name", sorted(METHODS))


def make_source(run, **options) -> ClipSource:
    data = run.data
    return ClipSource(data.manifest, data.split, data.label_set, seed=0, **options)


def stages_of(method):
    index = 0
    while (stage := method.stage(index)) is not None:
        method.begin_stage(index)
        yield index, stage
        index += 1


def test_every_trainable_parameter_gets_a_gradient(name, small_recipe):
    run = prepare(small_recipe(name))
    seed_torch(0)
    method = run.job.build_method()
    source = make_source(run)
    for index, stage in stages_of(method):
        stage_run = StageRun(method, stage, total_steps=10, world=World())
        # Adapters behind a gate that starts at zero get none in the very first step.
        for step in range(3):
            batches = {
                key: next(source.batches(spec, start_step=step, num_steps=1))
                for key, spec in stage.streams.items()
            }
            progress = Progress(stage=index, epoch=0, step=step, total_steps=10)
            logs = stage_run.step(batches, progress)
            assert all(torch.isfinite(value) for value in logs.values())
        without = [key for key, p in stage_run.trainable.items() if p.grad is None]
        assert without == []
        frozen = [key for key, p in method.named_parameters() if key not in stage_run.trainable]
        assert all(dict(method.named_parameters())[key].grad is None for key in frozen)


def test_it_overfits_four_clips(name, small_recipe):
    run = prepare(small_recipe(name))
    seed_torch(0)
    method = run.job.build_method()
    source = make_source(run)
    *_, (index, stage) = stages_of(method)
    key, spec = next(iter(stage.streams.items()))
    spec = dataclasses.replace(
        spec,
        batch_size=4,
        views=tuple(dataclasses.replace(v, augmentation=None) for v in spec.views),
    )
    batch = next(source.batches(spec, start_step=0, num_steps=1))
    assert len(set(batch.label_B.tolist())) > 1
    optim = dataclasses.replace(stage.optim, lr=1e-2, schedule="constant", warmup_fraction=0.0)
    stage = dataclasses.replace(stage, optim=optim)
    stage_run = StageRun(method, stage, total_steps=150, world=World())
    for step in range(150):
        progress = Progress(stage=index, epoch=0, step=step, total_steps=150)
        stage_run.step({key: batch}, progress)
        method.after_step()
    method.eval()
    with torch.no_grad():
        predicted = method.predict(batch).logits_BK.argmax(1)
    assert torch.equal(predicted, batch.label_B)


def stop_after(job, updates: int):
    """The job with a method that fails after so many optimiser steps, as a killed process would."""

    def build():
        method = job.build_method()
        original, count = method.after_step, [0]

        def after_step():
            count[0] += 1
            if count[0] == updates:
                raise KeyboardInterrupt
            original()

        method.after_step = after_step
        return method

    return dataclasses.replace(job, build_method=build)


@pytest.mark.parametrize("updates", [1, 6, 9])
def test_an_interrupted_run_ends_with_the_same_bits(name, small_recipe, updates):
    whole = prepare(small_recipe(name, run="whole")).job
    result = train(whole)
    broken = prepare(small_recipe(name, run="broken")).job
    with pytest.raises(KeyboardInterrupt):
        train(stop_after(broken, updates))
    again = train(broken)
    assert again.steps == result.steps > 9
    assert again.metrics == result.metrics
    (_, expected), (_, found) = (load_package(fetch_package(job)) for job in (whole, broken))
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())


def plain_descent(build: Callable[[], Method]) -> Method:
    """The method with SGD in every stage: Adam's first steps are signs of the gradient, which
    make whole steps of what rounding leaves where a gradient is nought, as before a batch norm."""
    method = build()
    original = method.stage

    def stage(index: int) -> Stage | None:
        found = original(index)
        if found is None:
            return None
        plan = dataclasses.replace(found.optim, optimizer="sgd", lr=0.02, clip_norm=1.0)
        return dataclasses.replace(found, optim=plan)

    method.stage = stage
    return method


def work(rank: int, job: TrainJob, folder: Path) -> None:
    """One of two workers, as Ray Train would start it."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    run_worker(job, World(rank=rank, size=2), in_process)
    dist.destroy_process_group()


def test_two_workers_end_where_one_does(name, small_recipe, tmp_path: Path):
    """Same global batches; what is left are sums in another order."""
    ends = []
    for run in ("on1", "on2"):
        job = prepare(small_recipe(name, run=run)).job
        job = dataclasses.replace(job, build_method=partial(plain_descent, job.build_method))
        if run == "on1":
            train(job)
        else:
            torch.multiprocessing.spawn(work, (job, tmp_path), nprocs=2)
        ends.append(load_package(fetch_package(job))[1])
    for key, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][key], rtol=1e-4, atol=1e-5, msg=key)


def test_a_package_predicts_what_the_method_did(name, small_recipe, tmp_path: Path):
    run = prepare(small_recipe(name))
    train(run.job)
    info, method = load_method(fetch_package(run.job))
    source = make_source(run)
    spec = info.prediction_stream.for_prediction("test")
    batch = next(source.scan(spec))
    info_again, again = load_method(fetch_package(run.job))
    assert info_again == info
    with torch.no_grad():
        expected = method.predict(batch).logits_BK
        assert torch.equal(expected, again.predict(batch).logits_BK)
        tensors = (batch.video_BTCHW, batch.audio_BFM, batch.audio_frames_B, batch.has_audio_B)
        exported = torch.export.export(TensorPredictor(method), tensors).module()
        torch.testing.assert_close(exported(*tensors), expected, rtol=1e-4, atol=1e-5)
        first = [None if tensor is None else tensor[:1] for tensor in tensors]
        alone = method.predict(plain_batch(*first)).logits_BK
    torch.testing.assert_close(alone, expected[:1], rtol=1e-4, atol=1e-5)


def test_its_heat_maps_belong_to_its_frames(name, small_recipe):
    run = prepare(small_recipe(name))
    seed_torch(0)
    method = run.job.build_method()
    for _ in stages_of(method):
        pass
    spec = method.prediction_stream().for_prediction("train")
    batch = next(make_source(run).scan(spec))
    class_B = torch.arange(len(batch)) % len(method.classes)
    heat = heat_maps(method, batch, class_B)
    num_clips, num_frames = heat.frames_BS.shape
    assert heat.heat_BSRC.shape[:2] == (len(batch), num_frames)
    assert heat.frames_BS.min() >= 0
    assert heat.frames_BS.max() < batch.video_BTCHW.shape[1]
    assert heat.heat_BSRC.min() >= 0
    large = on_picture(heat, method.picture_layer(), spec.image_size_px)
    assert large.shape[2:] == batch.video_BTCHW.shape[3:]
    alone = heat_maps(method, batch.rows(0, 1), class_B[:1])
    assert torch.allclose(alone.heat_BSRC[0], heat.heat_BSRC[0], atol=1e-3)
    assert num_clips == len(batch)


def test_every_searched_setting_exists(name):
    recipe = METHODS[name].recipe("tiny")
    for key, space in METHODS[name].method.search_space().items():
        value = recipe.config
        for part in key.split("."):
            value = getattr(value, part)
        assert space.choices or space.low < space.high
