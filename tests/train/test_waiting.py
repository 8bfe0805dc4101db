"""What a training says about nodes that are not there."""

from __future__ import annotations

from typing import Any

from mien.cluster.groups import LABEL, ClusterPlan, NodeGroup
from mien.train.plan import TrainPlan
from mien.train.waiting import Reminder, shortage

GROUPS = ClusterPlan(train=NodeGroup(label="train"), decode=NodeGroup(label="decode"))


def node(group: str, cpus: float, *, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Labels": {LABEL: group}, "Resources": {"CPU": cpus, "GPU": gpus}}


def test_room_is_counted_on_living_nodes_of_the_group() -> None:
    plan = TrainPlan(workers=3, cpus_per_worker=2)
    nodes = [node("train", 5), node("train", 8, alive=False), node("decode", 16)]
    said = shortage(plan, GROUPS, nodes, use_gpu=False)
    assert said == (
        "waiting for nodes: 3 training worker(s) of 2 CPU each are wanted on nodes labelled "
        "ray-subcluster=train, the cluster has room for 2"
    )
    assert shortage(plan, GROUPS, [*nodes, node("train", 2)], use_gpu=False) is None
    elastic = TrainPlan(workers=3, least_workers=2, cpus_per_worker=2)
    assert shortage(elastic, GROUPS, nodes, use_gpu=False) is None


def test_gpus_and_decoding_count_too() -> None:
    plan = TrainPlan(workers=1)
    said = shortage(plan, GROUPS, [node("train", 8), node("decode", 8)], use_gpu=True)
    assert said is not None
    assert "1 CPU and 1 GPU each" in said
    said = shortage(plan, GROUPS, [node("train", 8)], use_gpu=False)
    assert said is not None
    assert "decoding tasks of 1 CPU are wanted on nodes labelled ray-subcluster=decode" in said
    assert shortage(plan, ClusterPlan(), [node("train", 8)], use_gpu=False) is None


def test_it_is_said_again_as_long_as_it_lasts() -> None:
    lacking, said = ["a node", None, "a node"], []
    reminder = Reminder(lambda: lacking.pop(0), said.append, every_s=0.0)
    for _ in range(3):
        reminder.look()
    assert said == ["a node", "a node"]
    quiet = Reminder(lambda: "a node", said.append, every_s=1000.0)
    quiet.look()
    assert len(said) == 2
