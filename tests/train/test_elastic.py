"""Runs that go on with fewer workers: what is refused before they start."""

from __future__ import annotations

import pytest

from mien.train.elastic import refuse_uneven_batches, workers_asked
from mien.train.plan import TrainPlan
from mien_models.contract import StreamSpec


def test_every_number_of_workers_has_to_share_the_batches() -> None:
    plan = TrainPlan(workers=4, least_workers=2)
    refuse_uneven_batches(plan, [StreamSpec(batch_size=12), StreamSpec(batch_size=24)])
    with pytest.raises(ValueError, match=r"batches of 16 clips .* by 3 workers; .* of 24, or"):
        refuse_uneven_batches(plan, [StreamSpec(batch_size=12), StreamSpec(batch_size=16)])
    with pytest.raises(ValueError, match=r"by 4 workers; .* of 24, or"):
        refuse_uneven_batches(plan, [StreamSpec(batch_size=12, clips_per_source=2)])


def test_a_run_that_is_not_elastic_asks_for_its_number() -> None:
    refuse_uneven_batches(TrainPlan(workers=3), [StreamSpec(batch_size=4)])
    assert workers_asked(TrainPlan(workers=3)) == 3
    assert workers_asked(TrainPlan(workers=3, least_workers=1)) == (1, 3)


@pytest.mark.parametrize("least", [0, 3])
def test_the_least_is_one_to_all(least: int) -> None:
    with pytest.raises(ValueError, match=r"least_workers must be from 1 to train\.workers=2"):
        TrainPlan(workers=2, least_workers=least)
