"""Order of clips: a function of (seed, epoch), the same on any number of workers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.seeds import derive_seed
from mien.stream.order import ClipOrder, StreamError


def make_order(num, batch_size, seed=0, **options):
    labels = options.pop("labels", [i % 3 for i in range(num)])
    subjects = options.pop("subjects", [-1] * num)
    return ClipOrder(labels=labels, subjects=subjects, batch_size=batch_size, seed=seed, **options)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 5), st.integers(0, 4))
def test_an_epoch_shows_each_clip_at_most_once_and_drops_less_than_a_batch(
    num, batch_size, seed, epoch
):
    if num < batch_size:
        with pytest.raises(StreamError, match="fewer than one batch"):
            make_order(num, batch_size, seed)
        return
    order = make_order(num, batch_size, seed)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    batches = [order.batch(step) for step in steps]
    seen = np.concatenate([clips for _, clips in batches])
    assert {found for found, _ in batches} == {epoch}
    assert len(set(seen.tolist())) == len(seen) > num - batch_size
    assert all(len(clips) == batch_size for _, clips in batches)


@given(st.integers(0, 40))
def test_any_step_can_be_asked_for_first(step):
    in_turn = make_order(23, 5, seed=9)
    for earlier in range(step):
        in_turn.batch(earlier)
    at_once = make_order(23, 5, seed=9)
    assert in_turn.batch(step)[1].tolist() == at_once.batch(step)[1].tolist()


def test_epochs_and_seeds_have_their_own_orders():
    order = make_order(40, 40, seed=1)
    epochs = [tuple(order.batch(step)[1].tolist()) for step in range(5)]
    assert len(set(epochs)) == 5
    assert epochs[0] != tuple(make_order(40, 40, seed=2).batch(0)[1].tolist())


def test_class_uniform_draws_classes_equally_often():
    labels = [0] * 900 + [1] * 90 + [2] * 10
    order = make_order(1000, 100, labels=labels, sampler="class_uniform")
    drawn = Counter(labels[clip] for step in range(100) for clip in order.batch(step)[1].tolist())
    # 10,000 draws, p = 1/3: three standard deviations are 141.
    assert all(abs(drawn[label] - 10_000 / 3) < 142 for label in range(3))


def test_class_uniform_refuses_clips_without_a_label():
    with pytest.raises(StreamError, match="needs a label"):
        make_order(4, 2, labels=[0, 1, -1, 0], sampler="class_uniform")


def test_subject_cap_limits_known_people_only():
    subjects = [7] * 20 + [8] * 3 + [-1] * 10
    order = make_order(33, 1, subjects=subjects, subject_cap=4)
    epoch = [int(order.batch(step)[1][0]) for step in range(order.steps_per_epoch)]
    seen = Counter(subjects[clip] for clip in epoch)
    assert seen == {7: 4, 8: 3, -1: 10}


def test_a_substitute_has_the_same_label_and_is_another_clip():
    order = make_order(30, 3)
    for clip in range(30):
        other = order.substitute(2, clip, 0)
        assert other != clip
        assert other % 3 == clip % 3
    alone = make_order(3, 1, labels=[0, 1, 1])
    assert alone.substitute(0, 0, 0) in range(3)


def test_seeds_do_not_depend_on_the_process():
    assert derive_seed(3, "order", 0) == 4862670786762775343
    assert derive_seed("1", 2) != derive_seed(1, "2")
