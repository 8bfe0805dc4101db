"""DSHN: shapes, switches, what reaches what; time shift and LSTM against references."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mien_models.layers.pretrained import WeightsMismatchError, load_trunk
from mien_models.rdfer.config import KeyConfig, LongTermConfig, RdferConfig, TrunkConfig
from mien_models.rdfer.model import RdferNetwork
from mien_models.rdfer.streams import AttentionGate, TwoWayLstm, clip_dropout
from mien_models.rdfer.trunks import build_trunk, shift_in_time

SMALL = dataclasses.replace(
    RdferConfig.tiny(),
    motion_gain=None,
    trunk=TrunkConfig(name="conv", widths=(4, 6), width=8, dropout=0.0, project_std=None),
    long_term=LongTermConfig(layers=2, hidden=4, num_heads=2),
)


def with_keys(**changes: Any) -> RdferConfig:
    return dataclasses.replace(SMALL, keys=dataclasses.replace(SMALL.keys, **changes))


LEARNED = with_keys(placement="learned", kernel="gaussian", target_weight=0.1)
GUIDED = with_keys(placement="learned", kernel="hard", target_weight=0.1)
UNIFORM = with_keys(placement="uniform")
VARIANTS = {
    "rule": SMALL,
    "max_probability": with_keys(rule="max_probability"),
    "learned": LEARNED,
    "guided": GUIDED,
    "uniform": UNIFORM,
    "synopsis": dataclasses.replace(SMALL, streams="synopsis"),
    "detail": dataclasses.replace(UNIFORM, streams="detail"),
    "same_input": dataclasses.replace(SMALL, streams="same_input"),
    "no channel gate": dataclasses.replace(SMALL, channel_gate=False),
    "no long-term change": dataclasses.replace(
        SMALL, long_term=LongTermConfig(layers=0, hidden=4, num_heads=0)
    ),
    "no short-term movement": dataclasses.replace(
        SMALL, trunk=dataclasses.replace(SMALL.trunk, shift_share=0.0)
    ),
}


def network(config: RdferConfig = SMALL) -> RdferNetwork:
    torch.manual_seed(0)
    return RdferNetwork(config, 5).eval()


def video(size: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, SMALL.num_frames, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name: str, size: int) -> None:
    config = VARIANTS[name]
    output = network(config)(video(size))
    streams = [output.final] + ([output.synopsis] if output.synopsis is not None else [])
    for stream in streams:
        assert stream.logits_BK.shape == (size, 5)
        assert stream.clip_BL.shape == (size, 8)
    instances = 8 if name == "synopsis" else 4
    assert output.final.instance_logits_BIK.shape == (size, instances, 5)
    assert (output.synopsis is None) == (name in ("synopsis", "detail"))
    assert (output.moments is None) == (name in ("synopsis", "same_input"))
    if output.moments is not None:
        positions = output.moments.positions_BJU
        assert positions.shape == (size, 4, 2)
        assert ((positions >= 0) & (positions <= 15)).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_gets_a_gradient(name: str) -> None:
    net = network(VARIANTS[name]).train()
    output = net(video(3), torch.arange(3))
    loss = output.final.logits_BK.square().mean() + output.final.instance_logits_BIK.mean()
    if output.synopsis is not None:
        loss = loss + output.synopsis.logits_BK.square().mean()
        loss = loss + output.synopsis.instance_logits_BIK.mean()
    if output.moments is not None and output.moments.rule_centres_BJ is not None:
        assert not output.moments.rule_centres_BJ.requires_grad
        loss = loss + (output.moments.centres_BJ - output.moments.rule_centres_BJ).abs().mean()
    loss.backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


def test_only_the_soft_sampler_teaches_where_to_look() -> None:
    """Gradients of the prediction alone, without key targets."""
    for config, learns in ((LEARNED, True), (GUIDED, False)):
        net = network(config)
        net(video(3)).final.logits_BK.square().sum().backward()
        assert net.learned_keys is not None
        gradient = net.learned_keys.centre.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == learns


def test_published_shapes() -> None:
    """Section 1.2.2 of the facts: 16 synopsis frames, 4 x 4 key frames, 512 and 1024 features."""
    with torch.device("meta"):
        net = RdferNetwork(RdferConfig.paper(), 7)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    for stream, instances in (("synopsis", 16), ("detail", 4)):
        assert shapes[f"{stream}.short_term.project.weight"] == (512, 2048)
        assert shapes[f"{stream}.long_term.sequence.weight_hh_l1_reverse"] == (2048, 512)
        assert shapes[f"{stream}.long_term.gate.query_key_value.weight"] == (3072, 1024)
        assert shapes[f"{stream}.unite.weight"] == (1, instances, 3)
        assert shapes[f"{stream}.classifier.weight"] == (7, 1024)
    assert shapes["channel_gate.weight"] == (1024, 1024)


def test_resnet_runs_with_one_clip() -> None:
    config = dataclasses.replace(
        SMALL, trunk=TrunkConfig(name="resnet18", width=8, dropout=0.5), num_frames=8
    )
    config = dataclasses.replace(config, synopsis_frames=4)
    torch.manual_seed(0)
    net = RdferNetwork(config, 5)
    output = net(torch.randn(1, 8, 3, 32, 32), torch.tensor([3]))
    assert output.final.logits_BK.shape == (1, 5)


# Prediction is a function of the clip


def test_prediction_is_deterministic_and_training_is_not() -> None:
    net = network()
    first, second = net(video()).final.logits_BK, net(video()).final.logits_BK
    assert torch.equal(first, second)
    together, alone = net(video(4)).final.logits_BK, net(video(4)[:1]).final.logits_BK
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-6)
    long = dataclasses.replace(SMALL, synopsis_frames=4)
    net = network(long).train()
    moved = [net(video(), torch.tensor([seed, 7])).synopsis.clip_BL for seed in (1, 2)]
    assert not torch.equal(moved[0][0], moved[1][0])


def test_rule_keys_follow_the_synopsis() -> None:
    """A moment planted into the instances' scores is where the detail stream looks."""
    net = network()
    assert net.synopsis is not None
    strange = video(1).clone() * 0.01
    strange[:, 10] += 3.0
    with torch.no_grad():
        before = net(strange)
        assert before.synopsis is not None
        moment = int(before.synopsis.instance_logits_BIK.softmax(-1).amax(-1).argmax())
        positions = before.moments.positions_BJU
    frame = torch.linspace(0, 15, 8).long()[moment]
    assert (positions - frame).abs().min() <= 0.5


