"""Groups of nodes: those that train and those that decode.

A group is a label on nodes, ``ray-subcluster=NAME``: the key by which Ray Data counts the
resources of a dataset and asks an autoscaler for more, so that decoding asks for decoding nodes.
KubeRay, cluster.yaml and ``ray start --labels`` set it. Without groups every node does everything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LABEL = "ray-subcluster"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGroup:
    """Nodes of one kind."""

    label: str = ""
    """Value of the nodes' label ``ray-subcluster``; empty: any node that has no such label."""
    cpus: int = 8
    """Processors of a node."""
    memory_gb: int = 32
    gpus: int = 0
    most: int = 16
    """Nodes that an autoscaler may start at most."""

    def __post_init__(self) -> None:
        # A Kubernetes group, a pod's name and a label's value at once.
        if self.label and not re.fullmatch(r"[a-z]([a-z0-9-]{0,13}[a-z0-9])?", self.label):
            raise ValueError(
                f"label={self.label!r}: the name of a group of nodes is 1 to 15 small letters, "
                "digits and -, and starts with a letter"
            )
        for name, least in (("cpus", 1), ("memory_gb", 1), ("gpus", 0), ("most", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def selector(self) -> dict[str, str]:
        """Ray's label selector for these nodes; empty where any node will do."""
        return {LABEL: self.label} if self.label else {}

    def members(self, nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The living nodes of the group; without a label all of them.

        Args:
            nodes: as ``ray.nodes()`` lists them.
        """
        wanted = self.selector.items()
        return [node for node in nodes if node["Alive"] and wanted <= node["Labels"].items()]

    def nodes_for(self, *, cpus: float, gpus: float = 0.0) -> int:
        """Nodes that hold so many processors and GPUs, at least one.

        Raises:
            ValueError: GPUs are wanted of nodes that have none.
        """
        if gpus and not self.gpus:
            raise ValueError(f"{gpus:g} GPUs are wanted of nodes without GPUs")
        by_gpu = math.ceil(gpus / self.gpus) if gpus else 0
        return max(1, math.ceil(cpus / self.cpus), by_gpu)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPlan:
    """Which nodes do what. Changes where a run computes, never what."""

    train: NodeGroup = field(default_factory=NodeGroup)
    """Nodes of the training workers."""
    decode: NodeGroup = field(default_factory=NodeGroup)
    """Nodes of the decoding tasks; the same label as ``train``: the same nodes."""
