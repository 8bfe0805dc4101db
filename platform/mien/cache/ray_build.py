"""Parts of a build as Ray tasks, on the nodes that decode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import ray
import ray.exceptions

from mien.cache.build import Made, Part, make_part
from mien.cluster.groups import NodeGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class RayParts:
    """Runs parts in Ray tasks; a task whose node dies is run again by Ray."""

    tasks: int
    """Tasks at once."""
    cpus_per_task: float = 1.0
    group: NodeGroup = field(default_factory=NodeGroup)
    """The nodes that decode."""

    def __call__(self, parts: Iterator[Part]) -> Iterator[tuple[Part, Made]]:
        """Each part when it is done."""
        make = ray.remote(make_part).options(
            num_cpus=self.cpus_per_task, label_selector=self.group.selector or None
        )
        running = {make.remote(part): part for part in islice(parts, self.tasks)}
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                part = running.pop(done)
                made = _result(done)
                for following in islice(parts, 1):
                    running[make.remote(following)] = following
                yield part, made
        finally:
            for task in running:
                ray.cancel(task)


def _result(task: ray.ObjectRef[Made]) -> Made:
    try:
        made: Made = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        # As it was raised in the task: Ray's own wrapping is a page long.
        raise error.cause from error
    return made