def test_the_detail_stream_sees_its_keys_alone() -> None:
    net = network(dataclasses.replace(UNIFORM, streams="detail"))
    base = video(1)
    output = net(base)
    seen = set(output.moments.positions_BJU.round().long().flatten().tolist())
    for frame in range(SMALL.num_frames):
        changed = base.clone()
        changed[:, frame] += 1.0
        same = torch.equal(net(changed).final.logits_BK, output.final.logits_BK)
        assert same == (frame not in seen)


def test_the_channel_gate_carries_the_synopsis_into_the_detail() -> None:
    for gated in (True, False):
        net = network(dataclasses.replace(UNIFORM, channel_gate=gated))
        base = video(1)
        seen = net(base).moments.positions_BJU.round().long().flatten().tolist()
        synopsis = torch.linspace(0, 15, 8).long().tolist()
        only_synopsis = next(frame for frame in synopsis if frame not in seen)
        changed = base.clone()
        changed[:, only_synopsis] += 1.0
        same = torch.equal(net(changed).final.logits_BK, net(base).final.logits_BK)
        assert same != gated


# Parts against references


def test_shift_in_time_by_hand() -> None:
    maps = torch.arange(1.0, 9.0)[:, None, None, None].expand(-1, 8, 1, 1)
    shifted = shift_in_time(maps, 4, 0.125)[:, :, 0, 0]
    assert shifted[:, 0].tolist() == [2, 3, 4, 0, 6, 7, 8, 0]
    assert shifted[:, 1].tolist() == [0, 1, 2, 3, 0, 5, 6, 7]
    assert shifted[:, 2:].equal(maps[:, 2:, 0, 0])


