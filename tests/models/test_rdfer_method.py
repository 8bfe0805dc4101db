"""RDFER as a method: stage, loss, teacher, looks, state, and two workers against one."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mien_models.contract import ClipBatch, Progress, StreamSpec, plain_batch
from mien_models.layers.ema_teacher import EmaTeacher
from mien_models.rdfer import Rdfer, RdferConfig
from mien_models.rdfer.config import AgreementConfig, LongTermConfig, LossConfig, TrunkConfig
from mien_models.rdfer.ledger import Look
from mien_models.rdfer.losses import intensity_aware_loss, key_target_loss

CLASSES = ("happy", "sad", "angry")
EPOCHS = 4
SMALL = dataclasses.replace(
    RdferConfig.tiny(),
    image_size_px=24,
    border_px=0,
    num_frames=8,
    synopsis_frames=4,
    trunk=TrunkConfig(name="conv", widths=(4, 6), width=8, dropout=0.3, project_std=None),
    long_term=LongTermConfig(layers=1, hidden=4, num_heads=2),
    agreement=AgreementConfig(num_clips=3, delta=0.0, start=0.5, teacher_decay=0.9, tau=0.3),
    batch_size=6,
    epochs=EPOCHS,
)
STEPS = 3


def make_batch(size: int = 6, seed: int = 0, config: RdferConfig = SMALL) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    side = config.image_size_px
    shape = (size, config.num_frames, 3, side, side)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    ids = [f"clip{seed}-{index}" for index in range(size)]
    batch = plain_batch(video, clip_ids=ids)
    label_B = torch.arange(size) % len(CLASSES)
    return dataclasses.replace(batch, label_B=label_B, seed_B=torch.arange(size) + 100 * seed)


def make_method(config: RdferConfig = SMALL) -> Rdfer:
    torch.manual_seed(0)
    method = Rdfer(config, CLASSES)
    method.begin_stage(0)
    return method.train()


def at(epoch: int) -> Progress:
    return Progress(stage=0, epoch=epoch, step=epoch * STEPS, total_steps=EPOCHS * STEPS)


def settings(**changes: Any) -> RdferConfig:
    assert SMALL.agreement is not None
    return dataclasses.replace(SMALL, agreement=dataclasses.replace(SMALL.agreement, **changes))


# Losses


def test_the_loss_is_the_sum_that_the_card_says() -> None:
    config = dataclasses.replace(
        SMALL,
        agreement=None,
        trunk=dataclasses.replace(SMALL.trunk, dropout=0.0),
        losses=LossConfig(label_smoothing=0.1, synopsis_weight=0.3, instance_weight=0.2),
    )
    method, batch = make_method(config), make_batch()
    found = method({"clips": batch}, at(0)).loss
    again = make_method(config)
    with torch.no_grad():
        output = again.network(again._video(batch), batch.seed_B)
    assert output.synopsis is not None

    def entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    expected = entropy(output.final.logits_BK, batch.label_B)
    expected = expected + 0.3 * entropy(output.synopsis.logits_BK, batch.label_B)
    for stream in (output.final, output.synopsis):
        instances_BKI = stream.instance_logits_BIK.transpose(1, 2)
        labels_BI = batch.label_B[:, None].expand(-1, instances_BKI.shape[2])
        expected = expected + 0.2 * entropy(instances_BKI, labels_BI)
    torch.testing.assert_close(found.detach(), expected)


def test_intensity_aware_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.0]])
    found = intensity_aware_loss(logits, torch.tensor([0, 1]))
    expected = [-math.log(math.e**2 / (math.e**2 + math.e)), math.log(2)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_key_targets_teach_the_keys_and_not_the_rule() -> None:
    centres = torch.tensor([[2.0, 9.0]], requires_grad=True)
    rule = torch.tensor([[4.0, 8.0]], requires_grad=True)
    loss = key_target_loss(centres, rule, num_frames=11)
    assert loss.tolist() == pytest.approx([0.6])
    loss.sum().backward()
    assert centres.grad is not None
    assert centres.grad.tolist() == [[pytest.approx(-0.2), pytest.approx(0.2)]]
    assert rule.grad is None


# What the ledger does to training


def test_nothing_is_done_before_the_start() -> None:
    method, batch = make_method(settings(cap=1.0)), make_batch()
    assert method.ledger is not None
    look = Look(batch.clip_ids[0], 0, 1.0, [0.0, 1.0, 0.0])
    method.ledger.update(0, [look], relabels=True)
    early, late = (method({"clips": batch}, at(epoch)) for epoch in (1, 2))
    assert float(early.logs["relabelled"]) == 0.0
    assert float(late.logs["relabelled"]) == pytest.approx(1 / 6)


def test_weights_reach_the_gradient() -> None:
    """A noisy clip of weight 0 is as good as not there."""
    config = settings(mitigate="reweight", noisy_weight=0.0)
    config = dataclasses.replace(config, trunk=dataclasses.replace(config.trunk, dropout=0.0))
    gradients = []
    for label in (0, 1):
        method, batch = make_method(config).eval(), make_batch()
        assert method.ledger is not None
        first = batch.clip_ids[0]
        batch.label_B[0] = label
        method.ledger.update(0, [Look(first, label, 1.0, [0.0, 0.0, 1.0])], relabels=True)
        method({"clips": batch}, at(2)).loss.backward()
        gradients.append({name: p.grad for name, p in method.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


# Looks, teacher, epochs


@pytest.mark.parametrize("looks", ["windows", "jitter"])
def test_a_still_clip_looks_the_same_every_time(looks: Any) -> None:
    config = settings(looks=looks, flips=False, measure="soft", judge="network")
    config = dataclasses.replace(config, num_frames=16)
    method, batch = make_method(config), make_batch(2, config=config)
    still_BTCHW = batch.video_BTCHW[:, :1].expand_as(batch.video_BTCHW)
    view = dataclasses.replace(batch.views[0], video_BTCHW=still_BTCHW)
    still = dataclasses.replace(batch, views=(view,))
    method.eval()
    assert config.agreement is not None
    with torch.no_grad():
        same = method.look(still, config.agreement)
        other = method.look(batch, config.agreement)
    assert same.shape == (2, 3, 3)
    torch.testing.assert_close(same, same[:, :1].expand_as(same), rtol=1e-5, atol=1e-6)
    assert (other - other[:, :1]).abs().max() > 1e-6


def test_the_teacher_follows_slowly_even_in_its_lstm() -> None:
    method = make_method()
    assert method.teacher is not None
    batch = make_batch(2)
    video = method._video(batch)
    method.eval()
    with torch.no_grad():
        before = method.teacher(video).final.logits_BK
        torch.testing.assert_close(before, method.network(video).final.logits_BK)
        for name, parameter in method.network.named_parameters():
            if "sequence" in name:
                parameter.add_(0.5)
        torch.testing.assert_close(method.teacher(video).final.logits_BK, before)
        for _ in range(300):
            method.after_step()
        after = method.teacher(video).final.logits_BK
        assert (after - before).abs().max() > 1e-4
        torch.testing.assert_close(after, method.network(video).final.logits_BK)
    assert all("teacher" not in name for name, _ in method.named_parameters())


def test_the_judge_is_who_is_asked() -> None:
    batch = make_batch(2)
    for judge, moves in (("teacher", False), ("network", True)):
        config = settings(judge=judge)
        method = make_method(config).eval()
        assert isinstance(method.teacher, EmaTeacher) == (judge == "teacher")
        assert config.agreement is not None
        with torch.no_grad():
            before = method.look(batch, config.agreement)
            method.network.detail.classifier.bias.add_(torch.tensor([1.0, 0.0, 0.0]))
            after = method.look(batch, config.agreement)
        assert torch.equal(before, after) != moves


def test_agreement_is_taken_when_due_and_until_memorisation() -> None:
    method, batch = make_method(settings(every_epochs=2, until=0.5, start=0.25)), make_batch()
    asked: list[StreamSpec] = []

    def scan(spec: StreamSpec) -> Iterable[ClipBatch]:
        asked.append(spec)
        return [batch]

    told = []
    for epoch in range(EPOCHS):
        method({"clips": batch}, at(epoch))
        notes = method.end_epoch(scan)
        assert notes is not None
        told.append(notes.logs)
    assert len(asked) == 1
    assert asked[0].views[0].sampling == "segments"
    assert asked[0].views[0].augmentation is None
    assert asked[0].labelled is True
    assert method.ledger is not None
    epochs = [entry.epoch for r in method.ledger.records.values() for entry in r.history]
    # Relabels that the cap held back still follow, from what was known.
    assert epochs.count(1) == 6
    verdicts = ("share_clean", "share_noisy", "share_hard", "share_unsure")
    assert sum(told[-1][key] for key in verdicts) == pytest.approx(1.0)


def test_prediction_never_sees_the_label() -> None:
    method, batch = make_method().eval(), make_batch()
    other = dataclasses.replace(batch, label_B=(batch.label_B + 1) % 3)
    with torch.no_grad():
        found = [method.predict(each) for each in (batch, other)]
        keys = [method.key_frames(each) for each in (batch, other)]
    assert torch.equal(found[0].logits_BK, found[1].logits_BK)
    assert torch.equal(keys[0], keys[1])


def test_without_resampling_there_are_no_key_frames() -> None:
    method = make_method(dataclasses.replace(SMALL, streams="synopsis")).eval()
    with pytest.raises(ValueError, match="use streams=both"):
        method.key_frames(make_batch(1))


# Stage and state


def test_the_teacher_is_not_shipped_and_a_package_finds_that_out() -> None:
    method, batch = make_method(), make_batch()
    method({"clips": batch}, at(3))
    method.end_epoch(lambda spec: [batch])
    during = set(method.state_dict())
    state = json.loads(json.dumps(method.json_state()))
    method.end_stage(lambda spec: [batch])
    after = set(method.state_dict())
    assert any(name.startswith("teacher.") for name in during)
    assert not any(name.startswith("teacher.") for name in after)
    shipped = json.loads(json.dumps(method.json_state()))
    for saved, names in ((state, during), (shipped, after)):
        again = Rdfer(SMALL, CLASSES)
        again.load_json_state(saved)
        again.begin_stage(0)
        assert set(again.state_dict()) == names
        assert again.json_state() == saved


def test_the_profiles_differ_where_they_say() -> None:
    for profile in ("paper", "robust"):
        with torch.device("meta"):
            method = Rdfer(getattr(RdferConfig, profile)(), CLASSES)
        stage = method.stage(0)
        assert stage is not None
        assert method.stage(1) is None
        assert bool(stage.no_decay) == (profile == "robust")
        assert method.pretrained_parts() == ("trunk",)
    assert Rdfer(RdferConfig.tiny(), CLASSES).pretrained_parts() == ()
    with pytest.raises(ValueError, match="takes no weights for 'nose'"):
        make_method().load_pretrained("nose", {})
    with pytest.raises(ValueError, match="at least two classes"):
        Rdfer(SMALL, ("happy",))


# Two workers


def train(rank: int, workers: int) -> dict[str, Any]:
    """A few steps and epochs of this worker's share; what it ends with."""
    method = make_method(settings(judge="teacher", start=0.25, cap_per_epoch=0.5))
    module: Any = method
    if workers > 1:
        module = DistributedDataParallel(method, forward_sync_buffers=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    batches = [make_batch(seed=seed) for seed in range(2)]
    for epoch in range(EPOCHS):
        method.train()
        for batch in batches:
            mine = batch.rows(rank * 6 // workers, (rank + 1) * 6 // workers)
            optimizer.zero_grad()
            module({"clips": mine}, at(epoch)).loss.backward()
            optimizer.step()
            method.after_step()
        # Shares of a plain pass may differ in size.
        shares = [batches, []] if workers == 2 else [batches]
        method.end_epoch(lambda spec: shares[rank])  # noqa: B023
    return {"tensors": method.state_dict(), "json": method.json_state()}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_end_where_one_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    alone = train(0, 1)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, tensor in alone["tensors"].items():
            torch.testing.assert_close(found["tensors"][name], tensor, rtol=1e-4, atol=1e-5)
        expected = alone["json"]["clips"]
        assert found["json"]["clips"].keys() == expected.keys()
        assert len(expected) == 12
        for clip_id, record in expected.items():
            other = found["json"]["clips"][clip_id]
            assert other["probabilities"] == pytest.approx(record["probabilities"], abs=1e-4)
            assert (other["verdict"], other["relabelled_to"]) == (
                record["verdict"],
                record["relabelled_to"],
            )
    assert any(r["relabelled_to"] is not None for r in alone["json"]["clips"].values())
