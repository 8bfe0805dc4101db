"""Trainings that go on with fewer workers while nodes are gone, and grow back.

The order of clips and the size of a batch over all workers don't depend on the number of workers,
so a step sees the same clips whoever is there. What changes is the order in which gradients are
summed: results agree up to rounding, not to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mien.train.plan import TrainPlan
from mien_models.contract import StreamSpec


def workers_asked(plan: TrainPlan) -> int | tuple[int, int]:
    """What Ray Train is asked for: a number, or the fewest and the most."""
    return plan.workers if plan.least_workers is None else (plan.least_workers, plan.workers)


def refuse_uneven_batches(plan: TrainPlan, streams: Iterable[StreamSpec]) -> None:
    """Refuses an elastic training that would stop at some number of workers.

    Args:
        plan: says how many workers there may be.
        streams: those that are trained on.

    Raises:
        ValueError: a batch that cannot be shared evenly by each number of workers in question.
    """
    if plan.least_workers is None:
        return
    counts = range(plan.least_workers, plan.workers + 1)
    for spec in streams:
        uneven = [n for n in counts if spec.batch_size % (n * spec.clips_per_source)]
        if uneven:
            step = math.lcm(*counts) * spec.clips_per_source
            larger = math.ceil(spec.batch_size / step) * step
            raise ValueError(
                f"train.least_workers={plan.least_workers}: batches of {spec.batch_size} clips "
                f"(stream of split {spec.split!r}) cannot be shared evenly by "
                f"{' or '.join(map(str, uneven))} workers; take a batch_size of {larger}, or "
                f"train.least_workers={plan.workers} and train.workers={plan.workers}"
            )
