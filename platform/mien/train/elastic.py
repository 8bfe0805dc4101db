"""Trainings that go on with fewer workers while nodes are gone, and grow back.

The order of clips and the size of a batch over all workers don't depend on the number of workers,
so a step sees the same clips whoever is there. What changes is the order in which gradients are
summed: results agree up to rounding, not to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from mien.train.pace import Pace
from mien.train.plan import TrainPlan
from mien_models.contract import StreamSpec


def workers_to_start(plan: TrainPlan, room: int) -> int:
    """How many workers to start where the cluster holds ``room`` of them."""
    if plan.least_workers is None:
        return plan.workers
    return min(plan.workers, max(plan.least_workers, room))


class Growth:
    """Watches whether a training that runs with fewer workers than it may could have more.

    Ray Train's own elastic groups are not used: they count the nodes of one group alone, those
    without a label ``ray-subcluster`` (Ray 2.60), and so find no room on a cluster with groups.
    """

    def __init__(
        self, plan: TrainPlan, running: int, room: Callable[[], int], grow: Callable[[], object]
    ) -> None:
        self._plan, self._running, self._room, self._grow = plan, running, room, grow
        self._pace = Pace(plan.grow_check_s)
        self._is_asked = False

    def look(self) -> None:
        """To be called often; asks for the growth once."""
        if self._is_asked or not self._pace.is_due():
            return
        if workers_to_start(self._plan, self._room()) > self._running:
            self._is_asked = True
            self._grow()


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
