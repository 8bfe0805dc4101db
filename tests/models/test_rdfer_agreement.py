"""Agreement by hand, the decision table, and the ledger: caps, relabels, history, JSON."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mien_models.rdfer.agreement import agreement, judge, window_frames
from mien_models.rdfer.config import AgreementConfig, Measure
from mien_models.rdfer.ledger import AgreementLedger, Look

MEASURES: tuple[Measure, ...] = ("pairs", "majority", "soft")
PLAIN = AgreementConfig(momentum=0.0, cap_per_epoch=1.0, cap=1.0)


def one_hot(*classes: int, num_classes: int = 7) -> Tensor:
    """One clip, a look that is certain of each class: [1, M, K]."""
    return torch.eye(num_classes)[list(classes)][None]


# Measures


@pytest.mark.parametrize("measure", MEASURES)
def test_identical_looks_agree_entirely(measure: Measure) -> None:
    look_BK = torch.rand(5, 1, 7).softmax(dim=2)
    found = agreement(look_BK.expand(-1, 4, -1), measure)
    torch.testing.assert_close(found, torch.ones(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("measure", "least"), [("pairs", 0.0), ("majority", 0.25), ("soft", 0.0)])
def test_looks_that_all_differ_give_the_least(measure: Measure, least: float) -> None:
    assert float(agreement(one_hot(0, 3, 1, 6), measure)) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize(
    ("looks", "pairs", "majority"),
    [((2, 2, 2, 5), 0.5, 0.75), ((2, 2, 5, 5), 1 / 3, 0.5), ((2, 2, 5, 1), 1 / 6, 0.5)],
)
def test_splits_by_hand(looks: tuple[int, ...], pairs: float, majority: float) -> None:
    assert float(agreement(one_hot(*looks), "pairs")) == pytest.approx(pairs)
    assert float(agreement(one_hot(*looks), "majority")) == pytest.approx(majority)


def test_soft_agreement_by_hand() -> None:
    looks = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    mean_entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    divergence = mean_entropy - math.log(2) / 2
    expected = 1 - divergence / math.log(2)
    assert float(agreement(looks, "soft")) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    looks=st.integers(2, 8),
    classes=st.integers(2, 9),
    measure=st.sampled_from(MEASURES),
)
def test_order_is_of_no_influence_and_range_is_kept(
    seed: int, looks: int, classes: int, measure: Measure
) -> None:
    generator = torch.Generator().manual_seed(seed)
    given_BMK = (4 * torch.randn(3, looks, classes, generator=generator)).softmax(dim=2)
    found = agreement(given_BMK, measure)
    assert ((found >= 0) & (found <= 1)).all()
    shuffled = given_BMK[:, torch.randperm(looks, generator=generator)]
    torch.testing.assert_close(agreement(shuffled, measure), found)


def test_windows_cover_the_clip() -> None:
    windows = window_frames(16, 4, 0.5)
    assert windows.shape == (4, 16)
    assert windows[0, 0] == 0
    assert windows[-1, -1] == 15
    assert (windows.diff(dim=1) >= 0).all()
    assert {int(row[-1] - row[0]) for row in windows} <= {7, 8}
    whole = torch.arange(16).expand(4, -1)
    assert torch.equal(window_frames(16, 4, 1.0), whole)


# Decisions


@pytest.mark.parametrize(
    ("seen", "suggested", "margin", "agreed", "scattered"),
    [
        (0.75, 1, 0.0, "clean", "clean"),
        (0.75, 2, 0.5000001, "noisy", "hard"),
        (0.75, 2, 0.5, "unsure", "hard"),
        (0.7499, 2, 0.9, "hard", "noisy"),
        (0.7499, 1, 0.0, "hard", "noisy"),
    ],
)
def test_the_table_changes_exactly_at_tau_and_delta(
    seen: float, suggested: int, margin: float, agreed: str, scattered: str
) -> None:
    config = AgreementConfig(tau=0.75, delta=0.5)
    assert judge(seen, suggested, 1, margin, config) == agreed
    reverse = replace(config, reading="scattered", mitigate="reweight")
    assert judge(seen, suggested, 1, margin, reverse) == scattered


def test_the_reverse_reading_refuses_to_relabel() -> None:
    with pytest.raises(ValueError, match=r"use agreement.mitigate=reweight"):
        AgreementConfig(reading="scattered")


def sure_of(clip_id: str, given: int, *probabilities: float, seen: float = 1.0) -> Look:
    return Look(clip_id, given, seen, list(probabilities))


def labels(ledger: AgreementLedger) -> dict[str, int]:
    return {clip_id: record.label for clip_id, record in ledger.records.items()}


def test_a_label_changes_exactly_above_the_margin() -> None:
    ledger = AgreementLedger(PLAIN)
    looks = [sure_of("at", 0, 0.25, 0.75), sure_of("above", 0, 0.249, 0.751)]
    ledger.update(0, looks, relabels=True)
    assert labels(ledger) == {"at": 0, "above": 1}


def test_relabels_wait_for_their_time_and_are_taken_back() -> None:
    ledger = AgreementLedger(PLAIN)
    noisy = [sure_of("a", 0, 0.1, 0.9, 0.0)]
    ledger.update(0, noisy, relabels=False)
    assert labels(ledger) == {"a": 0}
    ledger.update(1, noisy, relabels=True)
    assert labels(ledger) == {"a": 1}
    ledger.update(2, [sure_of("a", 0, 0.1, 0.0, 0.9)], relabels=True)
    assert labels(ledger) == {"a": 2}
    ledger.update(3, [sure_of("a", 0, 0.6, 0.4, 0.0)], relabels=True)
    assert labels(ledger) == {"a": 0}
    history = ledger.records["a"].history
    assert [(entry.epoch, entry.verdict, entry.label) for entry in history] == [
        (0, "noisy", 0),
        (1, "noisy", 1),
        (2, "noisy", 2),
        (3, "clean", 0),
    ]


def test_caps_hold_by_class_and_the_surest_go_first() -> None:
    ledger = AgreementLedger(replace(PLAIN, cap_per_epoch=0.2, cap=0.3))
    looks = [sure_of(f"n{i}", 0, 0.1 - i / 100, 0.9 + i / 100) for i in range(9)]
    looks += [sure_of("n9", 0, 1.0, 0.0), sure_of("other", 1, 0.95, 0.05)]
    ledger.update(0, looks, relabels=True)
    changed = {clip_id for clip_id, r in ledger.records.items() if r.relabelled_to is not None}
    # Two of ten of class 0; the only clip of class 1 is more than 30 % of its class.
    assert changed == {"n8", "n7"}
    for epoch in range(1, 4):
        ledger.update(epoch, looks, relabels=True)
    changed = {clip_id for clip_id, r in ledger.records.items() if r.relabelled_to is not None}
    assert changed == {"n8", "n7", "n6"}


def test_moving_averages_by_hand() -> None:
    ledger = AgreementLedger(replace(PLAIN, momentum=0.7))
    ledger.update(0, [sure_of("a", 0, 1.0, 0.0, seen=1.0)], relabels=False)
    ledger.update(1, [sure_of("a", 0, 0.0, 1.0, seen=0.0)], relabels=False)
    record = ledger.records["a"]
    # Weights 0.7 and 1, over their sum.
    assert record.agreement == pytest.approx(0.7 / 1.7, abs=1e-6)
    assert record.probabilities == pytest.approx([0.7 / 1.7, 1 / 1.7], abs=1e-6)
    assert record.verdict == "hard"
    ledger.update(2, [sure_of("a", 0, 0.0, 1.0, seen=1.0)], relabels=False)
    assert record.agreement == pytest.approx((0.49 + 1) / (0.49 + 0.7 + 1), abs=1e-5)


def test_ledgers_that_did_not_count_looks_go_on_with_their_history() -> None:
    ledger = AgreementLedger(replace(PLAIN, momentum=0.5))
    for epoch in range(3):
        ledger.update(epoch, [sure_of("a", 0, 0.9, 0.1, seen=0.2 * epoch)], relabels=False)
    old = ledger.to_json()
    del old["a"]["looks"]
    again = AgreementLedger(replace(PLAIN, momentum=0.5))
    again.load_json(old)
    assert again.to_json() == ledger.to_json()


def test_a_label_corrected_in_the_manifest_starts_anew() -> None:
    ledger = AgreementLedger(PLAIN)
    ledger.update(0, [sure_of("a", 0, 0.0, 1.0)], relabels=True)
    ledger.update(1, [sure_of("a", 1, 0.0, 1.0)], relabels=True)
    record = ledger.records["a"]
    assert (record.given, record.label, record.verdict, len(record.history)) == (1, 1, "clean", 1)


def test_order_of_looks_and_of_workers_is_of_no_influence() -> None:
    looks = [sure_of(f"c{i}", i % 2, 0.1 * i, 1 - 0.1 * i) for i in range(8)]
    states = []
    for order in itertools.islice(itertools.permutations(looks), 0, 5000, 997):
        ledger = AgreementLedger(replace(PLAIN, cap_per_epoch=0.3))
        ledger.update(0, order, relabels=True)
        states.append(ledger.to_json())
    assert all(state == states[0] for state in states)


# Targets


def test_targets_and_weights_of_each_verdict() -> None:
    config = replace(PLAIN, reinforce=0.5)
    ledger = AgreementLedger(config)
    looks = [
        sure_of("clean", 0, 0.9, 0.1, 0.0),
        sure_of("noisy", 0, 0.1, 0.9, 0.0),
        sure_of("hard", 0, 0.4, 0.6, 0.0, seen=0.5),
    ]
    ledger.update(0, looks, relabels=True)
    ids, label_B = ("clean", "noisy", "hard", "new"), torch.zeros(4, dtype=torch.int64)
    idle = ledger.targets(ids, label_B, 3, acts=False)
    assert idle.target_BK.argmax(dim=1).tolist() == [0, 0, 0, 0]
    assert idle.weight_B.tolist() == [1, 1, 1, 1]
    found = ledger.targets(ids, label_B, 3, acts=True)
    assert found.target_BK.argmax(dim=1).tolist() == [0, 1, 0, 0]
    assert found.weight_B.tolist() == [1.0, 1.0, 1.25, 1.0]
    assert found.is_hard_B.tolist() == [0, 0, 1, 0]


def test_other_ways_with_noise() -> None:
    looks = [sure_of("noisy", 0, 0.1, 0.9)]
    label_B = torch.zeros(1, dtype=torch.int64)
    lighter = AgreementLedger(replace(PLAIN, mitigate="reweight", noisy_weight=0.2))
    lighter.update(0, looks, relabels=True)
    found = lighter.targets(("noisy",), label_B, 2, acts=True)
    assert found.target_BK.tolist() == [[1.0, 0.0]]
    assert found.weight_B.tolist() == pytest.approx([0.2])
    softer = AgreementLedger(replace(PLAIN, mitigate="soften", soften_share=0.5))
    softer.update(0, looks, relabels=True)
    found = softer.targets(("noisy",), label_B, 2, acts=True)
    assert found.target_BK.flatten().tolist() == pytest.approx([0.55, 0.45])
    assert found.weight_B.tolist() == [1.0]


# State


def test_the_ledger_survives_json_and_goes_on_alike() -> None:
    config = replace(PLAIN, momentum=0.7, cap_per_epoch=0.4)
    looks = [sure_of(f"c{i}", i % 3, *torch.rand(3).softmax(0).tolist()) for i in range(12)]
    ledger, again = AgreementLedger(config), AgreementLedger(config)
    ledger.update(0, looks, relabels=True)
    again.load_json(json.loads(json.dumps(ledger.to_json())))
    for each in (ledger, again):
        each.update(1, looks[::-1], relabels=True)
    assert again.to_json() == ledger.to_json()


def test_a_damaged_record_is_refused() -> None:
    ledger = AgreementLedger(PLAIN)
    with pytest.raises(ValueError, match=r"record of clip 'a' holds \['given', 'looks'\]"):
        ledger.load_json({"a": {"given": 1}})
