"""Planning: deterministic, exact shares, and what is planted is what the plan says."""

from collections import Counter

import pytest

from mien.synth import COMPOUNDS, SynthSpec, plan_clips
from mien.synth.expressions import PROTOTYPES


def test_the_same_spec_gives_the_same_plan_and_another_seed_another():
    spec = SynthSpec(num_subjects=4, label_noise=0.2, ambiguous=0.2, multi_expression=0.2, seed=5)
    assert plan_clips(spec) == plan_clips(spec)
    other = plan_clips(SynthSpec(num_subjects=4, seed=6))
    assert plan_clips(spec)[0].person.traits != other[0].person.traits


def test_people_and_clips_do_not_change_when_the_set_grows():
    small = plan_clips(SynthSpec(num_subjects=2))
    large = {plan.clip_id: plan for plan in plan_clips(SynthSpec(num_subjects=5))}
    assert all(large[plan.clip_id] == plan for plan in small)


def test_every_subject_shows_every_class_as_often_as_asked():
    plans = plan_clips(SynthSpec(num_subjects=3, clips_per_class=2))
    counts = Counter((plan.person.subject_id, plan.label) for plan in plans)
    assert len(counts) == 21
    assert set(counts.values()) == {2}
    assert len({plan.clip_id for plan in plans}) == 42


def test_label_noise_is_planted_exactly_and_always_wrong():
    plans = plan_clips(SynthSpec(num_subjects=20, unlabelled_subjects=5, label_noise=0.3))
    noisy = [plan for plan in plans if plan.is_label_noise]
    assert len(noisy) == round(0.3 * 20 * 7)
    for plan in plans:
        if plan.label is not None:
            assert (plan.label != plan.true_label) == plan.is_label_noise
    assert len({plan.label for plan in noisy}) == 7  # flips go everywhere


def test_unlabelled_people_have_no_label_but_a_truth():
    plans = plan_clips(SynthSpec(num_subjects=2, unlabelled_subjects=3))
    unlabelled = [plan for plan in plans if plan.label is None]
    assert len(unlabelled) == 3 * 7
    assert {plan.person.subject_id for plan in unlabelled} == {"s0002", "s0003", "s0004"}
    assert Counter(plan.true_label for plan in unlabelled) == dict.fromkeys(PROTOTYPES, 3)


def test_ambiguous_clips_are_counted_and_their_soft_labels_sum_to_one():
    plans = plan_clips(SynthSpec(num_subjects=10, ambiguous=0.4))
    chosen = [plan for plan in plans if plan.is_ambiguous]
    assert len(chosen) == 28
    for plan in chosen:
        shares = plan.soft_label
        assert sum(shares.values()) == pytest.approx(1.0)
        assert len(shares) == 2
        assert max(shares, key=shares.get) == plan.true_label


def test_weak_expressions_are_weaker_than_clear_ones():
    clear = {plan.clip_id: plan for plan in plan_clips(SynthSpec(num_subjects=10))}
    weak = [
        plan
        for plan in plan_clips(SynthSpec(num_subjects=10, ambiguous=1.0))
        if plan.true_label != "neutral" and "neutral" in plan.soft_label
    ]
    assert len(weak) > 10
    for plan in weak:
        strong = clear[plan.clip_id].expressions[0].action_units
        shown = plan.expressions[0].action_units
        assert sum(shown.values()) < 0.6 * sum(strong.values())


def test_several_expressions_follow_one_another_and_the_key_time_is_the_labelled_apex():
    plans = plan_clips(SynthSpec(num_subjects=6, multi_expression=0.5, duration_s=4.0))
    several = [plan for plan in plans if len(plan.expressions) > 1]
    assert len(several) == 21
    for plan in several:
        labelled = plan.expressions[0]
        assert labelled.emotion == plan.true_label
        assert labelled.apex_s <= plan.key_time_s <= labelled.release_s
        for other in plan.expressions[1:]:
            assert other.emotion != plan.true_label
            assert other.release_s < labelled.onset_s or other.onset_s > labelled.release_s


def test_expressions_rise_and_fall_inside_the_clip():
    for plan in plan_clips(SynthSpec(num_subjects=8, multi_expression=0.3)):
        for shown in plan.expressions:
            assert 0 <= shown.onset_s < shown.apex_s < shown.release_s < shown.offset_s
            assert shown.release_s <= plan.duration_s


@pytest.mark.parametrize("name", list(COMPOUNDS))
def test_compounds_hold_the_units_of_both_emotions(name):
    spec = SynthSpec(num_subjects=6, classes=(), compounds=(name,))
    first, second = COMPOUNDS[name]
    for plan in plan_clips(spec):
        assert plan.label == name
        assert plan.soft_label == {first: 0.5, second: 0.5}
        shown = {unit for unit, value in plan.expressions[0].action_units.items()}
        for emotion in (first, second):
            assert any(set(way) <= shown for way in PROTOTYPES[emotion])


def test_audio_faults_are_planted_exactly_and_apart():
    plans = plan_clips(SynthSpec(num_subjects=10, missing_audio=0.2, silent_audio=0.1))
    assert Counter(plan.audio for plan in plans) == {"speech": 49, "missing": 14, "silent": 7}


def test_min_intensity_and_nuisance_bound_what_is_drawn():
    calm = plan_clips(SynthSpec(num_subjects=10, min_intensity=0.8, nuisance=0.0))
    assert all(plan.intensity >= 0.8 for plan in calm if plan.true_label != "neutral")
    assert all(plan.intensity == 0.0 for plan in calm if plan.true_label == "neutral")
    assert {plan.scene.yaw_deg for plan in calm} == {0.0}
    assert len({plan.scene.exposure for plan in calm}) == 1
    wild = plan_clips(SynthSpec(num_subjects=10, nuisance=1.0))
    assert max(abs(plan.scene.yaw_deg) for plan in wild) > 12
    assert min(plan.scene.noise_sigma for plan in wild) >= 0.0


def test_people_differ():
    people = [plan.person for plan in plan_clips(SynthSpec(num_subjects=60, classes=("fear",)))]
    for column in ("sex", "hair_style", "hair_colour", "eye_colour", "voice"):
        assert len({getattr(person, column) for person in people}) > 1, column
    ages = [person.age for person in people]
    assert min(ages) < 25
    assert max(ages) > 55


def test_sets_with_another_prefix_hold_other_people():
    ours = plan_clips(SynthSpec(num_subjects=1))
    theirs = plan_clips(SynthSpec(num_subjects=1, subject_prefix="t"))
    assert ours[0].person.traits != theirs[0].person.traits
