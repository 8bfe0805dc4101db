"""DTM as a method: streams, training step, what stays hidden, teacher, monitor, trunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mien_models.contract import ClipBatch, EpochNotes, Progress, StreamSpec, View, plain_batch
from mien_models.dtm import Dtm, DtmConfig
from mien_models.dtm.config import LossConfig, ThresholdConfig, TrunkConfig
from mien_models.dtm.thresholds import FixMatch
from mien_models.layers.ema_teacher import EmaTeacher

CLASSES = ("happy", "sad", "other")
START = Progress(stage=0, epoch=0, step=0, total_steps=10)
SMALL = dataclasses.replace(
    DtmConfig.tiny(),
    image_size_px=24,
    border_px=0,
    num_frames=2,
    trunk=TrunkConfig(name="conv", widths=(8, 8), grid=2, dim=12),
    dropout=0.0,
    batch_size=4,
)


def pictures(size: int, config: DtmConfig, generator: torch.Generator) -> Tensor:
    shape = (size, config.num_frames, 3, config.image_size_px, config.image_size_px)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def make_batches(config: DtmConfig = SMALL, seed: int = 0) -> dict[str, ClipBatch]:
    generator = torch.Generator().manual_seed(seed)
    labelled = plain_batch(pictures(4, config, generator), clip_ids=tuple("abcd"))
    labelled = dataclasses.replace(labelled, label_B=torch.tensor([0, 1, 2, 0]))
    unlabelled = plain_batch(pictures(8, config, generator), clip_ids=tuple("efghijkl"))
    views = [unlabelled.views[0]]
    for _ in range(2):
        views.append(dataclasses.replace(views[0], video_BTCHW=pictures(8, config, generator)))
    return {
        "labelled": labelled,
        "unlabelled": dataclasses.replace(unlabelled, views=tuple(views)),
    }


def make_method(config: DtmConfig = SMALL, **changes: object) -> Dtm:
    torch.manual_seed(0)
    return Dtm(dataclasses.replace(config, **changes), CLASSES).train()


def gradients(method: Dtm, batches: dict[str, ClipBatch]) -> dict[str, Tensor]:
    method.zero_grad()
    method(batches, START).loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def accept_at(level: float) -> ThresholdConfig:
    return ThresholdConfig(rule="fixmatch", tau=level)


# Streams


def test_unlabelled_clips_come_in_three_views_of_the_same_frames() -> None:
    stage = make_method().stage(0)
    assert stage is not None
    labelled, unlabelled = stage.streams.values()
    assert next(iter(stage.streams)) == "labelled"
    assert (labelled.labelled, labelled.sampler, labelled.batch_size) == (True, "class_uniform", 4)
    assert (unlabelled.labelled, unlabelled.sampler, unlabelled.batch_size) == (False, "plain", 8)
    assert [view.same_frames_as for view in unlabelled.views] == [None, 0, 0]
    weak, other, strong = (view.augmentation for view in unlabelled.views)
    assert weak == other == labelled.views[0].augmentation == SMALL.weak
    assert strong == SMALL.strong != weak
    assert make_method().stage(1) is None


def test_without_unlabelled_clips_it_is_supervised() -> None:
    method = make_method(unlabelled_ratio=0)
    stage = method.stage(0)
    assert stage is not None
    assert list(stage.streams) == ["labelled"]
    output = method({"labelled": make_batches()["labelled"]}, START)
    assert set(output.logs) == {"labelled_loss", "accuracy"}
    assert method.end_epoch(lambda spec: []) is None


def test_prediction_looks_once() -> None:
    spec = make_method().prediction_stream()
    assert (spec.sampler, spec.labelled, len(spec.views)) == ("plain", None, 1)
    assert spec.views[0].augmentation is None


# What labels may and may not do


def state(method: Dtm) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in method.state_dict().items() if not k.startswith("monitor.")}


@pytest.mark.parametrize("rule", ["dtm", "flexmatch", "freematch", "softmatch"])
def test_labels_of_unlabelled_clips_reach_nothing_that_trains(rule: str) -> None:
    config = dataclasses.replace(
        SMALL,
        threshold=ThresholdConfig(
            rule=rule, floor=0.0, start=0.3, tau=0.35, evidence="running", momentum=0.9
        ),
        losses=LossConfig(negative=0.5),
    )
    batches = make_batches()
    told = dataclasses.replace(
        batches["unlabelled"],
        label_B=torch.arange(8) % 3,
        soft_label_BK=torch.eye(3)[torch.arange(8) % 3],
        subject_B=torch.arange(8),
        true_label_B=torch.arange(8) % 3,
    )
    found = []
    for unlabelled in (batches["unlabelled"], told):
        method = make_method(config)
        grads = gradients(method, {**batches, "unlabelled": unlabelled})
        method.after_step()
        found.append((grads, state(method), method.json_state()))
    (grads, tensors, remembered), (grads_told, tensors_told, remembered_told) = found
    assert all(torch.equal(grad, grads_told[name]) for name, grad in grads.items())
    assert all(torch.equal(value, tensors_told[name]) for name, value in tensors.items())
    assert remembered == remembered_told


def test_thresholds_learn_from_labelled_clips_alone() -> None:
    config = dataclasses.replace(
        SMALL, threshold=ThresholdConfig(floor=0.0, start=0.3, evidence="running", rho=0.5)
    )
    batches, others = make_batches(seed=0), make_batches(seed=1)
    thresholds = []
    for unlabelled in (batches["unlabelled"], others["unlabelled"]):
        method = make_method(config)
        method({**batches, "unlabelled": unlabelled}, START)
        thresholds.append(method.rule.thresholds_K)
    assert torch.equal(*thresholds)
    assert (thresholds[0] != 0.3).any()


def test_labelled_labels_move_only_the_classes_that_were_right() -> None:
    method = make_method(
        threshold=ThresholdConfig(floor=0.0, start=0.3, evidence="running", rho=0.5)
    )
    batches = make_batches()
    with torch.no_grad():
        said = method.teacher(*inputs(batches["labelled"].views[0])).logits_BK.argmax(1)
    wrong = dataclasses.replace(batches["labelled"], label_B=(said + 1) % 3)
    method({**batches, "labelled": wrong}, START)
    assert torch.equal(method.rule.thresholds_K, torch.full((3,), 0.3))


def inputs(view: View) -> tuple[Tensor, Tensor]:
    return view.video_BTCHW, view.has_face_BT


# Losses in the step


def test_refused_clips_teach_nothing_by_their_pseudo_labels() -> None:
    losses = LossConfig(contrastive=0.0)
    refusing = make_method(threshold=accept_at(1.0), losses=losses)
    assert refusing(make_batches(), START).logs["unlabelled_loss"] == 0
    accepting = make_method(threshold=accept_at(0.0), losses=losses)
    output = accepting(make_batches(), START)
    assert output.logs["unlabelled_loss"] > 0
    assert output.logs["accepted"] == 1


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_nothing_refused_and_nothing_accepted_have_finite_gradients(level: float) -> None:
    method = make_method(
        threshold=accept_at(level), losses=LossConfig(negative=1.0, negative_below=0.9)
    )
    found = gradients(method, make_batches())
    assert found.keys() == {name for name, _ in method.named_parameters()}
    assert all(torch.isfinite(grad).all() for grad in found.values())
    output = method(make_batches(), START)
    assert (output.logs["contrastive_loss"] == 0) == (level == 0.0)
    assert (output.logs["negative_loss"] == 0) == (level == 0.0)


def test_contrast_on_all_clips() -> None:
    losses = LossConfig(contrastive_on="all")
    method = make_method(threshold=accept_at(0.0), losses=losses)
    assert method(make_batches(), START).logs["contrastive_loss"] > 0


def test_refused_neighbours_thin_the_gradient_of_an_accepted_clip() -> None:
    """Over all clips: three refused ones beside it leave a quarter."""
    losses = LossConfig(labelled=0.0, contrastive=0.0)
    config = dataclasses.replace(SMALL, threshold=accept_at(0.0), losses=losses)
    grads = []
    for refused in (0, 3):
        method = make_method(config).eval()  # batch norm would mix the clips
        unlabelled = make_batches()["unlabelled"].rows(0, 1 + refused)
        has_face = torch.ones(1 + refused, 2, dtype=torch.bool)
        has_face[1:] = False
        views = tuple(dataclasses.replace(v, has_face_BT=has_face) for v in unlabelled.views)
        unlabelled = dataclasses.replace(unlabelled, views=views)
        grads.append(gradients(method, {**make_batches(), "unlabelled": unlabelled}))
    alone, among = grads
    for name, grad in alone.items():
        torch.testing.assert_close(among[name], grad / 4, rtol=1e-4, atol=1e-7)
    assert any(grad.any() for grad in alone.values())


def test_a_clip_without_a_face_has_no_pseudo_label() -> None:
    batches = make_batches()
    views = tuple(
        dataclasses.replace(view, has_face_BT=torch.zeros(8, 2, dtype=torch.bool))
        for view in batches["unlabelled"].views
    )
    batches["unlabelled"] = dataclasses.replace(batches["unlabelled"], views=views)
    assert make_method(threshold=accept_at(0.0))(batches, START).logs["accepted"] == 0


def test_a_class_can_be_kept_from_being_a_pseudo_label() -> None:
    method = make_method(threshold=accept_at(0.0), no_pseudo_labels=("other", "happy"))
    method(make_batches(), START)
    accepted = method.monitor.tally_RK[1]
    assert not accepted[0]
    assert not accepted[2]


def test_all_options_together_train() -> None:
    method = make_method(
        threshold=ThresholdConfig(rule="freematch", momentum=0.5),
        losses=LossConfig(negative=0.5, fairness=0.01, contrastive_on="all"),
        distribution_alignment=True,
        class_prior=(2.0, 1.0, 1.0),
        pseudo_label_views=1,
        teacher_decay=None,
    )
    found = gradients(method, make_batches())
    assert all(torch.isfinite(grad).all() for grad in found.values())
    method.eval()
    batch = make_batches()["labelled"]
    expected = method.student(*inputs(batch.views[0])).logits_BK
    assert torch.equal(method.predict(batch).logits_BK, expected)


def test_pictures_are_clips_of_one_frame() -> None:
    config = dataclasses.replace(SMALL, num_frames=1, motion_gain=None)
    method = make_method(config)
    assert torch.isfinite(method(make_batches(config), START).loss)


# Teacher


def test_the_teacher_follows_by_hand() -> None:
    student = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(student.weight, 1.0)
    teachers = [EmaTeacher(student, decay=0.9, ramp=ramp) for ramp in (False, True)]
    torch.nn.init.constant_(student.weight, 2.0)
    for teacher in teachers:
        teacher.update(student)
        teacher.update(student)
    # 1 -> 1.1 -> 1.19; with the ramp the decays are 1/10 and 2/11: 1.9, then 2 - 0.1 * 2/11.
    found = [float(teacher(torch.ones(1, 1))) for teacher in teachers]
    assert found == pytest.approx([1.19, 2 - 0.2 / 11])
    assert not list(teachers[0].parameters())


def test_only_the_teacher_moves_after_a_step_and_it_never_trains() -> None:
    method = make_method()
    assert isinstance(method.teacher, EmaTeacher)
    assert not any(module.training for module in method.teacher.modules())
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 1.0
    before = state(method)
    method.after_step()
    moved = {name for name, value in state(method).items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("teacher.") for name in moved)
    method.eval()
    batch = make_batches()["labelled"]
    expected = method.teacher(*inputs(batch.views[0])).logits_BK
    assert torch.equal(method.predict(batch).logits_BK, expected)


# Epochs and what is told of them


def test_thresholds_from_a_plain_pass() -> None:
    method = make_method(
        threshold=ThresholdConfig(floor=0.0, start=0.3, evidence="epoch", gamma=None, beta=0.5)
    )
    batches = make_batches()
    method(batches, START)
    with torch.no_grad():
        reading = method.teacher(*inputs(batches["labelled"].views[0]))
    confidence, said = reading.probability_BK.max(1)
    asked: list[StreamSpec] = []

    def scan(spec: StreamSpec) -> Iterator[ClipBatch]:
        asked.append(spec)
        yield dataclasses.replace(batches["labelled"], label_B=said)

    method.end_epoch(scan)
    assert (asked[0].split, asked[0].labelled, asked[0].sampler) == ("train", True, "plain")
    for index in range(3):
        mine = confidence[said == index]
        expected = 0.5 * float(mine.mean()) if len(mine) else 0.3
        assert float(method.rule.thresholds_K[index]) == pytest.approx(expected, rel=1e-5)


def run_epoch(method: Dtm, told: ClipBatch | None = None) -> EpochNotes:
    batches = make_batches()
    method({**batches, "unlabelled": told or batches["unlabelled"]}, START)
    notes = method.end_epoch(lambda spec: [])
    assert notes is not None
    return notes


def test_an_epoch_is_told_in_numbers() -> None:
    method = make_method(threshold=accept_at(0.0))
    unlabelled = make_batches()["unlabelled"]
    with torch.no_grad():
        two = [method.teacher(*inputs(v)).probability_BK for v in unlabelled.views[:2]]
    confidence, said = ((two[0] + two[1]) / 2).max(1)
    truth = said.clone()
    truth[0] = (truth[0] + 1) % 3  # one is wrong, one is unknown
    truth[1] = -1
    notes = run_epoch(method, dataclasses.replace(unlabelled, label_B=truth))
    assert notes.logs["pseudo_accuracy"] == pytest.approx(6 / 7)
    assert notes.logs["pseudo_accepted"] == 1
    assert notes.logs["pseudo_confidence"] == pytest.approx(float(confidence.mean()), rel=1e-5)
    for index, name in enumerate(CLASSES):
        number = int((said == index).sum())
        assert notes.logs[f"accepted/{name}"] == number
        assert notes.logs[f"pseudo_share/{name}"] == number / 8
        assert notes.logs[f"threshold/{name}"] == 0
    assert "pseudo_drift" not in notes.logs
    assert run_epoch(method).logs["pseudo_drift"] == pytest.approx(0.0, abs=0.2)


def test_truth_that_nobody_knows_is_not_scored() -> None:
    notes = run_epoch(make_method(threshold=accept_at(0.0)))
    assert not any(name.startswith("pseudo_accuracy") for name in notes.logs)


def test_it_warns_when_a_class_gets_nothing_or_everything() -> None:
    (line,) = run_epoch(make_method(threshold=accept_at(1.0))).warnings
    assert line.startswith("no pseudo-label accepted for happy (")
    assert "offered, 1.00 asked)" in line
    method = make_method(threshold=accept_at(0.0))
    with torch.no_grad():
        method.teacher.network.classifier.bias[1] += 50.0
    empty, everything = run_epoch(method).warnings
    assert "happy (0 offered, 0.00 asked)" in empty
    assert everything == "8 of 8 accepted pseudo-labels are sad"


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_pseudo_labels": ("othr",)}, "no_pseudo_labels names othr"),
        ({"class_prior": (0.5, 0.5)}, "2 shares for 3 classes"),
        ({"losses": LossConfig(fairness=0.01)}, "needs threshold.rule=freematch"),
        ({"num_frames": 1}, "motion_gain=3.0 needs num_frames > 1"),
        ({"border_px": 12}, "leaves nothing of 24"),
        ({"teacher_decay": 1.0}, "must lie in"),
        (
            {"trunk": TrunkConfig(name="resnet5"), "motion_gain": None},
            "trunk.name='resnet5' is neither `conv` nor a model of timm; did you mean",
        ),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(**changes)


def test_a_trunk_of_timm_takes_its_published_tensors() -> None:
    import timm

    torch.manual_seed(3)
    published = timm.create_model("resnet10t", num_classes=5).state_dict()
    config = dataclasses.replace(SMALL, trunk=TrunkConfig(name="resnet10t"), motion_gain=None)
    method = make_method(config)
    assert method.pretrained_parts() == ("trunk",)
    bare = {k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    method.load_pretrained("trunk", bare)
    for network in (method.student, method.teacher.network):
        assert torch.equal(
            network.trunk.state_dict()["conv1.0.weight"], published["conv1.0.weight"]
        )
    del bare["conv1.0.weight"]
    with pytest.raises(ValueError, match=r"timm's resnet10t .* missing: conv1.0.weight"):
        method.load_pretrained("trunk", bare)
    with pytest.raises(ValueError, match="no weights for 'nose'"):
        method.load_pretrained("nose", {})
    assert isinstance(make_method(config, threshold=accept_at(0.9)).rule, FixMatch)
