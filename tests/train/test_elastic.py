"""Runs that go on with fewer workers: what is refused before they start."""

from __future__ import annotations

import pytest

from mien.train.elastic import Growth, refuse_uneven_batches, workers_to_start
from mien.train.plan import TrainPlan
from mien_models.contract import StreamSpec


def test_every_number_of_workers_has_to_share_the_batches() -> None:
    plan = TrainPlan(workers=4, least_workers=2)
    refuse_uneven_batches(plan, [StreamSpec(batch_size=12), StreamSpec(batch_size=24)])
    with pytest.raises(ValueError, match=r"batches of 16 clips .* by 3 workers; .* of 24, or"):
        refuse_uneven_batches(plan, [StreamSpec(batch_size=12), StreamSpec(batch_size=16)])
    with pytest.raises(ValueError, match=r"by 4 workers; .* of 24, or"):
        refuse_uneven_batches(plan, [StreamSpec(batch_size=12, clips_per_source=2)])


def test_as_many_start_as_fit_and_may() -> None:
    refuse_uneven_batches(TrainPlan(workers=3), [StreamSpec(batch_size=4)])
    assert workers_to_start(TrainPlan(workers=3), room=1) == 3
    elastic = TrainPlan(workers=4, least_workers=2)
    assert [workers_to_start(elastic, room) for room in (0, 2, 3, 9)] == [2, 2, 3, 4]


def test_growth_is_asked_for_once_and_only_where_there_is_room() -> None:
    plan = TrainPlan(workers=3, least_workers=1, grow_check_s=1e-9)
    rooms, asked = [1, 2, 3], []
    growth = Growth(plan, 1, lambda: rooms.pop(0), lambda: asked.append(len(rooms)))
    for _ in range(3):
        growth.look()
    # At the room of 2; nobody looks again.
    assert asked == [1]
    full = Growth(plan, 3, lambda: 9, lambda: asked.append(-1))
    full.look()
    assert asked == [1]


@pytest.mark.parametrize("least", [0, 3])
def test_the_least_is_one_to_all(least: int) -> None:
    with pytest.raises(ValueError, match=r"least_workers must be from 1 to train\.workers=2"):
        TrainPlan(workers=2, least_workers=least)
