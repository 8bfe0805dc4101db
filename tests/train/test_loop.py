"""The loop: resume equals uninterrupted, selection, curves, non-finite losses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mien.seeds import seed_torch
from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.loop import NonFiniteLossError, fit
from mien.train.plan import TrainPlan
from mien.train.world import DeviceError, World, choose_device
from mien_models.contract import OptimPlan, StepOutput

ADAMW = OptimPlan(lr=2e-2, weight_decay=0.01, warmup_fraction=0.2, ema_decay=0.8)
PLAN = TrainPlan(workers=0, seed=3, log_every_steps=2, checkpoint_every_steps=3)


class CurveTracker(NoTracker):
    """Keeps the curves by step, as a tracking server would."""

    def __init__(self) -> None:
        self.curves: dict[tuple[str, int], float] = {}

    def log_metrics(self, metrics, step):
        timed = ("clips_per_s", "waiting_for_data", "s_per_step")
        for name, value in metrics.items():
            if not name.endswith(timed):
                self.curves[name, step] = value


class StoppedError(Exception):
    """Stands for a killed process."""


def run(method, clips, folder: Path, *, stop_at: int | None = None, plan=PLAN, tracker=None):
    calls = 0
    original = method.after_step

    def after_step() -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise StoppedError
        original()

    method.after_step = after_step
    return fit(
        method,
        clips=clips,
        plan=plan,
        world=World(),
        store=CheckpointStore(str(folder)),
        tracker=tracker or NoTracker(),
        say=lambda line: None,
    )


def build(method_class, optim=ADAMW, **options):
    seed_torch(PLAN.seed, "build")
    return method_class(optim, **options)


@pytest.mark.parametrize(
    "optim",
    [
        ADAMW,
        OptimPlan(optimizer="sgd", lr=0.05, schedule="epoch_cosine", clip_norm=None),
        OptimPlan(lr=1e-2, accumulate=2, schedule="constant"),
    ],
    ids=["adamw-ema", "sgd", "accumulate"],
)
@pytest.mark.parametrize("stop_at", [1, 4, 5, 12, 13, 17, 24])
def test_interrupted_equals_uninterrupted(tiny_method, memory_clips, tmp_path, optim, stop_at):
    whole_curves, broken_curves = CurveTracker(), CurveTracker()
    whole = build(tiny_method, optim)
    result = run(whole, memory_clips(), tmp_path / "whole", tracker=whole_curves)
    with pytest.raises(StoppedError):
        run(
            build(tiny_method, optim),
            memory_clips(),
            tmp_path / "broken",
            stop_at=stop_at,
            tracker=broken_curves,
        )
    torch.manual_seed(999)  # a new process starts with other generators
    resumed = build(tiny_method, optim)
    again = run(resumed, memory_clips(), tmp_path / "broken", tracker=broken_curves)

    assert again.steps == result.steps == 24
    assert again.metrics == result.metrics
    assert resumed.json_state() == whole.json_state()
    assert broken_curves.curves == whole_curves.curves
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_weights_move_and_the_frozen_ones_do_not(tiny_method, memory_clips, tmp_path):
    method = build(tiny_method)
    start = {name: p.detach().clone() for name, p in method.named_parameters()}
    seen: dict[str, torch.Tensor] = {}
    original = method.begin_stage

    def begin_stage(index: int) -> None:
        original(index)
        if index == 1:
            seen["trunk"] = method.trunk.weight.detach().clone()

    method.begin_stage = begin_stage
    run(method, memory_clips(), tmp_path)
    assert not torch.equal(start["trunk.weight"], method.trunk.weight)
    assert torch.equal(seen["trunk"], method.trunk.weight)


def test_a_finished_run_is_not_trained_again(tiny_method, memory_clips, tmp_path):
    first = build(tiny_method)
    result = run(first, memory_clips(), tmp_path)
    second = build(tiny_method)
    again = run(second, memory_clips(), tmp_path, stop_at=1)
    assert again.metrics == result.metrics
    assert torch.equal(first.head.weight, second.head.weight)


def test_it_learns_and_ships_the_best_epoch(tiny_method, memory_clips, tmp_path):
    method = build(tiny_method, OptimPlan(lr=2e-2, clip_norm=None), epochs=25)
    tracker = CurveTracker()
    result = run(method, memory_clips(), tmp_path, tracker=tracker)
    curve = [value for (name, _), value in tracker.curves.items() if name == "val/uar"]
    assert len(curve) == 25
    assert result.metrics["val/uar"] == max(curve) >= 0.9
    assert result.best_epoch == 1 + curve.index(max(curve))


def test_checkpoints_hold_only_what_trains(tiny_method, memory_clips, tmp_path):
    run(build(tiny_method), memory_clips(), tmp_path)
    store = CheckpointStore(str(tmp_path))
    assert len(store.names()) == PLAN.keep_checkpoints
    newest = store.load_newest()
    assert set(newest.model) == {"head.weight", "head.bias", "num_updates"}
    assert set(store.load_frozen(newest.state["frozen_sha256"])) == {"trunk.weight", "trunk.bias"}


def test_a_loss_that_is_not_finite_stops_the_run_with_the_clips_named(
    tiny_method, memory_clips, tmp_path
):
    method = build(tiny_method)
    original = method.forward

    def forward(batches, progress):
        output = original(batches, progress)
        bad = math.nan if progress.step == 4 else 1.0
        return StepOutput(loss=output.loss * bad, logs=output.logs)

    method.forward = forward
    with pytest.raises(NonFiniteLossError, match=r"stage 'warm', step 4: loss nan.*clip\d"):
        run(method, memory_clips(), tmp_path)
    assert CheckpointStore(str(tmp_path)).names() == [
        "stage-00-step-00000003",
        "stage-00-step-00000004",
    ]


def test_selecting_by_an_unknown_metric_names_the_known_ones(tiny_method, memory_clips, tmp_path):
    plan = TrainPlan(workers=0, select="val/f1")
    with pytest.raises(ValueError, match=r"val/f1.*val/macro_f1.*val/uar"):
        run(build(tiny_method), memory_clips(), tmp_path, plan=plan)


def test_accumulation_sums_the_same_gradient(tiny_method, memory_clips, tmp_path):
    plain = OptimPlan(lr=1e-2, schedule="constant", clip_norm=None, optimizer="sgd")
    split = OptimPlan(lr=1e-2, schedule="constant", clip_norm=None, optimizer="sgd", accumulate=4)
    results = []
    for name, optim in (("plain", plain), ("split", split)):
        method = build(tiny_method, optim, epochs=1)
        method.dropout.p = 0.0
        run(method, memory_clips(), tmp_path / name)
        results.append(method.trunk.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_state_is_json(tiny_method, memory_clips, tmp_path):
    run(build(tiny_method), memory_clips(), tmp_path)
    newest = sorted((tmp_path / "checkpoints").glob("stage-*"))[-1]
    assert json.loads((newest / "state.json").read_text())["position"]["stage"] == 2


def test_bfloat16_trains_and_keeps_weights_in_float32(tiny_method, memory_clips, tmp_path):
    plan = TrainPlan(workers=0, seed=3, precision="bfloat16")
    method = build(tiny_method, OptimPlan(lr=2e-2, clip_norm=None), epochs=25)
    seen: set[torch.dtype] = set()
    original = method.predict

    def predict(batch):
        prediction = original(batch)
        seen.add(prediction.logits_BK.dtype)
        return prediction

    method.predict = predict
    result = run(method, memory_clips(), tmp_path, plan=plan)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    assert result.metrics["val/uar"] >= 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, in inductor
def test_a_compiled_run_ends_near_an_eager_one(tiny_method, memory_clips, tmp_path):
    ends = []
    for compiled in (False, True):
        method = build(tiny_method, epochs=1)
        method.dropout.p = 0.0
        plan = TrainPlan(workers=0, seed=3, compile=compiled)
        run(method, memory_clips(), tmp_path / str(compiled), plan=plan)
        ends.append(method.state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-3, atol=1e-4)


def test_a_device_that_is_not_there_is_not_replaced_by_another():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match=r"train.device=cuda, but torch sees no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
