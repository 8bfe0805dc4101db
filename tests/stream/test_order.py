"""Order of clips: a function of (seed, epoch), the same on any number of workers."""

from __future__ import annotations

import pickle
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.seeds import derive_seed
from mien.stream.order import ClipOrder, StreamError
from mien_models.contract import StreamSpec


def make_order(num, batch_size, seed=0, *, labels=None, subjects=None, sources=None, **rules):
    return ClipOrder(
        StreamSpec(batch_size=batch_size, **rules),
        labels=[i % 3 for i in range(num)] if labels is None else labels,
        subjects=[-1] * num if subjects is None else subjects,
        sources=sources,
        seed=seed,
    )


def shown_in(order, epoch, rank=0, world_size=1):
    """Clips of an epoch, in order; of all workers or of one."""
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    shares = [np.array_split(order.batch(step)[1], world_size)[rank] for step in steps]
    return np.concatenate(shares).tolist()


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


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 30))
def test_clips_left_out_of_an_epoch_rotate(num, batch_size, seed, epochs):
    if num < batch_size:
        return
    order = make_order(num, batch_size, seed)
    times_shown = Counter(dict.fromkeys(range(num), 0))
    before = set()
    for epoch in range(epochs):
        shown = shown_in(order, epoch)
        left_out = set(range(num)) - set(shown)
        assert len(shown) == len(set(shown)) == num - num % batch_size
        assert not left_out & before
        before = left_out
        times_shown.update(shown)
    assert max(times_shown.values()) - min(times_shown.values()) <= 1


@given(
    world_size=st.integers(1, 4),
    per_worker=st.integers(1, 4),
    num=st.integers(1, 70),
    start=st.integers(0, 60),
)
def test_workers_share_each_batch_wherever_they_start(world_size, per_worker, num, start):
    batch_size = world_size * per_worker
    if num < batch_size:
        return
    whole = make_order(num, batch_size, 3)
    for step in range(start, start + 3):
        shares = [
            # Each worker has an order of its own, and may have begun elsewhere.
            make_order(num, batch_size, 3).batch(step)[1].reshape(world_size, -1)[rank]
            for rank in range(world_size)
        ]
        assert np.concatenate(shares).tolist() == whole.batch(step)[1].tolist()


@given(
    counts=st.lists(st.integers(2, 9), min_size=1, max_size=12),
    per_source=st.integers(2, 3),
    groups_per_batch=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_batches_of_several_clips_of_each_source(counts, per_source, groups_per_batch, epoch):
    sources = np.repeat(np.arange(len(counts)) + 100, counts)
    num_groups = sum(count // per_source for count in counts)
    options = {"sources": sources, "clips_per_source": per_source}
    batch_size = per_source * groups_per_batch
    if min(counts) < per_source or num_groups < groups_per_batch:
        with pytest.raises(StreamError, match=r"have fewer than clips_per_source|one batch"):
            make_order(len(sources), batch_size, **options)
        return
    order = make_order(len(sources), batch_size, **options)
    shown = shown_in(order, epoch)
    assert len(set(shown)) == len(shown)
    assert len(shown) == (num_groups - num_groups % groups_per_batch) * per_source
    for group in np.asarray(shown).reshape(-1, per_source):
        assert len(set(sources[group].tolist())) == 1


def test_groups_of_a_source_are_made_anew_in_every_epoch():
    sources = [0] * 6 + [1] * 7
    order = make_order(13, 6, sources=sources, clips_per_source=2)
    pairs = [
        {tuple(sorted(pair)) for pair in np.reshape(shown_in(order, epoch), (-1, 2)).tolist()}
        for epoch in range(4)
    ]
    assert len(set(map(frozenset, pairs))) == 4


def test_several_clips_of_a_source_need_sources():
    with pytest.raises(
        StreamError, match=r"column `source` .* 3 of the stream's 8 clips have none"
    ):
        make_order(8, 4, sources=[1, 1, 1, 1, 1, -1, -1, -1], clips_per_source=2)
    with pytest.raises(StreamError, match="2 of 3 sources have fewer than clips_per_source=3"):
        make_order(8, 3, sources=[1, 1, 1, 1, 2, 2, 3, 3], clips_per_source=3)
    with pytest.raises(ValueError, match="must be at least 1 and divide batch_size=4"):
        StreamSpec(batch_size=4, clips_per_source=3)
    with pytest.raises(ValueError, match="without subject_cap"):
        StreamSpec(batch_size=4, clips_per_source=2, subject_cap=1)


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
    grouped = make_order(8, 2, sources=[5, 5, 5, 5, 6, 6, 6, 6], clips_per_source=2)
    assert all(grouped.substitute(0, clip, 0) // 4 == clip // 4 for clip in range(8))


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40), st.integers(1, 3), st.integers(0, 9))
def test_a_cap_keeps_the_first_clips_of_each_person(subjects, cap, seed):
    order = make_order(len(subjects), 1, seed, subjects=subjects, subject_cap=cap)
    uncapped = make_order(len(subjects), 1, seed)
    seen: Counter[int] = Counter()
    expected = []
    for clip in shown_in(uncapped, 0):
        seen[subjects[clip]] += 1
        if subjects[clip] < 0 or seen[subjects[clip]] <= cap:
            expected.append(clip)
    assert shown_in(order, 0) == expected


def test_a_million_clips_are_ordered_in_less_than_two_seconds_each_way():
    num = 1_000_000
    numbers = np.random.default_rng(0).integers(0, 7, num)
    people = np.random.default_rng(1).integers(0, 5000, num)
    for rules in ({}, {"sampler": "class_uniform"}, {"subject_cap": 50}, {"clips_per_source": 4}):
        started = time.process_time()
        order = make_order(num, 64, labels=numbers, subjects=people, sources=people, **rules)
        order.batch(order.steps_per_epoch * 3 + 5)
        assert time.process_time() - started < 2, rules
        assert len(pickle.dumps(order)) < 25 * num


def test_seeds_do_not_depend_on_the_process():
    assert derive_seed(3, "order", 0) == 4862670786762775343
    assert derive_seed("1", 2) != derive_seed(1, "2")
