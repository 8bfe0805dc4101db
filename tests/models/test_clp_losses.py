"""CLP's losses against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mien_models.clp.config import ReconstructionConfig, TemporalConfig, UnitConfig
from mien_models.clp.reconstruction import (
    attend,
    instance_loss,
    rebuild,
    reconstruction_loss,
    relative_entropy,
)
from mien_models.clp.temporal import (
    distinct_frames,
    margins,
    near_and_far,
    temporal_loss,
    usable_frames,
)
from mien_models.clp.units import (
    UnitCounts,
    intensity_loss,
    presence,
    presence_loss,
    unit_weights,
    weights_of,
)
from mien_models.contract import plain_batch

HINGE = TemporalConfig(form="hinge", margin=0.3, window=1)


def on_circle(*degrees: float) -> Tensor:
    """Unit vectors at these angles, [1, T, 2]."""
    angle = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], dim=1)[None]


def all_of(vectors_BTE: Tensor) -> tuple[Tensor, Tensor]:
    """Every frame usable, every pair distinct."""
    batch, frames = vectors_BTE.shape[:2]
    return torch.ones(batch, frames).bool(), torch.ones(batch, frames, frames).bool()


# Temporal contrast


def test_triplets_of_three_frames_by_hand() -> None:
    found = near_and_far(3, 1, torch.device("cpu")).nonzero().tolist()
    # (t, i, j): i at most one frame from t, j further than i.
    assert sorted(map(tuple, found)) == [
        (0, 0, 1), (0, 0, 2), (0, 1, 2),
        (1, 1, 0), (1, 1, 2),
        (2, 1, 0), (2, 2, 0), (2, 2, 1),
    ]  # fmt: skip


def test_the_margin_grows_with_how_much_further_the_far_frame_is() -> None:
    grown = margins(4, HINGE)
    assert grown[0, 0, 3].item() == pytest.approx(0.3 * 3 / 4)
    assert grown[0, 1, 3].item() == pytest.approx(0.3 * 2 / 4)
    assert grown[2, 2, 1].item() == pytest.approx(0.3 * 1 / 4)
    constant = margins(4, dataclasses.replace(HINGE, margin_grows=False))
    assert bool((constant == 0.3).all())


def test_hinge_is_zero_when_frames_are_in_order() -> None:
    ordered = on_circle(0, 40, 80)
    assert temporal_loss(ordered, ordered, *all_of(ordered), HINGE).item() == 0
    # Further from the middle frame than from the first: the order is broken.
    broken = on_circle(0, 80, 40)
    assert temporal_loss(broken, broken, *all_of(broken), HINGE).item() > 0


def test_hinge_by_hand() -> None:
    z = on_circle(0, 10, 30)
    cos = {(a, b): math.cos(math.radians(abs(x - y))) for a, x in enumerate((0, 10, 30))
           for b, y in enumerate((0, 10, 30))}  # fmt: skip
    triplets = [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 1, 0), (1, 1, 2), (2, 1, 0), (2, 2, 0),
                (2, 2, 1)]  # fmt: skip
    expected = 0.0
    for t, i, j in triplets:
        margin = 0.3 * (abs(t - j) - abs(t - i)) / 3
        expected += max(0.0, margin - cos[t, i] + cos[t, j])
    found = temporal_loss(z, z, *all_of(z), HINGE)
    assert found.item() == pytest.approx(expected / 8, abs=1e-6)


def test_infonce_by_hand() -> None:
    config = TemporalConfig(
        form="infonce", margin=0.2, margin_grows=False, window=0, temperature=0.5
    )
    z, k = on_circle(0, 60), on_circle(20, 90)
    lost = []
    for t, own, rival in ((0, 20, 90), (60, 90, 20)):
        own = (math.cos(math.radians(abs(t - own))) - 0.2) / 0.5
        rival = math.cos(math.radians(abs(t - rival))) / 0.5
        lost.append(-math.log(math.exp(own) / (math.exp(own) + math.exp(rival))))
    found = temporal_loss(z, k, *all_of(z), config)
    assert found.item() == pytest.approx(sum(lost) / 2, abs=1e-6)


@pytest.mark.parametrize("form", ["hinge", "infonce"])
def test_frames_without_a_face_change_nothing(form: str) -> None:
    config = dataclasses.replace(HINGE, form=form)
    z = on_circle(0, 50, 20, 90).requires_grad_()
    usable, distinct = all_of(z)
    usable[0, 3] = False
    moved = z.detach().clone()
    moved[0, 3] = moved[0, 0]
    lost = temporal_loss(z, z.detach(), usable, distinct, config)
    assert lost.item() == pytest.approx(
        temporal_loss(moved, moved, usable, distinct, config).item(), abs=1e-6
    )
    lost.sum().backward()
    assert z.grad is not None
    assert bool((z.grad[0, 3] == 0).all())
    assert bool(z.grad.any())


def test_static_clips_teach_no_order() -> None:
    video = torch.randint(0, 256, (1, 1, 3, 32, 32), dtype=torch.uint8).expand(2, 4, 3, 32, 32)
    video = video.clone()
    video[1, 2:] = 255 - video[1, 2:]
    distinct = distinct_frames(video, 1.0)
    assert not distinct[0].any()
    assert distinct[1, :2, 2:].all()
    assert not distinct[1, :2, :2].any()
    assert distinct_frames(video, 0.0).all()
    z = F.normalize(torch.ones(2, 4, 8), dim=2)  # all alike: what is lost is the margin
    lost = temporal_loss(z, z, torch.ones(2, 4).bool(), distinct, HINGE)
    assert lost[0] == 0
    assert lost[1] > 0


def test_repeated_frames_of_short_clips_are_not_used() -> None:
    view = plain_batch(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8)).views[0]
    times = torch.tensor([[0.0, 0.1, 0.1, 0.1]])
    face = torch.tensor([[True, True, True, True]])
    view = dataclasses.replace(view, frame_times_BT=times, has_face_BT=face)
    assert usable_frames(view).tolist() == [[True, True, False, False]]


# Cross-identity reconstruction


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([None, 1, 3, 100]))
def test_attention_to_oneself_is_exactly_zero(seed: int, top_k: int | None) -> None:
    random = torch.Generator().manual_seed(seed)
    query = F.normalize(torch.randn(5, 8, generator=random), dim=1)
    keys = F.normalize(torch.randn(12, 8, generator=random), dim=1)
    allowed = torch.rand(5, 12, generator=random) < 0.6
    allowed[0] = False
    # A key that equals the query, of the same person, is the greatest temptation.
    keys[3], allowed[1, 3] = query[1], False
    attention = attend(query, keys, allowed, temperature=0.05, top_k=top_k)
    assert bool((attention[~allowed] == 0).all())
    sums = attention.sum(dim=1)
    assert torch.allclose(sums, allowed.any(dim=1).float())
    assert bool(((attention > 0).sum(dim=1) <= (top_k or 12)).all())
    assert bool(torch.isfinite(rebuild(attention, keys)).all())


def test_a_dominant_key_is_reproduced() -> None:
    keys = torch.eye(4)
    query = F.normalize(torch.tensor([[0.1, 1.0, 0.1, 0.0]]), dim=1)
    allowed = torch.tensor([[True, True, True, True]])
    rebuilt = rebuild(attend(query, keys, allowed, temperature=0.01), keys)
    assert torch.allclose(rebuilt, keys[1:2], atol=1e-6)


def test_attention_by_hand() -> None:
    query, keys = on_circle(0)[0], on_circle(30, 60, 90)[0]
    allowed = torch.tensor([[True, False, True]])
    attention = attend(query, keys, allowed, temperature=0.5)
    weights = [math.exp(math.cos(math.radians(30)) / 0.5), math.exp(0.0)]
    expected = [weights[0] / sum(weights), 0.0, weights[1] / sum(weights)]
    assert attention[0].tolist() == pytest.approx(expected, abs=1e-6)
    entropy = -sum(p * math.log(p) for p in expected if p) / math.log(2)
    assert relative_entropy(attention, allowed, None).item() == pytest.approx(entropy, abs=1e-6)


def test_entropy_of_even_attention_is_one() -> None:
    allowed = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    even = allowed / allowed.sum(dim=1, keepdim=True)
    assert relative_entropy(even, allowed, None).tolist() == pytest.approx([1.0, 1.0])
    of_three = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0, 0, 0]])
    assert relative_entropy(of_three, allowed[:1], 3).item() == pytest.approx(1.0)


def test_cycle_and_l2_by_hand() -> None:
    rebuilt, keys = on_circle(10, 20), on_circle(0, 90)
    usable = torch.tensor([[True, True]])

    def crossed(angle: float, own: float, other: float) -> float:
        own, other = (math.cos(math.radians(angle - x)) / 0.2 for x in (own, other))
        return -math.log(math.exp(own) / (math.exp(own) + math.exp(other)))

    expected = (crossed(10, 0, 90) + crossed(20, 90, 0)) / 2
    cycle = ReconstructionConfig(form="cycle", temperature=0.2)
    found = reconstruction_loss(rebuilt, keys, usable, cycle)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    l2 = ReconstructionConfig(form="l2")
    expected = sum(2 - 2 * math.cos(math.radians(angle)) for angle in (10, 70)) / 2
    assert reconstruction_loss(rebuilt, keys, usable, l2).item() == pytest.approx(
        expected, abs=1e-5
    )
    one = torch.tensor([[True, False]])
    # Alone in its clip a frame can't be taken for another one.
    assert reconstruction_loss(rebuilt, keys, one, cycle).item() == pytest.approx(0.0, abs=1e-6)
    assert reconstruction_loss(rebuilt, keys, ~one & one, cycle).item() == 0


def test_the_gradient_reaches_the_query_through_the_attention() -> None:
    query = F.normalize(torch.randn(1, 3, 6), dim=2).requires_grad_()
    keys = F.normalize(torch.randn(9, 6), dim=1)
    attention = attend(query[0], keys, torch.ones(3, 9).bool(), temperature=0.1, top_k=4)
    own = F.normalize(torch.randn(1, 3, 6), dim=2)
    rebuilt = rebuild(attention, keys)[None]
    config = ReconstructionConfig()
    reconstruction_loss(rebuilt, own, torch.ones(1, 3).bool(), config).sum().backward()
    assert query.grad is not None
    assert bool((query.grad.abs().sum(dim=2) > 0).all())


def test_instance_loss_by_hand() -> None:
    query, key = on_circle(0), on_circle(30)
    others, filled = on_circle(60, 0)[0], torch.tensor([True, False])
    own, other = (math.cos(math.radians(x)) / 0.5 for x in (30, 60))
    expected = -math.log(math.exp(own) / (math.exp(own) + math.exp(other)))
    usable = torch.tensor([[True]])
    found = instance_loss(query, key, usable, others, filled, temperature=0.5)
    assert found.item() == pytest.approx(expected, abs=1e-6)


# Action units


def test_presence_keeps_what_is_missing() -> None:
    intensity = torch.tensor([[[0.0, 1.9, 2.0, 5.0, torch.nan]]])
    found = presence(intensity, 2.0)[0, 0]
    assert found[:4].tolist() == [0, 0, 1, 1]
    assert found[4].isnan()


def test_presence_loss_by_hand_and_without_missing_labels() -> None:
    logits = torch.tensor([[[0.5, -1.0], [2.0, 0.3]], [[1.0, 1.0], [1.0, 1.0]]])
    present = torch.tensor([[[1.0, 0.0], [torch.nan, 1.0]], [[torch.nan] * 2] * 2])
    weight, present_weight = torch.tensor([0.5, 1.5]), torch.tensor([1.0, 3.0])

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    expected = (0.5 * softplus(-0.5) + 1.5 * softplus(-1.0) + 1.5 * 3.0 * softplus(-0.3)) / 3
    found = presence_loss(logits, present, weight, present_weight)
    assert found.tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    logits.requires_grad_()
    presence_loss(logits, present, weight, present_weight).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1, 0] == 0
    assert not logits.grad[1].any()


def test_intensity_loss_by_hand() -> None:
    found = torch.tensor([[[1.0, 4.0]]])
    wanted = torch.tensor([[[3.0, torch.nan]]])
    assert intensity_loss(found, wanted).item() == pytest.approx((2 / 5) ** 2)


def test_weights_of_units_by_hand() -> None:
    rate = torch.tensor([0.5, 0.1, 0.25])
    found = unit_weights(rate)
    assert found.tolist() == pytest.approx([3 * 2 / 16, 3 * 10 / 16, 3 * 4 / 16])
    weight, present_weight = weights_of(rate, UnitConfig(max_present_weight=4.0))
    assert weight.tolist() == found.tolist()
    assert present_weight.tolist() == pytest.approx([1.0, 4.0, 3.0])
    plain = UnitConfig(rare_units_weigh_more=False)
    weight, present_weight = weights_of(rate, plain)
    assert weight.tolist() == present_weight.tolist() == [1.0, 1.0, 1.0]


def test_units_are_counted_where_they_are_coded() -> None:
    counts = UnitCounts(3)
    counts.add(torch.tensor([[[1.0, torch.nan, 0.0], [1.0, torch.nan, 0.0]]]))
    counts.add(torch.tensor([[[0.0, torch.nan, 0.0]]]))
    assert counts.rate_U.tolist() == pytest.approx([3 / 5, 1 / 2, 1 / 5])
