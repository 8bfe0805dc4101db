"""Losses, alignment and post-filter of DTM against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mien_models.dtm.alignment import DistributionAlignment
from mien_models.dtm.losses import (
    contrastive_loss,
    fairness_loss,
    labelled_loss,
    negative_loss,
    unlabelled_loss,
)
from mien_models.dtm.post_filter import filter_over_time

LOG2 = math.log(2.0)


def number(value: Tensor) -> float:
    return float(value.detach())


def test_labelled_loss_is_a_mean_over_clips() -> None:
    logits = torch.tensor([[LOG2, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = labelled_loss(logits, torch.tensor([0, 2]))
    assert number(found) == pytest.approx((LOG2 + math.log(3.0)) / 2)


def test_unlabelled_loss_is_a_mean_over_all_clips() -> None:
    # Probabilities 1/2, 1/4, 1/4 in every row.
    logits = torch.tensor([[LOG2, 0.0, 0.0]]).repeat(4, 1).requires_grad_()
    loss = unlabelled_loss(logits, torch.tensor([0, 1, 0, 0]), torch.tensor([1.0, 0.5, 0.0, 0.0]))
    assert number(loss) == pytest.approx((LOG2 + 0.5 * 2 * LOG2) / 4)
    (gradient,) = torch.autograd.grad(loss, logits)
    # p - onehot, weighted, over 4: not over the accepted 1.5.
    expected = torch.tensor([[-0.5, 0.25, 0.25], [0.25, -0.375, 0.125]]) / 4
    torch.testing.assert_close(gradient[:2], expected)
    assert not gradient[2:].any()


def contrast(first: Tensor, second: Tensor, chosen: list[bool], temperature: float = 0.5) -> Tensor:
    return contrastive_loss(first, second, torch.tensor(chosen), temperature=temperature)


def test_contrastive_loss_by_hand() -> None:
    first = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    second = torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    # Every view: partner with cosine 1, two others with cosine 0; temperature 1/2.
    expected = -math.log(math.exp(2.0) / (math.exp(2.0) + 2.0))
    assert number(contrast(first, second, [True, True])) == pytest.approx(expected)
    # A third clip that is not chosen is no negative either.
    more = torch.tensor([[1.0, 1.0]])
    found = contrast(torch.cat([first, more]), torch.cat([second, more]), [True, True, False])
    assert number(found) == pytest.approx(expected)


def test_views_that_are_not_alike_cost_more() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert contrast(first, first.flip(0), [True, True]) > contrast(first, first, [True, True])


@pytest.mark.parametrize("chosen", [[False, False, False], [False, True, False]])
def test_contrast_of_nothing_or_one_is_zero_with_finite_gradients(chosen: list[bool]) -> None:
    first = torch.randn(3, 4).requires_grad_()
    second = torch.randn(3, 4).requires_grad_()
    loss = contrast(first, second, chosen)
    assert number(loss) == 0.0
    for gradient in torch.autograd.grad(loss, [first, second]):
        assert torch.equal(gradient, torch.zeros(3, 4))


def test_negative_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, LOG2, 0.0], [0.0, 0.0, 0.0]]).requires_grad_()
    teacher = torch.tensor([[0.01, 0.02, 0.97], [0.01, 0.01, 0.98]])
    found = negative_loss(logits, teacher, torch.tensor([True, False]), below=0.05)
    # Student 1/4, 1/2, 1/4: -log(3/4) - log(1/2), over two clips.
    assert number(found) == pytest.approx((math.log(4 / 3) + LOG2) / 2)
    nothing = negative_loss(logits, teacher, torch.tensor([False, False]), below=0.05)
    assert number(nothing) == 0.0
    assert torch.isfinite(torch.autograd.grad(nothing, logits)[0]).all()


def test_negative_loss_of_a_sure_student_is_finite() -> None:
    logits = torch.tensor([[100.0, 0.0]]).requires_grad_()
    loss = negative_loss(logits, torch.tensor([[0.01, 0.99]]), torch.tensor([True]), below=0.05)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_fairness_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]]))
    accepted = torch.tensor([True, True, True, False])
    found = fairness_loss(logits, accepted, torch.tensor([0.6, 0.4]), torch.tensor([0.75, 0.25]))
    # Strong views: sums (1.7, 1.3) over hits (2, 1) = (0.85, 1.3), scaled (0.395349, 0.604651).
    # Running: (0.8, 1.6), scaled (1/3, 2/3).
    expected = math.log(0.395349) / 3 + 2 * math.log(0.604651) / 3
    assert number(found) == pytest.approx(expected, abs=1e-5)


def test_fairness_of_nothing_accepted_is_zero() -> None:
    logits = torch.randn(2, 3).requires_grad_()
    third = torch.full((3,), 1 / 3)
    loss = fairness_loss(logits, torch.tensor([False, False]), third, third)
    assert number(loss) == 0.0
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_alignment_by_hand() -> None:
    alignment = DistributionAlignment((1.0, 3.0), momentum=0.5)
    found = alignment(torch.tensor([[0.9, 0.1], [0.7, 0.3]]))
    # Running mean: half of (0.25, 0.75) and of (0.8, 0.2): (0.525, 0.475).
    torch.testing.assert_close(alignment.mean_K, torch.tensor([0.525, 0.475]))
    ratio = (0.25 / 0.525, 0.75 / 0.475)
    first = 0.9 * ratio[0] / (0.9 * ratio[0] + 0.1 * ratio[1])
    assert number(found[0, 0]) == pytest.approx(first)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


# Post-filter


def test_the_filter_is_a_mean_whose_window_is_cut_at_the_ends() -> None:
    values = torch.tensor([[1.0], [4.0], [1.0], [0.0], [2.0]])
    found = filter_over_time(values, 3)
    torch.testing.assert_close(found, torch.tensor([[2.5], [2.0], [5 / 3], [1.0], [1.0]]))
    assert torch.equal(filter_over_time(values, 1), values)
    torch.testing.assert_close(filter_over_time(values, 31), torch.full((5, 1), 1.6))


def test_frames_without_a_prediction_take_no_part_and_get_one() -> None:
    values = torch.tensor([[1.0], [float("nan")], [3.0], [9.0], [9.0], [9.0], [9.0]])
    has = torch.tensor([True, False, True, False, False, False, False])
    found = filter_over_time(values, 3, has)
    # Frame 3 hears frame 2; frames 4 to 6 hear nothing: frame 3's is the nearest.
    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0]))
    nearest = filter_over_time(values, 1, has)
    # Frame 1 lies between two: the earlier.
    torch.testing.assert_close(nearest[:, 0], torch.tensor([1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0]))


def test_the_filter_keeps_distributions_and_removes_a_flicker() -> None:
    steady = torch.tensor([[0.9, 0.1]]).repeat(21, 1)
    steady[10] = torch.tensor([0.2, 0.8])
    found = filter_over_time(steady, 15)
    torch.testing.assert_close(found.sum(1), torch.ones(21))
    assert not found.argmax(1).any()


def test_filters_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="window=4 must be odd"):
        filter_over_time(torch.ones(5, 2), 4)
    with pytest.raises(ValueError, match="none of the video's 2 frames"):
        filter_over_time(torch.ones(2, 2), 3, torch.tensor([False, False]))
