"""Two hills of losses are told apart without knowing how many labels are wrong."""

from __future__ import annotations

import random

import pytest
import torch

from mien_models.rdfer.agreement import judge
from mien_models.rdfer.config import AgreementConfig
from mien_models.rdfer.ledger import AgreementLedger, Look
from mien_models.rdfer.mixture import label_loss, probability_of_high


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_planted_hills(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    number = round(400 * share)
    high = 3.0 + 0.4 * torch.randn(number, generator=generator)
    low = 0.6 + 0.3 * torch.randn(400 - number, generator=generator)
    found = torch.tensor(probability_of_high([*high.tolist(), *low.tolist()])) > 0.9
    assert found[:number].float().mean() >= 0.95
    assert found[number:].float().mean() <= 0.01


def test_the_order_of_values_has_no_influence() -> None:
    values = [0.1, 0.2, 0.3, 0.2, 2.9, 3.0, 0.1, 0.25]
    shuffled = random.Random(0).sample(list(enumerate(values)), len(values))
    found = dict(
        zip(
            [place for place, _ in shuffled],
            probability_of_high([value for _, value in shuffled]),
            strict=True,
        )
    )
    assert [found[place] for place in range(len(values))] == probability_of_high(values)


def test_values_without_hills() -> None:
    assert probability_of_high([1.0, 2.0, 3.0]) == [0.0] * 3
    assert probability_of_high([2.0] * 10) == [0.0] * 10
    # The lowest value never is a high one, however wide the upper hill is.
    assert probability_of_high([0.0, 1.0, 1.1, 1.0, 0.9, 5.0, 9.0])[0] == 0.0


def test_losses_are_bounded() -> None:
    assert label_loss(1.0) == 0.0
    assert label_loss(0.0) == label_loss(1e-3) == pytest.approx(6.9078, abs=1e-4)


def test_the_decision_asks_both() -> None:
    config = AgreementConfig(tau=0.5, delta=0.1, mixture=0.9)
    assert judge(0.5, 1, 0, 0.2, config, probability_of_high=0.91) == "noisy"
    assert judge(0.5, 1, 0, 0.2, config, probability_of_high=0.9) == "unsure"
    assert judge(0.5, 1, 0, 0.1, config, probability_of_high=1.0) == "unsure"
    assert judge(0.4, 1, 0, 0.9, config, probability_of_high=1.0) == "hard"
    with pytest.raises(ValueError, match=r"agreement\.mixture=1\.0"):
        AgreementConfig(mixture=1.0)


def test_the_ledger_fits_the_hills_of_its_clips() -> None:
    """A margin of 0.15 is much where all others are sure of their labels."""
    looks = [Look(f"clip{n:02d}", 0, 1.0, [0.9 - 0.005 * n, 0.1 + 0.005 * n]) for n in range(30)]
    looks += [Look(f"odd{n}", 0, 1.0, [0.42 - 0.01 * n, 0.58 + 0.01 * n]) for n in range(4)]
    ledger = AgreementLedger(AgreementConfig(delta=0.1, mixture=0.9, mitigate="nothing"))
    ledger.update(0, looks, relabels=False)
    noisy = {clip for clip, record in ledger.records.items() if record.verdict == "noisy"}
    assert noisy == {f"odd{n}" for n in range(4)}
