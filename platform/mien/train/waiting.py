"""Saying what a training waits for when the cluster has no room for it.

An autoscaler may be about to bring the nodes, so nothing ends here; but a silent wait can't be told
from a hang.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mien.cluster.groups import LABEL, ClusterPlan, NodeGroup
from mien.train.pace import Pace
from mien.train.plan import TrainPlan

REMIND_S = 60.0


def shortage(
    plan: TrainPlan, cluster: ClusterPlan, nodes: Iterable[Mapping[str, Any]], *, use_gpu: bool
) -> str | None:
    """What the living nodes lack for a training to run at all; None: nothing.

    Args:
        plan: how many workers, with what.
        cluster: on which nodes.
        nodes: as ``ray.nodes()`` lists them.
        use_gpu: whether each worker has a GPU.
    """
    nodes = list(nodes)
    wanted = plan.workers if plan.least_workers is None else plan.least_workers
    room = training_room(plan, cluster, nodes, use_gpu=use_gpu)
    if room < wanted:
        needs = _needs(plan, use_gpu=use_gpu)
        each = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
        return (
            f"waiting for nodes: {wanted} training worker(s) of {each} each are wanted on "
            f"{_named(cluster.train)}, the cluster has room for {room}"
        )
    if _room(nodes, cluster.decode, {"CPU": plan.cpus_per_decode_task}) == 0:
        return (
            f"waiting for nodes: decoding tasks of {plan.cpus_per_decode_task:g} CPU are wanted on "
            f"{_named(cluster.decode)}, the cluster has no room for any"
        )
    return None


def training_room(
    plan: TrainPlan, cluster: ClusterPlan, nodes: Iterable[Mapping[str, Any]], *, use_gpu: bool
) -> int:
    """How many training workers the living nodes of their group hold, were nothing else running."""
    return _room(nodes, cluster.train, _needs(plan, use_gpu=use_gpu))


def _needs(plan: TrainPlan, *, use_gpu: bool) -> dict[str, float]:
    return {"CPU": plan.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})


def _room(nodes: Iterable[Mapping[str, Any]], group: NodeGroup, each: Mapping[str, float]) -> int:
    """How many fit on the living ones, were nothing else running."""
    return sum(
        min(int(node["Resources"].get(name, 0.0) // amount) for name, amount in each.items())
        for node in group.members(nodes)
    )


def _named(group: NodeGroup) -> str:
    return f"nodes labelled {LABEL}={group.label}" if group.label else "any node"


class Reminder:
    """Says once a minute what is lacking, while it is lacking."""

    def __init__(
        self,
        lacking: Callable[[], str | None],
        say: Callable[[str], None],
        *,
        every_s: float = REMIND_S,
    ) -> None:
        self._lacking, self._say, self._pace = lacking, say, Pace(every_s)

    def look(self) -> None:
        """To be called often."""
        if self._pace.is_due() and (reason := self._lacking()) is not None:
            self._say(reason)
