"""Six threshold rules of DTM against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mien_models.dtm.config import Rule, ThresholdConfig
from mien_models.dtm.thresholds import (
    LabelledConfidence,
    ThresholdRule,
    dtm_threshold,
    labelled_confidence,
    make_rule,
)

RULES: tuple[Rule, ...] = ("dtm", "ada_cm", "fixmatch", "flexmatch", "freematch", "softmatch")
OPEN = {"floor": 0.0, "start": 0.5}


def confidence(total: list[float], count: list[float]) -> LabelledConfidence:
    return LabelledConfidence(
        total_K=torch.tensor(total, dtype=torch.float64),
        count_K=torch.tensor(count, dtype=torch.float64),
    )


def rule(name: Rule, classes: int = 3, **settings: object) -> ThresholdRule:
    return make_rule(dataclasses.replace(ThresholdConfig(rule=name), **settings), classes)


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.float(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


# Labelled confidence


def test_only_correct_labelled_clips_count() -> None:
    probability = torch.tensor(
        [[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.98, 0.01, 0.01]]
    )
    found = labelled_confidence(probability, torch.tensor([0, 0, 1, 2, -1]))
    close(found.total_K, [1.6, 0.8, 0.0])
    close(found.count_K, [2.0, 1.0, 0.0])
    close(found.mean_K, [0.8, 0.8, 0.0])
    assert found.known_K.tolist() == [True, True, False]


# DTM


def test_dtm_formula() -> None:
    found = dtm_threshold(
        torch.tensor([0.9, 0.4, 1.0]),
        2,
        beta=0.97,
        gamma=math.e,
        floor_K=torch.tensor([0.0, 0.5, 0.0]),
        ceiling=0.8,
    )
    # 0.97 * 0.9 / (1 + e^-2) = 0.873 / 1.135335; 0.388 / 1.135 is below its floor; 0.97 / 1.135335
    # = 0.854 is above the ceiling.
    close(found, [0.768936, 0.5, 0.8])


@pytest.mark.parametrize(("epoch", "expected"), [(1, 0.709125), (2, 0.854371), (3, 0.923996)])
def test_dtm_threshold_rises_over_the_epochs(epoch: int, expected: float) -> None:
    found = dtm_threshold(
        torch.ones(1), epoch, beta=0.97, gamma=math.e, floor_K=torch.zeros(1), ceiling=1.0
    )
    close(found, [expected])


def test_without_gamma_the_schedule_is_flat() -> None:
    settings = {"beta": 0.9, "gamma": None, "floor_K": torch.zeros(1), "ceiling": 1.0}
    close(dtm_threshold(torch.tensor([0.8]), 1, **settings), [0.72])
    close(dtm_threshold(torch.tensor([0.8]), 9, **settings), [0.72])


def test_dtm_from_an_epoch_pass() -> None:
    moving = rule("dtm", **OPEN, evidence="epoch", gamma=None)
    assert moving.needs_epoch_pass
    moving.observe_labelled(confidence([9.0, 9.0, 9.0], [10, 10, 10]), 1)
    close(moving.thresholds_K, [0.5, 0.5, 0.5])
    moving.end_epoch(confidence([1.6, 0.0, 0.9], [2, 0, 1]), 1)
    # 0.97 * 0.8; nothing correct: as before; 0.97 * 0.9.
    close(moving.thresholds_K, [0.776, 0.5, 0.873])


def test_dtm_from_running_confidence() -> None:
    moving = rule("dtm", **OPEN, evidence="running", rho=0.9, gamma=None)
    assert not moving.needs_epoch_pass
    moving.observe_labelled(confidence([0.9, 0.0, 1.2], [1, 0, 2]), 1)
    # 0.9 * 0.5 + 0.1 * 0.9 = 0.54; kept; 0.9 * 0.5 + 0.1 * 0.6 = 0.51; all times 0.97.
    close(moving.thresholds_K, [0.5238, 0.5, 0.4947])
    moving.observe_labelled(confidence([0.0, 0.7, 0.0], [0, 1, 0]), 1)
    close(moving.thresholds_K, [0.5238, 0.97 * 0.52, 0.4947])


@pytest.mark.parametrize("evidence", ["epoch", "running"])
def test_a_class_with_nothing_correct_keeps_its_threshold(evidence: str) -> None:
    moving = rule("dtm", **OPEN, evidence=evidence)
    known = confidence([1.8, 0.9, 0.9], [2, 1, 1])
    for epoch in (1, 2):
        moving.observe_labelled(known, epoch)
        moving.end_epoch(known if moving.needs_epoch_pass else None, epoch)
    before = moving.thresholds_K.clone()
    without = confidence([1.0, 0.0, 0.95], [2, 0, 1])
    # A later epoch alone would move the threshold of class 1 as well.
    moving.observe_labelled(without, 5)
    moving.end_epoch(without if moving.needs_epoch_pass else None, 5)
    assert moving.thresholds_K[1] == before[1]
    assert (moving.thresholds_K != before).tolist() == [True, False, True]


def test_class_floors() -> None:
    moving = rule("dtm", class_floors=(0.4, 0.6, 0.8), evidence="epoch", gamma=None)
    moving.end_epoch(confidence([0.5, 0.5, 0.5], [1, 1, 1]), 1)
    close(moving.thresholds_K, [0.485, 0.6, 0.8])
    with pytest.raises(ValueError, match="2 floors for 3 classes"):
        rule("dtm", class_floors=(0.4, 0.6))


def test_ada_cm_has_its_own_constants() -> None:
    ada = rule("ada_cm", beta=0.5, floor=0.0, gamma=None, start=0.1, ceiling=0.6)
    close(ada.thresholds_K, [0.8, 0.8, 0.8])
    ada.end_epoch(confidence([1.0, 0.99, 0.5], [1, 1, 1]), 4)
    # 0.97 / (1 + e^-4) = 0.952553; 0.99 times that; 0.476 is below the floor.
    close(ada.thresholds_K, [0.952553, 0.943028, 0.8])


# The others


def test_fixmatch() -> None:
    verdict = rule("fixmatch").judge(
        torch.tensor([[0.95, 0.05, 0.0], [0.06, 0.94, 0.0]]), ("a", "b")
    )
    assert verdict.accepted_U.tolist() == [True, False]
    assert verdict.class_U.tolist() == [0, 1]
    close(verdict.weight_U, [1.0, 0.0])


def test_flexmatch() -> None:
    flex = rule("flexmatch", tau=0.9)
    sure = torch.tensor([[0.95, 0.05, 0.0], [0.0, 0.92, 0.08], [1.0, 0.0, 0.0], [0.5, 0.4, 0.1]])
    verdict = flex.judge(sure, ("a", "b", "c", "d"))
    assert verdict.accepted_U.all()  # nothing is learnt yet: every threshold is 0
    # sigma = (2, 1, 0), one unused, the most is 2: beta = (1, 1/2, 0), T = 0.9 * beta / (2 - beta).
    close(flex.thresholds_K, [0.9, 0.3, 0.0])
    verdict = flex.judge(torch.tensor([[0.05, 0.95, 0.0], [0.85, 0.1, 0.05]]), ("a", "d"))
    assert verdict.accepted_U.tolist() == [True, False]
    # a changed its mind, d stays unused: sigma = (1, 2, 0).
    close(flex.thresholds_K, [0.3, 0.9, 0.0])


def test_flexmatch_warms_up_by_unused_clips() -> None:
    flex = rule("flexmatch", tau=0.9)
    flex.judge(torch.tensor([[0.95, 0.05]] + [[0.6, 0.4]] * 4), ("a", "b", "c", "d", "e"))
    # sigma = (1, 0), four unused: beta = 1/4, T = 0.9 * 0.25 / 1.75.
    close(flex.thresholds_K[:1], [0.128571])


def test_flexmatch_remembers_clips_in_json() -> None:
    first, second = rule("flexmatch", tau=0.9), rule("flexmatch", tau=0.9)
    first.judge(torch.tensor([[0.95, 0.05, 0.0], [0.5, 0.4, 0.1]]), ("a", "b"))
    second.load_json_state(first.json_state())
    second.load_state_dict(first.state_dict())
    again = torch.tensor([[0.0, 0.95, 0.05]])
    for flex in (first, second):
        flex.judge(again, ("a",))
    assert first.json_state() == second.json_state() == {"last": {"a": 1, "b": -1}}
    assert torch.equal(first.thresholds_K, second.thresholds_K)


def test_freematch() -> None:
    free = rule("freematch", classes=2, momentum=0.9)
    free.judge(torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.8, 0.2]]), tuple("abcd"))
    # tau = 0.9 * 0.5 + 0.1 * 0.8 = 0.53; share = 0.45 + 0.1 * (0.7, 0.3) = (0.52, 0.48);
    # histogram = 0.45 + 0.1 * (3/4, 1/4).
    close(free.thresholds_K, [0.53, 0.53 * 0.48 / 0.52])
    close(free.histogram_K, [0.525, 0.475])


def test_freematch_ceiling() -> None:
    free = rule("freematch", classes=2, momentum=0.0, free_ceiling=0.95)
    free.judge(torch.tensor([[0.99, 0.01], [0.99, 0.01]]), ("a", "b"))
    close(free.thresholds_K, [0.95, 0.99 * 0.01 / 0.99])


def test_softmatch() -> None:
    soft = rule("softmatch", classes=2, momentum=0.9, soft_width=2.0)
    verdict = soft.judge(torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45]]), ("a", "b", "c"))
    # mean(q) = 0.683333, var(q) = 0.0358333 (unbiased): mu = 0.45 + 0.0683333 = 0.5183333,
    # var = 0.9 * 1 + 0.00358333 = 0.9035833. All are above mu.
    close(soft.thresholds_K, [0.5183333, 0.5183333])
    close(soft.variance[None], [0.9035833])
    close(verdict.weight_U, [1.0, 1.0, 1.0])


def test_softmatch_weighs_what_is_below_the_mean() -> None:
    soft = rule("softmatch", classes=2, momentum=1.0, soft_width=2.0)
    soft.thresholds_K.fill_(0.9)
    soft.variance.fill_(0.01)
    verdict = soft.judge(torch.tensor([[0.8, 0.2], [0.95, 0.05], [0.4, 0.6]]), ("a", "b", "c"))
    # exp(-0.1^2 / (2 * 0.01 / 4)) = exp(-2); 1; exp(-0.3^2 / 0.005) = exp(-18).
    close(verdict.weight_U, [math.exp(-2.0), 1.0, math.exp(-18.0)])
    assert verdict.accepted_U.tolist() == [False, True, False]


# All


@given(
    name=st.sampled_from(RULES),
    low=st.floats(0.34, 0.99),
    high=st.floats(0.34, 0.99),
    best=st.integers(0, 2),
)
def test_weights_do_not_fall_as_the_probability_rises(
    name: Rule, low: float, high: float, best: int
) -> None:
    low, high = sorted((low, high))
    judge = rule(name)
    other = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.97, 0.02], [0.3, 0.2, 0.5]])
    judge.observe_labelled(confidence([0.7, 1.8, 0.5], [1, 2, 1]), 2)
    judge.judge(other, ("x", "y", "z"))
    rows = torch.full((2, 3), 0.0)
    for row, top in zip(rows, (low, high), strict=True):
        row += (1 - top) / 2
        row[best] = top
    verdict = judge.judge(rows, ("a", "b"))
    weight_low, weight_high = verdict.weight_U.tolist()
    assert 0.0 <= weight_low <= weight_high <= 1.0
    assert verdict.accepted_U.tolist() in ([False, False], [False, True], [True, True])


@pytest.mark.parametrize("name", RULES)
def test_state_goes_through_a_checkpoint(name: Rule) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = rule(name, momentum=0.5), rule(name, momentum=0.5)
    batches = [torch.rand(6, 3, generator=generator).mul(5).softmax(1) for _ in range(4)]
    known = confidence([0.9, 1.7, 2.9], [1, 2, 3])

    def train(trained: ThresholdRule, part: list[Tensor]) -> list[Tensor]:
        weights = []
        for epoch, batch in enumerate(part, 1):
            trained.observe_labelled(known, epoch)
            weights.append(trained.judge(batch, tuple("abcdef")).weight_U)
            trained.end_epoch(known if trained.needs_epoch_pass else None, epoch)
        return weights

    train(first, batches[:2])
    second.load_json_state(first.json_state())
    second.load_state_dict(first.state_dict())
    for mine, theirs in zip(train(first, batches[2:]), train(second, batches[2:]), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(first.thresholds_K, second.thresholds_K)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": 0.9, "ceiling": 0.8}, "below the ceiling"),
        ({"ceiling": 1.2}, "ceiling 1.2"),
        ({"tau": -0.1}, "threshold.tau=-0.1"),
        ({"beta": 0.0}, "must be positive"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThresholdConfig(**settings)
