"""complex_fer's memory: budgets, selectors, order, what a forgotten person leaves."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.clips.forget.memories import without_clips
from mien_models.complex_fer.config import MemoryConfig, published_budget
from mien_models.complex_fer.memory import ReplayMemory
from mien_models.complex_fer.selection import SELECTORS, Candidates, capped, psmr_scores


def candidates(number=12, *, seed=0, subjects=None) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    return Candidates(
        clip_ids=tuple(f"clip{index:02d}" for index in range(number)),
        logits_NS=torch.randn(number, 4, generator=generator),
        features_ND=torch.randn(number, 5, generator=generator),
        subject_N=torch.arange(number) if subjects is None else torch.tensor(subjects),
        seed_N=torch.randint(2**62, (number,), generator=generator),
        class_index=2,
    )


def test_the_published_budget():
    assert published_budget(4347, 21) == (1304, 62)
    grow = MemoryConfig(budget="grow", per_class=62)
    assert [grow.clips_per_class(classes) for classes in (6, 7, 20)] == [62, 62, 62]


def test_the_corrected_limit_shrinks_from_the_first_classes_on():
    limit = MemoryConfig(budget="limit", total=1304)
    shares = [limit.clips_per_class(classes) for classes in range(6, 22)]
    published = [186, 163, 144, 130, 118, 108, 100, 93, 86, 81, 76, 72, 68, 65, 62]
    assert shares == [217, *published]


def test_predictive_sorting_on_logits_made_by_hand():
    logits = torch.tensor([[3.0, 2.9], [1.0, -4.0], [2.0, 0.0]])
    assert psmr_scores(logits, 0, "logit").argsort(descending=True).tolist() == [0, 2, 1]
    # Two large logits make a sure logit but an unsure probability.
    assert psmr_scores(logits, 0, "probability").argsort(descending=True).tolist() == [1, 2, 0]
    torch.testing.assert_close(
        psmr_scores(logits, 0, "margin"), torch.tensor([3.0 - 2.9, 5.0, 2.0])
    )


@pytest.mark.parametrize("selector", SELECTORS)
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), number=st.integers(1, 20))
def test_every_selector_orders_all_clips_and_scores_fall(selector, seed, number):
    order, scores = SELECTORS[selector](candidates(number, seed=seed))
    assert sorted(order.tolist()) == list(range(number))
    if selector != "herding":  # its scores are distances at the time of choosing
        assert (scores[order].diff() <= 0).all()


@pytest.mark.parametrize("selector", [*SELECTORS])
@pytest.mark.parametrize("cap", [None, 1, 2])
def test_a_smaller_budget_keeps_a_prefix(selector, cap):
    kept = {}
    for per_class in (2, 5, 9):
        config = MemoryConfig(per_class=per_class, selector=selector, subject_cap=cap)
        memory = ReplayMemory(config)
        memory.remember("joy", candidates(subjects=[0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6]), "basic")
        memory.cut(6)
        kept[per_class] = memory.clip_ids
    assert len(kept[9]) == 9
    assert kept[9][:5] == kept[5]
    assert kept[5][:2] == kept[2]


def test_herding_follows_the_mean():
    # On the circle at 0, 90 and 40 degrees: the mean points near 43 degrees.
    angles = torch.deg2rad(torch.tensor([0.0, 90.0, 40.0]))
    clips = candidates(3)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    clips = Candidates(
        clip_ids=clips.clip_ids,
        logits_NS=clips.logits_NS,
        features_ND=features,
        subject_N=clips.subject_N,
        seed_N=clips.seed_N,
        class_index=0,
    )
    order, _ = SELECTORS["herding"](clips)
    assert order[0] == 2
    closest, _ = SELECTORS["closest_to_mean"](clips)
    assert closest.tolist() == [2, 0, 1] or closest.tolist() == [2, 1, 0]
    # A scaled feature is the same face.
    clips = Candidates(
        **{
            **{name: getattr(clips, name) for name in Candidates.__dataclass_fields__},
            "features_ND": features * torch.tensor([[1.0], [50.0], [0.1]]),
        }
    )
    assert SELECTORS["herding"](clips)[0].tolist() == order.tolist()


def test_a_reservoir_gives_every_clip_the_same_chance():
    counts = torch.zeros(8)
    for seed in range(600):
        order, _ = SELECTORS["reservoir"](candidates(8, seed=seed))
        counts[order[:2]] += 1
    # 2 of 8 in 600 draws: 150 each, deviation 11.
    assert (counts - 150).abs().max() < 45


def test_the_cap_puts_more_of_one_person_last():
    assert capped([3, 0, 1, 2], subjects=[7, 7, -1, 7], cap=1) == [3, 2, 0, 1]


def test_exemplars_are_ids_with_where_they_come_from():
    memory = ReplayMemory(MemoryConfig(per_class=3, selector="psmr_logit"))
    clips = candidates()
    memory.remember("joy", clips, "basic")
    memory.cut(6)
    best = int(clips.logits_NS[:, 2].argmax())
    first = memory.exemplars[0]
    assert first.clip_id == clips.clip_ids[best]
    assert (first.class_name, first.stage, first.rank, first.subject) == ("joy", "basic", 0, best)
    assert first.score == pytest.approx(float(clips.logits_NS[best, 2]), abs=1e-5)
    again = ReplayMemory(memory.config)
    again.load_json(json.loads(json.dumps(memory.to_json())))
    assert again.exemplars == memory.exemplars


def test_a_forgotten_person_leaves_the_memory():
    """Classes hold equally many exemplars: no list may seem to be in step with another."""
    memory = ReplayMemory(MemoryConfig(per_class=4, selector="herding"))
    memory.remember("joy", candidates(4), "basic")
    memory.remember("fear", candidates(4, seed=1), "basic")
    state = {"memory": memory.to_json(), "reports": [{"stage": "basic"}], "is_complete": False}
    known = {f"clip{index:02d}" for index in range(12)}
    cleaned, removal = without_clips(state, {"clip01"}, known)
    assert (removal.removed, removal.unsafe) == (2, [])
    left = ReplayMemory(memory.config)
    left.load_json(cleaned["memory"])
    assert "clip01" not in left.clip_ids
    assert len(left) == 6


@pytest.mark.parametrize("field", ["per_class", "total", "batch_size", "subject_cap"])
def test_numbers_below_one_are_refused(field):
    with pytest.raises(ValueError, match=rf"{field}=0.*budget=none switches the memory off"):
        MemoryConfig(**{field: 0})
