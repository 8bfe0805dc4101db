"""From a verb with its arguments to a job that a cluster can run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mien.cluster.errors import ClusterError
from mien.cluster.groups import NodeGroup
from mien.cluster.rayjob import GroupDemand
from mien.cluster.working_tree import WorkingTree
from mien.media.storage import is_absolute, is_remote
from mien_jobs import cli

if TYPE_CHECKING:
    from mien_jobs.recipe import Recipe

_NOT_SUBMITTED = ("submit", "jobs")
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"


def read_command(command: Sequence[str]) -> Recipe | None:
    """Checks a verb and its arguments as the job would; the recipe, where the verb has one.

    Raises:
        ClusterError: no verb, or one that makes no sense on a cluster.
        ValueError: the recipe's settings are wrong.
        SystemExit: the arguments are wrong, and argparse has said how.
    """
    if not command or command[0] not in cli.VERBS or command[0] in _NOT_SUBMITTED:
        verbs = ", ".join(verb for verb in cli.VERBS if verb not in _NOT_SUBMITTED)
        raise ClusterError(
            f"after -- stands what the cluster is to do, such as `-- train rdfer`; verbs: {verbs}"
        )
    parsed = cli.build_parser(command[0]).parse_args(list(command))
    return _recipe_of(parsed)


def _recipe_of(parsed: argparse.Namespace) -> Recipe | None:
    if parsed.verb != "train":
        return None
    from mien_jobs.verbs.train import build_recipe

    return build_recipe(parsed)[0]


def refuse_lost_runs(recipe: Recipe, *, on_kubernetes: bool) -> None:
    """A relative folder is the job's own, which is gone with the job; in a pod every folder is.

    Raises:
        ClusterError: names the setting.
    """
    for setting, location in (("storage", recipe.storage), ("data.cache", recipe.data.cache)):
        if not location or is_remote(location):
            continue
        if on_kubernetes or not is_absolute(location):
            raise ClusterError(
                f"{setting}={location} would be a folder of the job alone and lost with it; name "
                f"a bucket (--set {setting}=s3://BUCKET/{Path(location).name})"
                + ("" if on_kubernetes else ", or an absolute path that all nodes share")
            )


def refuse_unreachable_files(command: Sequence[str], tree: WorkingTree | None) -> list[str]:
    """Files of this machine that the arguments name, which the cluster won't find.

    Returns:
        Absolute paths; they must be on a disk that the cluster shares.

    Raises:
        ClusterError: a relative path to a file that is not taken along.
    """
    shared = []
    for argument in command[1:]:
        value = argument.rpartition("=")[2]
        if not value or value.startswith("-") or is_remote(value) or not os.path.exists(value):
            continue
        if os.path.isabs(value):
            shared.append(value)
        elif ("/" in value or "." in value) and not (tree is not None and tree.has(value)):
            raise ClusterError(
                f"{value} is a file of this machine that the job does not take along (only what "
                "git tracks is uploaded, and paths count from the top of the repository); put it "
                "where the cluster reaches it, and give s3://... or an absolute path on a shared "
                "disk"
            )
    return shared


def demands_of(recipe: Recipe | None) -> list[GroupDemand]:
    """The nodes that a job needs, by group.

    Raises:
        ClusterError: more nodes than may be started.
        ValueError: GPUs are wanted of nodes without.
    """
    if recipe is None:
        return [GroupDemand(group=NodeGroup(), least=1, most=1)]
    plan, cluster = recipe.train, recipe.cluster
    workers = max(1, plan.workers)
    decode_cpus = workers * plan.decode_tasks * plan.cpus_per_decode_task
    train_cpus = workers * plan.cpus_per_worker
    gpus = workers if plan.device == "cuda" or cluster.train.gpus else 0
    if cluster.train.label == cluster.decode.label:
        return [_demand(cluster.train, train_cpus + decode_cpus, gpus)]
    return [
        _demand(cluster.train, train_cpus, gpus),
        # They come when there is something to decode, and go when there is not.
        GroupDemand(group=cluster.decode, least=0, most=cluster.decode.most),
    ]


def _demand(group: NodeGroup, cpus: float, gpus: float) -> GroupDemand:
    least = group.nodes_for(cpus=cpus, gpus=gpus)
    return GroupDemand(group=group, least=least, most=group.most)


def cluster_address(given: str | None) -> str:
    """The Ray dashboard that was named, here or in the environment.

    Raises:
        ClusterError: none was.
    """
    address = given or os.environ.get(ADDRESS_VARIABLE)
    if not address:
        raise ClusterError(
            f"which cluster? --address http://127.0.0.1:8265 (or set {ADDRESS_VARIABLE}) for a "
            "Ray cluster, --k8s CONTEXT for Kubernetes"
        )
    return address
