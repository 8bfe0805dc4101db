"""Groups of nodes, and the metrics that say whether there are enough of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mien.cluster.groups import ClusterPlan, NodeGroup
from mien.stream.ray_executor import RayExecutor
from mien.track.tracker import NoTracker
from mien.train.prometheus import GAUGES, observed


def test_group_selects_its_label_and_no_group_selects_nothing() -> None:
    assert NodeGroup(label="decode").selector == {"ray-subcluster": "decode"}
    assert ClusterPlan().train.selector == {}
    assert RayExecutor().group.selector == {}


def test_nodes_for_a_demand() -> None:
    group = NodeGroup(cpus=8, gpus=4)
    assert group.nodes_for(cpus=0) == 1
    assert group.nodes_for(cpus=8.0) == 1
    assert group.nodes_for(cpus=8.5) == 2
    assert group.nodes_for(cpus=1, gpus=9) == 3
    with pytest.raises(ValueError, match="2 GPUs are wanted of nodes without GPUs"):
        NodeGroup().nodes_for(cpus=1, gpus=2)


@pytest.mark.parametrize("label", ["Train", "1a", "a_b", "a-", "x" * 16])
def test_names_that_kubernetes_would_refuse_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match="name of a group of nodes"):
        NodeGroup(label=label)


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"gpus": -1}, {"memory_gb": 0}, {"most": 0}])
def test_sizes_that_are_none_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        NodeGroup(**wrong)


def test_observed_tracker_passes_everything_on() -> None:
    logged: list[tuple[str, float, int]] = []
    seen: list[Mapping[str, float]] = []

    class Recorded(NoTracker):
        run_id = "run-7"

        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            logged.extend((name, value, step) for name, value in metrics.items())

    tracker = observed(Recorded(), seen.append)
    tracker.log_metrics({"train/clips_per_s": 3.0}, 5)
    tracker.set_tags({"a": "b"})
    assert tracker.run_id == "run-7"
    assert logged == [("train/clips_per_s", 3.0, 5)]
    assert seen == [{"train/clips_per_s": 3.0}]


def test_gauges_have_names_that_prometheus_takes() -> None:
    names = [name for name, _ in GAUGES.values()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("mien_") and name.isidentifier() for name in names)
