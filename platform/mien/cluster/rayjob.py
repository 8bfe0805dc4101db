"""The Kubernetes manifest of a job: KubeRay's RayJob, from the template and the nodes it needs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from mien.cluster.errors import ClusterError
from mien.cluster.groups import LABEL, NodeGroup
from mien.cluster.jobs import JobRequest

CODE, COMMAND = "mien/code", "mien/command"
"""Annotations of a job."""
MAX_NAME = 47
"""KubeRay refuses longer names of a RayJob."""
_HEAD_CPUS, _HEAD_MEMORY_GB = 2, 8
_SHM_SHARE = 0.3
"""Of a pod's memory: what Ray takes for its object store."""

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDemand:
    """Nodes of one group that a job needs."""

    group: NodeGroup
    least: int
    """Nodes that are there from the start."""
    most: int
    """Nodes that the autoscaler may start."""

    def __post_init__(self) -> None:
        if self.most < self.least:
            name = self.group.label or "workers"
            raise ClusterError(
                f"the job needs {self.least} nodes of group {name!r}, and at most {self.most} may "
                "be started: larger nodes (cluster.*.cpus, cluster.*.gpus), more of them "
                "(cluster.*.most), or less work at once (train.workers, train.decode_tasks)"
            )


def make_rayjob(request: JobRequest, demands: list[GroupDemand], namespace: str) -> Manifest:
    """The manifest of a job.

    Args:
        request: the verb, the image and the job's name.
        demands: the groups of nodes, each label once.
        namespace: where the job runs.

    Raises:
        ClusterError: no image, a name that is too long, or what only a Ray cluster can do.
    """
    if not request.image:
        raise ClusterError(
            "a job on Kubernetes runs in an image that holds its code: give --image NAME@sha256:..."
            " (`docker build` with this repository's Dockerfile makes one)"
        )
    if request.needs_env:
        raise ClusterError(
            "--needs-env is for Ray clusters; on Kubernetes the environment comes from the secret "
            "mien-object-store, without which no pod starts"
        )
    if len(request.name) > MAX_NAME:
        raise ClusterError(f"{request.name!r} is longer than KubeRay's {MAX_NAME} characters")
    job, pod = _templates()
    job["metadata"] |= {
        "name": request.name,
        "namespace": namespace,
        "annotations": {CODE: request.code, COMMAND: json.dumps(request.command)},
    }
    job["spec"]["entrypoint"] = request.entrypoint
    (submitter,) = job["spec"]["submitterPodTemplate"]["spec"]["containers"]
    submitter["image"] = request.image
    cluster = job["spec"]["rayClusterSpec"]
    cluster["headGroupSpec"] = {
        # The head schedules; work on it would slow down every node.
        "rayStartParams": {"num-cpus": "0"},
        "template": _pod(pod, request.image, _HEAD_CPUS, _HEAD_MEMORY_GB, 0),
    }
    cluster["workerGroupSpecs"] = [_worker_group(pod, request.image, demand) for demand in demands]
    return job


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """A manifest as text."""
    return str(yaml.safe_dump(dict(manifest), sort_keys=False, width=100))


def _worker_group(pod: Manifest, image: str, demand: GroupDemand) -> Manifest:
    group = demand.group
    made: Manifest = {
        "groupName": group.label or "workers",
        "replicas": demand.least,
        "minReplicas": demand.least,
        "maxReplicas": demand.most,
        "rayStartParams": {},
        "template": _pod(pod, image, group.cpus, group.memory_gb, group.gpus),
    }
    return made | ({"labels": {LABEL: group.label}} if group.label else {})


def _pod(template: Manifest, image: str, cpus: int, memory_gb: int, gpus: int) -> Manifest:
    pod = copy.deepcopy(template)
    amounts = {"cpu": str(cpus), "memory": f"{memory_gb}Gi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    (container,) = pod["spec"]["containers"]
    container["image"] = image
    container["resources"] = {"requests": dict(amounts), "limits": dict(amounts)}
    shm = {"medium": "Memory", "sizeLimit": f"{max(1, round(memory_gb * _SHM_SHARE))}Gi"}
    pod["spec"]["volumes"].insert(0, {"name": "shm", "emptyDir": shm})
    return pod


def _templates() -> Iterator[Manifest]:
    text = resources.files(__package__).joinpath("rayjob.yaml").read_text(encoding="utf-8")
    return iter(yaml.safe_load_all(text))
