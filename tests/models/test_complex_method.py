"""complex_fer's stages, head, distillation and what a later stage leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mien.train.stage_run import StageRun
from mien.train.world import World
from mien_models.complex_fer import ComplexFer, ComplexFerConfig
from mien_models.complex_fer.compounds import components_of, is_compound
from mien_models.complex_fer.config import (
    DistillationConfig,
    HeadConfig,
    MemoryConfig,
    PhaseConfig,
    StreamPlan,
    TrunkConfig,
)
from mien_models.complex_fer.distillation import clip_weights, distillation_loss, padded
from mien_models.complex_fer.method import NOT_LEARNT
from mien_models.complex_fer.model import GrowingHead, NearestMean
from mien_models.complex_fer.schedule import make_schedule
from mien_models.contract import ClipBatch, Progress, plain_batch

CLASSES = (
    "angrily_surprised",
    "anger",
    "happily_surprised",
    "happiness",
    "sadly_angry",
    "sadness",
    "surprise",
)


def small(**changes) -> ComplexFerConfig:
    phase = PhaseConfig(batch_size=4, epochs=1, steps_per_epoch=2)
    base = ComplexFerConfig(
        image_size_px=16,
        align_faces=False,
        trunk=TrunkConfig(name="conv", widths=(4, 6), grid=2, dim=8),
        basic=phase,
        later=replace(phase, trunk=("project.*",)),
        distillation=DistillationConfig(teachers="both", weight=0.5, decay_stages=None),
        memory=MemoryConfig(per_class=2, batch_size=2),
    )
    return replace(base, **changes)


def clips(labels: list[int], seed: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(256, (len(labels), 1, 3, 16, 16), generator=generator, dtype=torch.uint8)
    batch = plain_batch(video, clip_ids=[f"c{seed}-{index}" for index in range(len(labels))])
    return replace(batch, label_B=torch.tensor(labels))


def method_at(stage: int, config: ComplexFerConfig | None = None) -> ComplexFer:
    torch.manual_seed(0)
    method = ComplexFer(config or small(), CLASSES)
    for index in range(stage + 1):
        method.begin_stage(index)
    return method.eval()


# Classes and stages


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("happily surprised", ("happiness", "surprise")),
        ("disgustedly_surprised", ("disgust", "surprise")),
        ("Anger, Disgust", ("anger", "disgust")),
        ("awed", ("surprise", "fear")),
        ("happiness", ("happiness",)),
        ("helplessness", ("helplessness",)),
        ("sadness_anxiety_helplessness", ("sadness", "anxiety", "helplessness")),
        ("very happy", ("very happy",)),
    ],
)
def test_parts_are_read_from_names(name, parts):
    assert components_of(name) == parts
    assert is_compound(name) == (len(parts) > 1)


def test_basics_come_first_then_one_compound_a_stage_in_an_order_of_the_seed():
    phases = make_schedule(small(), CLASSES)
    assert phases[0].classes == ("anger", "happiness", "sadness", "surprise")
    later = [name for phase in phases[1:] for name in phase.classes]
    assert sorted(later) == ["angrily_surprised", "happily_surprised", "sadly_angry"]
    assert [phase.later_index for phase in phases[1:]] == [0, 1, 2]
    orders = {
        tuple(
            phase.classes
            for phase in make_schedule(small(classes=StreamPlan(order_seed=seed)), CLASSES)
        )
        for seed in range(12)
    }
    assert len(orders) > 3
    two = make_schedule(small(classes=StreamPlan(classes_per_stage=2)), CLASSES)
    assert [len(phase.classes) for phase in two] == [4, 2, 1]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (StreamPlan(first_classes=("joy",)), "first_classes names joy, but the classes are"),
        (StreamPlan(order=("sadly_angry",)), "name each later class once"),
        (
            StreamPlan(left_out=("anger", "happiness", "sadness", "surprise")),
            "no class to begin with",
        ),
    ],
)
def test_plans_that_do_not_fit_the_classes_are_refused(plan, said):
    with pytest.raises(ValueError, match=said):
        ComplexFer(small(classes=plan), CLASSES)


def test_classes_left_out_are_never_learnt():
    method = ComplexFer(small(classes=StreamPlan(left_out=("sadness", "neutral"))), CLASSES)
    for index in range(len(method.schedule)):
        method.begin_stage(index)
    assert "sadness" not in method.learnt
    predicted = method.eval().predict(clips([0, 1])).logits_BK
    assert (predicted[:, CLASSES.index("sadness")] == NOT_LEARNT).all()


# The head


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_widening_keeps_old_logits_to_the_bit(kind):
    method = method_at(0, small(head=HeadConfig(kind=kind, hidden=(7,))))
    batch = clips([0] * 9)
    before = method.predict(batch).logits_BK
    for index in (1, 2, 3):
        old = method.learnt
        method.begin_stage(index)
        after = method.eval().predict(batch).logits_BK
        places = [CLASSES.index(name) for name in old]
        assert torch.equal(after[:, places], before[:, places])
        assert len(method.learnt) == len(old) + 1
        new = [CLASSES.index(name) for name in method.learnt if name not in old]
        assert (after[:, new] > NOT_LEARNT).all()
        before = after


def test_logits_stand_where_their_classes_do():
    method = method_at(3)
    batch = clips([0] * 3)
    reading = method.network(batch.views[0].video_BTCHW, batch.views[0].has_face_BT)
    logits = method.predict(batch).logits_BK
    for place, name in enumerate(method.learnt):
        assert torch.equal(logits[:, CLASSES.index(name)], reading.logits_BS[:, place])


def test_a_compound_begins_as_the_mean_of_its_parts():
    head = GrowingHead(HeadConfig(start="compositional"), dim=3)
    head.grow(("happiness", "surprise"))
    first = head.blocks[0]
    with torch.no_grad():
        first.bias.copy_(torch.tensor([1.0, 2.0]))
    head.grow(("happily_surprised", "sadly_angry"))
    new = head.blocks[1]
    torch.testing.assert_close(new.weight[0], first.weight.mean(dim=0))
    assert new.bias.tolist() == [1.5, 0.0]
    assert not torch.equal(new.weight[1], torch.zeros(3))


def test_a_multi_label_head_adds_the_scores_of_the_parts():
    method = method_at(3, small(head=HeadConfig(kind="multi_label")))
    batch = clips([0] * 3)
    reading = method.network(batch.views[0].video_BTCHW, batch.views[0].has_face_BT)
    logits = method.predict(batch).logits_BK
    emotions = method.network.head.emotions
    pair = [emotions.index("happiness"), emotions.index("surprise")]
    torch.testing.assert_close(
        logits[:, CLASSES.index("happily_surprised")], reading.emotions_BE[:, pair].sum(dim=1)
    )


def test_a_multi_label_head_refuses_classes_of_the_same_parts():
    config = small(head=HeadConfig(kind="multi_label"))
    with pytest.raises(ValueError, match="can't tell 'hatred' from 'angrily disgusted'"):
        ComplexFer(config, ("anger", "disgust", "angrily disgusted", "hatred"))


# Losses


def test_the_published_weights_of_distillation():
    published = DistillationConfig()
    table = [
        *(0.1000, 0.0764, 0.0584, 0.0446, 0.0341, 0.0261, 0.0199, 0.0152),
        *(0.0116, 0.0089, 0.0068, 0.0052, 0.0040, 0.0030, 0.0023),
    ]
    assert [round(published.weight_at(stage), 4) for stage in range(15)] == table
    assert replace(published, decay_stages=None).weight_at(14) == 0.1
    assert replace(published, teachers="none").weight_at(0) == 0.0


def test_distillation_is_the_cross_entropy_of_a_sure_teacher():
    student = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, -0.5]])
    teacher = 1000.0 * F.one_hot(torch.tensor([2, 1]), 3).float()
    config = DistillationConfig(teachers="previous", temperature=1.0)
    found = distillation_loss(config, student, basic_BR=None, previous_BR=teacher)
    expected = F.cross_entropy(student, torch.tensor([2, 1]), reduction="none")
    torch.testing.assert_close(found, expected)


def test_zero_padding_gives_mass_to_what_the_teacher_does_not_know():
    teacher = torch.tensor([[6.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    shares = [float((padded(teacher, size) / 3).softmax(dim=1)[0, 0]) for size in (7, 21)]
    assert shares == pytest.approx([0.55, 0.27], abs=0.005)
    student = torch.zeros(1, 8)
    config = DistillationConfig(teachers="basic_padded", temperature=3.0)
    whole = distillation_loss(config, student, basic_BR=teacher, previous_BR=None)
    torch.testing.assert_close(whole, torch.tensor([math.log(8)]))
    sliced = replace(config, teachers="basic", scale_by_square=True)
    part = distillation_loss(sliced, student, basic_BR=teacher, previous_BR=None)
    torch.testing.assert_close(part, torch.tensor([9 * math.log(6)]))


def test_slices_do_not_pull_at_classes_that_the_teacher_does_not_know():
    student = torch.randn(4, 7, requires_grad=True)
    config = DistillationConfig(teachers="both")
    loss = distillation_loss(
        config, student, basic_BR=torch.randn(4, 4), previous_BR=torch.randn(4, 6)
    )
    loss.sum().backward()
    assert (student.grad[:, 6] == 0).all()
    assert (student.grad[:, :6] != 0).any(dim=0).all()


def test_every_class_counts_the_same_whatever_a_step_holds():
    weights = clip_weights(4, 12, new_classes=1, old_classes=9, balance="classes")
    assert float(weights[:4].sum()) == pytest.approx(0.1)
    assert float(weights.sum()) == pytest.approx(1.0)
    plain = clip_weights(4, 12, new_classes=1, old_classes=9, balance="clips")
    assert plain.tolist() == pytest.approx([1 / 16] * 16)


# What a later stage leaves alone


def later_run(config: ComplexFerConfig) -> tuple[ComplexFer, StageRun]:
    method = method_at(1, config)
    stage = method.stage(1)
    assert stage is not None
    return method, StageRun(method, stage, total_steps=4, world=World())


def train_steps(method: ComplexFer, run: StageRun, *, with_replay: bool) -> None:
    new = CLASSES.index(method.schedule[1].classes[0])
    for step in range(3):
        batches = {"new": clips([new] * 4, seed=step)}
        if with_replay:
            batches["replay"] = clips([1, 3], seed=100 + step)
        run.step(batches, Progress(stage=1, epoch=0, step=step, total_steps=4))


def test_frozen_weights_and_batch_norm_buffers_stay_and_the_rest_learns():
    method, run = later_run(small())
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    train_steps(method, run, with_replay=True)
    changed = {
        name
        for name, tensor in method.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == set(run.trainable)
    assert all("project" in name or "head" in name for name in changed)
    assert any("running_mean" in name for name in before)


def test_batch_norms_adapt_where_asked():
    config = small(batch_norm="adapted")
    method, run = later_run(replace(config, later=replace(config.later, trunk=("*",))))
    mean = next(name for name in method.state_dict() if name.endswith("running_mean"))
    assert mean.startswith("network")
    before = method.state_dict()[mean].clone()
    train_steps(method, run, with_replay=False)
    assert not torch.equal(method.state_dict()[mean], before)
    assert any("stages.1.weight" in name for name in run.trainable)


def test_a_pattern_without_a_match_names_the_trunks_parts():
    method = method_at(0, small(basic=PhaseConfig(trunk=("layer4.*",))))
    with pytest.raises(ValueError, match=r"'layer4\.\*' matches no parameter.*project"):
        method.stage(0)


def test_teachers_are_the_networks_before():
    method = method_at(1)
    batch = clips([0] * 3)
    view = batch.views[0]
    first = method.basic_teacher(view.video_BTCHW, view.has_face_BT).logits_BS
    assert first.shape == (3, 4)
    method.begin_stage(2)
    assert torch.equal(method.basic_teacher(view.video_BTCHW, view.has_face_BT).logits_BS, first)
    assert method.previous_teacher(view.video_BTCHW, view.has_face_BT).logits_BS.shape == (3, 5)
    alone = method_at(1, small(distillation=DistillationConfig(teachers="none")))
    assert alone.basic_teacher is None
    assert alone.previous_teacher is None


@pytest.mark.parametrize("kind", ["linear", "cosine", "multi_label"])
@pytest.mark.parametrize("teachers", ["none", "basic_padded", "basic", "previous", "both"])
def test_every_setting_of_head_and_teachers_trains(kind, teachers):
    config = small(head=HeadConfig(kind=kind), distillation=DistillationConfig(teachers=teachers))
    method, run = later_run(config)
    train_steps(method, run, with_replay=True)
    assert all(parameter.grad is not None for parameter in run.trainable.values())


# The end of a stage


def end_stage(method: ComplexFer, shown: dict[str, list[str]]) -> None:
    """``shown`` gets the labels that each split was asked for."""

    def scan(spec):
        shown.setdefault(spec.split, []).extend(spec.labels)
        assert all(view.augmentation is None for view in spec.views)
        yield clips([CLASSES.index(name) for name in spec.labels for _ in range(3)])

    method.end_stage(scan)


def test_a_stage_ends_with_exemplars_and_counts_of_what_is_learnt():
    method = method_at(0)
    assert "replay" not in method.stage(1).streams
    shown: dict[str, list[str]] = {}
    end_stage(method, shown)
    assert shown["train"] == list(method.schedule[0].classes)
    assert len(method.memory) == 4 * 2
    replay = method.stage(1).streams["replay"]
    assert set(replay.clip_ids) == set(method.memory.clip_ids)
    (report,) = method.stage_reports()
    assert [sum(row) for row in report.confusions["test"]] == [3, 3, 3, 3]
    method.begin_stage(1)
    end_stage(method, shown)
    assert len(method.memory) == 5 * 2
    again = ComplexFer(method.config, CLASSES)
    again.load_json_state(method.json_state())
    assert again.memory.exemplars == method.memory.exemplars
    assert again.stage_reports() == method.stage_reports()


def test_without_budget_nothing_is_kept_and_teachers_go_when_all_is_learnt():
    method = method_at(0, small(memory=MemoryConfig(budget="none")))
    for index in range(4):
        if index:
            method.begin_stage(index)
        end_stage(method, {})
    assert len(method.memory) == 0
    assert method.stage(4) is None
    assert not any(name.endswith("teacher") for name, _ in method.named_children())
    shipped = ComplexFer(method.config, CLASSES)
    shipped.load_json_state(method.json_state())
    for index in range(4):
        shipped.begin_stage(index)
    shipped.load_state_dict(method.state_dict())
    batch = clips([0] * 2)
    assert torch.equal(shipped.eval().predict(batch).logits_BK, method.predict(batch).logits_BK)


# iCaRL's classifier


def test_the_nearest_mean_by_hand():
    nearest = NearestMean(2, scale=10.0)
    nearest.grow(2)
    nearest.grow(1)
    # Directions (1, 0) and (0, 1), however long: their mean points to 45 degrees.
    nearest.fill(0, torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    nearest.fill(2, torch.tensor([[0.0, -2.0]]))
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [0.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(nearest.means_SD, expected)
    logits = nearest(torch.tensor([[3.0, 4.0], [0.0, -9.0]]))
    # (0.6, 0.8) and (0, -1).
    by_hand = [[10 * 1.4 * half, NOT_LEARNT, -8.0], [-10 * half, NOT_LEARNT, 10.0]]
    torch.testing.assert_close(logits, torch.tensor(by_hand), rtol=1e-5, atol=1e-6)


POOL = clips([index for index in range(len(CLASSES)) for _ in range(3)], seed=5)
"""Three clips of every class."""


def scan_pool(spec):
    names = [CLASSES[label] for label in POOL.label_B.tolist()]
    wanted = [
        row
        for row, (clip_id, name) in enumerate(zip(POOL.clip_ids, names, strict=True))
        if name in spec.labels and (spec.clip_ids is None or clip_id in spec.clip_ids)
    ]
    for row in wanted:
        yield POOL.rows(row, row + 1)


def nearest_mean_run() -> ComplexFer:
    """Two stages of a network that answers with the nearest mean."""
    method = method_at(0, small(classifier="nearest_mean"))
    method.end_stage(scan_pool)
    method.begin_stage(1)
    method.end_stage(scan_pool)
    return method


def test_remembered_clips_decide_once_a_stage_has_ended():
    method = nearest_mean_run()
    prediction = method.predict(POOL)
    unit_BD = F.normalize(prediction.features_BD, dim=1)
    for name in method.learnt:
        kept = [POOL.clip_ids.index(one.clip_id) for one in method.memory.of_class(name)]
        assert len(kept) == 2
        mean_D = F.normalize(unit_BD[kept].mean(dim=0), dim=0)
        found_B = prediction.logits_BK[:, CLASSES.index(name)]
        expected_B = method.config.head.cosine_scale * unit_BD @ mean_D
        torch.testing.assert_close(found_B, expected_B, rtol=1e-4, atol=1e-6)
    unknown = [CLASSES.index(method.schedule[stage].classes[0]) for stage in (2, 3)]
    assert (prediction.logits_BK[:, unknown] == NOT_LEARNT).all()


def test_while_a_stage_trains_the_head_answers():
    method = nearest_mean_run()
    method.begin_stage(2)
    head_BS = method.network(POOL.views[0].video_BTCHW, POOL.views[0].has_face_BT).logits_BS
    learnt = [CLASSES.index(name) for name in method.learnt]
    assert torch.equal(method.predict(POOL).logits_BK[:, learnt], head_BS)


def test_what_a_stage_counts_is_what_the_nearest_mean_says():
    method = nearest_mean_run()
    predicted_B = method.predict(POOL).logits_BK.argmax(dim=1)
    hits = [
        int((predicted_B[POOL.label_B == CLASSES.index(name)] == CLASSES.index(name)).sum())
        for name in method.learnt
    ]
    counted = method.stage_reports()[-1].confusions["test"]
    assert [counted[place][place] for place in range(len(hits))] == hits
    head = ComplexFer.predict(method_at(0), POOL).logits_BK.argmax(dim=1)
    assert not torch.equal(head, predicted_B)


def test_means_are_saved_and_answer_again():
    method = nearest_mean_run()
    again = ComplexFer(method.config, CLASSES)
    again.load_json_state(method.json_state())
    for index in range(2):
        again.begin_stage(index)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.eval().predict(POOL).logits_BK, method.predict(POOL).logits_BK)


def test_a_class_whose_clips_are_all_forgotten_is_not_answered():
    method = method_at(0, small(classifier="nearest_mean"))
    method.end_stage(scan_pool)
    method.begin_stage(1)
    gone = method.memory.of_class("anger")
    left = tuple(one for one in method.memory.exemplars if one not in gone)
    method.memory.exemplars = left
    method.end_stage(scan_pool)
    assert (method.predict(POOL).logits_BK[:, CLASSES.index("anger")] == NOT_LEARNT).all()


def test_the_nearest_mean_needs_a_memory():
    with pytest.raises(ValueError, match="needs remembered clips: set classifier=head"):
        small(classifier="nearest_mean", memory=MemoryConfig(budget="none"))


@pytest.mark.parametrize("profile", ["paper", "robust", "tiny"])
def test_profiles_fit_cfee(profile):
    config: ComplexFerConfig = getattr(ComplexFerConfig, profile)()
    from mien.clips.labels import CFEE22

    phases = make_schedule(config, CFEE22.classes)
    assert sum(len(phase.classes) for phase in phases if phase.is_new) == (
        21 if profile == "paper" else 22
    )
    assert len([phase for phase in phases if phase.kind == "later"]) == 15
