"""KER: positions in range, apart from each other, gradients where there shall be some."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mien_models.rdfer import keys
from mien_models.rdfer.config import KeyConfig, KeyRule

RULES: tuple[KeyRule, ...] = ("class_maxima", "max_probability")


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_frames=st.integers(1, 64),
    count=st.integers(1, 8),
    frames=st.integers(1, 8),
    stride=st.floats(0.5, 30.0),
    gap=st.floats(0.0, 20.0),
)
def test_positions_stay_in_the_clip_and_apart(
    seed: int, num_frames: int, count: int, frames: int, stride: float, gap: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    wild_BJ = torch.randn(3, count, generator=generator) * num_frames
    centres_BJ = keys.spread(wild_BJ, num_frames, gap)
    room = (num_frames - 1) / max(1, count - 1)
    assert ((centres_BJ >= -1e-4) & (centres_BJ <= num_frames - 1 + 1e-4)).all()
    assert (centres_BJ.diff(dim=1) >= min(gap, room) - 1e-4).all()
    positions = keys.frame_positions(centres_BJ, stride, frames, num_frames - 1)
    assert positions.shape == (3, count, frames)
    assert ((positions >= 0) & (positions <= num_frames - 1)).all()
    video = torch.arange(num_frames).expand(3, -1)[..., None, None, None].float()
    assert torch.isfinite(keys.sample_hard(video, positions)).all()


def test_frames_of_a_key_by_hand() -> None:
    positions = keys.frame_positions(torch.tensor([[8.0, 30.0]]), 2.0, 4, 31)
    assert positions.tolist() == [[[5.0, 7.0, 9.0, 11.0], [27.0, 29.0, 31.0, 31.0]]]


def test_keys_with_room_stay_where_they_are() -> None:
    assert keys.spread(torch.tensor([[9.0, 2.0]]), 16, 3.0).tolist() == [[2.0, 9.0]]
    assert keys.spread(torch.tensor([[5.0, 5.0]]), 16, 3.0).tolist() == [[5.0, 8.0]]
    assert keys.spread(torch.tensor([[15.0, 15.0]]), 16, 3.0).tolist() == [[12.0, 15.0]]


def test_hard_sampling_takes_the_nearest_frame_without_gradient() -> None:
    video = torch.randn(1, 8, 1, 1, 1)
    positions = torch.tensor([[[2.4, 5.6]]], requires_grad=True)
    sampled = keys.sample_hard(video, positions)
    assert torch.equal(sampled.flatten(), video[0, [2, 6]].flatten())
    assert not sampled.requires_grad


def test_soft_sampling_is_a_weighted_mean_with_gradient() -> None:
    video = torch.arange(8.0)[None, :, None, None, None].square()
    positions = torch.tensor([[[3.0, 4.5]]], requires_grad=True)
    sampled = keys.sample_gaussian(video, positions, sigma=0.5)
    weights = torch.exp(-2.0 * (torch.arange(8.0) - 4.5).square())
    expected = (weights * video.flatten()).sum() / weights.sum()
    torch.testing.assert_close(sampled.flatten()[1], expected)
    sampled.sum().backward()
    assert positions.grad is not None
    # The picture brightens with time, so later is brighter: about 2 t.
    assert (positions.grad > 1.0).all()
    # With a narrow kernel it is the nearest frame.
    narrow = keys.sample_gaussian(video, torch.tensor([[[3.0]]]), sigma=0.05)
    torch.testing.assert_close(narrow.flatten(), torch.tensor([9.0]))


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_finds_planted_moments(rule: KeyRule) -> None:
    probabilities = torch.full((1, 16, 7), 1 / 7)
    for instance, shown in ((3, 0), (9, 4), (13, 6)):
        probabilities[0, instance] = 0.02
        probabilities[0, instance, shown] = 0.88
    found = keys.pick_instances(probabilities, 3, rule, min_gap=2)
    assert found.tolist() == [[3, 9, 13]]


def test_rules_differ_where_one_class_rules_the_clip() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])[None]
    assert keys.pick_instances(probabilities, 2, "max_probability", 1).tolist() == [[0, 1]]
    assert keys.pick_instances(probabilities, 2, "class_maxima", 1).tolist() == [[0, 3]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    instances=st.integers(2, 16),
    classes=st.integers(2, 8),
    gap=st.integers(1, 6),
    rule=st.sampled_from(RULES),
    data=st.data(),
)
def test_no_instance_is_picked_twice(
    seed: int, instances: int, classes: int, gap: int, rule: KeyRule, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, instances))
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(4, instances, classes, generator=generator).softmax(dim=2)
    found = keys.pick_instances(probabilities, count, rule, gap)
    assert (found.diff(dim=1) > 0).all()
    assert found.min() >= 0
    assert found.max() < instances
    # However badly the first keys lie, each forbids 2 gap - 1 places.
    if count <= -(-instances // (2 * gap - 1)):
        assert (found.diff(dim=1) >= gap).all()


def test_synopsis_frames_are_even_and_jitter_stays_inside() -> None:
    even = keys.synopsis_positions(64, 16)
    assert even.tolist() == torch.linspace(0, 63, 16).long().tolist()
    jittered = keys.synopsis_positions(64, 16, torch.rand(50, 16))
    moved = jittered - even
    assert (moved >= 0).all()
    assert (moved < 3).all()
    assert moved.max() > 0
    assert (moved[:, -1] == 0).all()
    assert keys.synopsis_positions(4, 4, torch.rand(2, 4)).tolist() == [[0, 1, 2, 3]] * 2


def test_learned_keys_start_evenly_and_know_their_ends() -> None:
    torch.manual_seed(0)
    heads = keys.LearnedKeys(
        8, KeyConfig(placement="learned", kernel="gaussian", stride_frames=5.0), num_frames=64
    )
    centres, strides = heads(torch.zeros(1, 8))
    torch.testing.assert_close(centres, torch.tensor([[0.125, 0.375, 0.625, 0.875]]) * 63)
    assert isinstance(strides, torch.Tensor)
    centres, strides = heads(100 * torch.randn(20, 8))
    assert ((centres >= 0) & (centres <= 63)).all()
    assert ((strides >= 0) & (strides <= 5.0)).all()


def test_keys_without_any_gradient_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no gradient; use keys.kernel='gaussian'"):
        KeyConfig(placement="learned", kernel="hard")
    KeyConfig(placement="learned", kernel="hard", target_weight=0.1)
    with pytest.raises(ValueError, match=r"only keys.placement='learned'"):
        KeyConfig(placement="rule", target_weight=0.1)