def test_shift_sits_in_every_residual_branch() -> None:
    config = TrunkConfig(name="resnet18")
    trunk = build_trunk(config, 3, segment=2).eval()
    for name, weight in trunk.named_parameters():
        if name.endswith("bn2.weight"):  # timm starts residual branches at zero
            torch.nn.init.ones_(weight)
    pair = torch.randn(2, 3, 32, 32)
    alone = build_trunk(dataclasses.replace(config, shift_share=0.0), 3, segment=2).eval()
    alone.load_state_dict(trunk.state_dict())
    changed = pair.clone()
    changed[1] += 1.0
    for net, sees_neighbour in ((trunk, True), (alone, False)):
        same = torch.equal(net.forward_features(pair)[0], net.forward_features(changed)[0])
        assert same != sees_neighbour
    hooks = [len(block.conv1._forward_pre_hooks) for block in trunk.layer1]
    assert hooks == [1, 1]


def test_lstm_is_torchs() -> None:
    torch.manual_seed(0)
    ours = TwoWayLstm(5, LongTermConfig(layers=2, hidden=4, num_heads=0))
    theirs = torch.nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
    theirs.load_state_dict(ours.state_dict())
    sequence = torch.randn(3, 6, 5)
    assert torch.equal(ours(sequence), theirs(sequence)[0])


def test_attention_gate_is_torchs_attention() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(8, 2)
    reference = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(gate.query_key_value.weight)
        reference.out_proj.weight.copy_(torch.eye(8))
    sequence = torch.randn(3, 6, 8)
    mixed = reference(sequence, sequence, sequence, need_weights=False)[0]
    expected = sequence * torch.sigmoid(gate.norm(mixed))
    torch.testing.assert_close(gate(sequence), expected)


def test_dropout_belongs_to_the_clip() -> None:
    features = torch.ones(3, 4, 50)
    seeds = torch.tensor([5, 6, 7])
    dropped = clip_dropout(features, 0.8, seeds, 1)
    assert torch.equal(clip_dropout(features[1:2], 0.8, seeds[1:2], 1), dropped[1:2])
    assert not torch.equal(dropped[0], dropped[1])
    assert dropped.unique().tolist() == pytest.approx([0.0, 5.0])
    assert float((dropped > 0).float().mean()) == pytest.approx(0.2, abs=0.06)


# Trunks by name


def test_unknown_trunks_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"no network of timm; try .*resnet"):
        build_trunk(TrunkConfig(name="resnet5o"), 3, segment=4)
    with pytest.raises(ValueError, match="use a plain residual network"):
        build_trunk(TrunkConfig(name="mobilenetv3_small_050"), 3, segment=4)


def test_published_weights_go_into_a_trunk_without_their_classifier() -> None:
    torch.manual_seed(1)
    config = TrunkConfig(name="resnet18")
    source, target = build_trunk(config, 3, 4), build_trunk(config, 3, 4)
    published = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    load_trunk(target, {**published, "fc.weight": torch.zeros(1000, 512)}, "resnet18")
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    published.pop("layer1.0.conv1.weight")
    with pytest.raises(WeightsMismatchError, match=r"missing: layer1.0.conv1.weight"):
        load_trunk(target, published, "resnet18")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"synopsis_frames": 20}, "synopsis_frames=20 must lie between 1 and num_frames=16"),
        ({"streams": "detail"}, "add keys.placement=uniform"),
        ({"keys": KeyConfig(count=9, frames=2)}, "keys.count=9 keys can't be picked"),
        ({"keys": KeyConfig(count=2, frames=3)}, "must be a multiple of keys.frames=3"),
        ({"border_px": 32}, "leaves nothing of 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
