"""Few-shot protocols: what the published figure hides, and that the sums are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mien.evaluate.few_shot import (
    LEARNERS,
    Estimate,
    FewShotError,
    FewShotTask,
    GradientHead,
    draw_supports,
    few_shot_table,
    harmonic_mean,
    score_learner,
)

KNOWN, DIM = 3, 6


def make_task(*, noise: float = 0.3, seed: int = 0) -> FewShotTask:
    """Classes around the axes; the new class around a fourth one."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * np.eye(KNOWN + 1, DIM)

    def around(classes):
        return centres[classes] + noise * rng.normal(size=(len(classes), DIM))

    replay_class = np.repeat(np.arange(KNOWN), 8)
    true = np.repeat(np.arange(KNOWN + 1), 25)
    return FewShotTask(
        support_ND=around(np.full(30, KNOWN)),
        query_QD=around(true),
        true_Q=true,
        weight_CD=3.0 * centres[:KNOWN],
        bias_C=np.zeros(KNOWN),
        replay_MD=around(replay_class),
        replay_class_M=replay_class,
    )


def test_the_published_figure_rewards_a_predictor_that_knows_nothing():
    task = make_task()
    trivial = score_learner("always_new", task, shots=1)
    assert trivial.new_recall.mean == 1.0
    assert trivial.base_before == 1.0
    assert (trivial.base_after.mean, trivial.harmonic_mean.mean) == (0.0, 0.0)
    assert trivial.auroc.mean == 0.5
    other = score_learner("never_new", task, shots=1)
    assert (other.new_recall.mean, other.base_after.mean) == (0.0, 1.0)


def test_the_published_figure_rises_where_known_classes_are_lost():
    task = make_task(noise=1.0)
    published = score_learner("published", task, shots=5)
    replay = score_learner("replay", task, shots=5)
    near = score_learner("prototypes", task, shots=5)
    assert published.new_recall.mean > replay.new_recall.mean + 0.05
    assert published.base_after.mean < replay.base_after.mean - 0.05
    assert published.auroc.high < replay.auroc.low < near.auroc.mean
    assert near.harmonic_mean.mean > published.harmonic_mean.mean


@pytest.mark.parametrize("with_replay", [False, True])
def test_the_gradient_is_that_of_the_loss(with_replay):
    task = make_task()
    learner = GradientHead(with_replay=with_replay, steps=4, learning_rate=0.3)
    support = task.support_ND[None, :2]
    found = learner(task, support)[0]

    scale = float(np.sqrt((task.replay_MD**2).sum(axis=1).mean()))
    weight = torch.tensor(np.vstack([task.weight_CD * scale, np.zeros((1, DIM))]))
    bias = torch.zeros(KNOWN + 1, dtype=torch.float64)
    clips, classes = support[0], np.full(2, KNOWN)
    if with_replay:
        clips = np.vstack([clips, task.replay_MD])
        classes = np.concatenate([classes, task.replay_class_M])
    counts = np.bincount(classes, minlength=KNOWN + 1)
    share = torch.tensor(1.0 / (counts[classes] * (counts > 0).sum()))
    known = torch.tensor(clips @ task.weight_CD.T)
    target = (F.pad(known, (0, 1)) / 3).softmax(dim=1)
    clips, classes = torch.tensor(clips / scale), torch.tensor(classes)
    for parameter in (weight, bias):
        parameter.requires_grad_()
    for _ in range(4):
        logits = clips @ weight.T + bias
        kept = -(target * (logits / 3).log_softmax(dim=1)).sum(dim=1)
        right = F.cross_entropy(logits, classes, reduction="none")
        loss = (share * (0.9 * right + 0.1 * kept)).sum()
        gradients = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            for parameter, gradient in zip((weight, bias), gradients, strict=True):
                parameter -= 0.3 * gradient
    expected = torch.tensor(task.query_QD / scale) @ weight.T + bias
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-9, atol=1e-9)


def test_draws_are_seeded_and_without_replacement():
    chosen = draw_supports(12, shots=5, draws=100, seed=3)
    assert all(len(set(row)) == 5 for row in chosen.tolist())
    assert np.array_equal(chosen, draw_supports(12, shots=5, draws=100, seed=3))
    assert not np.array_equal(chosen, draw_supports(12, shots=5, draws=100, seed=4))
    assert set(chosen.ravel().tolist()) == set(range(12))
    # More draws keep those that were there.
    assert np.array_equal(draw_supports(12, shots=5, draws=120, seed=3)[:100], chosen)


def test_means_and_intervals_by_hand():
    values = np.array([0.2, 0.4, 0.6, 0.8])
    found = Estimate.of(values)
    reach = 1.96 * np.sqrt((0.09 + 0.01 + 0.01 + 0.09) / 3) / 2
    assert (found.mean, found.low) == (pytest.approx(0.5), pytest.approx(0.5 - reach))
    means = harmonic_mean(np.array([0.0, 1.0, 0.5]), np.array([0.0, 0.5, 0.5]))
    assert means == pytest.approx([0.0, 2 / 3, 0.5])


def test_what_can_not_be_asked_is_refused():
    task = make_task()
    with pytest.raises(FewShotError, match="99 draws are too few"):
        score_learner("prototypes", task, shots=1, draws=99)
    with pytest.raises(FewShotError, match="the new class has 30"):
        score_learner("prototypes", task, shots=31)
    with pytest.raises(FewShotError, match="queries must be of the new class"):
        replace(task, true_Q=np.zeros_like(task.true_Q))
    with pytest.raises(FewShotError, match=r"known classes \[2\] have no remembered clip"):
        replace(task, replay_class_M=np.minimum(task.replay_class_M, 1))
    with pytest.raises(FewShotError, match=r"features have \[5, 6\] values"):
        replace(task, support_ND=task.support_ND[:, :5])


def test_the_table_names_every_learner_beside_the_published_figure():
    task = make_task()
    table = few_shot_table([score_learner(name, task, shots=3) for name in LEARNERS])
    assert "new recall (published)" in table
    assert all(name in table for name in LEARNERS)
