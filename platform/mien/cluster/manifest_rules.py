"""Rules for manifests that no schema holds.

KubeRay's operator refuses some manifests only when it meets them, on the cluster; and every
container of ours runs without privileges. Both are checked here before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_MAX_NAME = {"RayJob": 47, "RayCluster": 50}
_GCS_VARIABLES = ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS")

Manifest = Mapping[str, Any]


def faults(manifest: Manifest) -> list[str]:
    """What KubeRay's operator or our own rules object to; empty where nothing."""
    kind, spec = manifest["kind"], manifest.get("spec", {})
    found = [*_name(manifest)] if kind in _MAX_NAME else []
    if kind == "RayJob":
        found += _job(spec)
        cluster = spec.get("rayClusterSpec")
        found += _cluster(cluster) if cluster else []
    elif kind == "RayCluster":
        found += _cluster(spec)
    for where, pod in pods(manifest):
        found += [f"{where}: {fault}" for fault in _pod(pod)]
    return found


def pods(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The specifications of all pods in a manifest, with where they stand."""
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]
        return
    spec = manifest.get("spec", {})
    if submitter := spec.get("submitterPodTemplate"):
        yield "submitter", submitter["spec"]
    cluster = spec if manifest["kind"] == "RayCluster" else spec.get("rayClusterSpec", {})
    if head := cluster.get("headGroupSpec"):
        yield "head", head["template"]["spec"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]["spec"]


def _name(manifest: Manifest) -> Iterator[str]:
    name, limit = manifest["metadata"]["name"], _MAX_NAME[manifest["kind"]]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > limit:
        yield f"name {name!r} must be small letters, digits and -, at most {limit}"


def _job(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("submissionMode", "K8sJobMode") not in _SUBMISSION_MODES:
        yield f"submissionMode is none of {', '.join(_SUBMISSION_MODES)}"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"
    if bool(spec.get("rayClusterSpec")) == bool(spec.get("clusterSelector")):
        yield "one of rayClusterSpec and clusterSelector must be given"
    if spec.get("backoffLimit") and spec.get("clusterSelector"):
        yield "backoffLimit does not go with clusterSelector"


def _cluster(spec: Mapping[str, Any]) -> Iterator[str]:
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    is_v2 = spec.get("autoscalerOptions", {}).get("version") == "v2"
    names = [group.get("groupName") for group in groups]
    if len(set(names)) < len(names):
        yield "two groups have one name"
    for group in groups:
        name = group.get("groupName", "head")
        if group.get("minReplicas", 0) > group.get("maxReplicas", 2**31 - 1):
            yield f"{name}: minReplicas is larger than maxReplicas"
        if "labels" in group.get("rayStartParams", {}):
            yield f"{name}: labels belong into the group, not into rayStartParams"
        if any(not isinstance(value, str) for value in group.get("rayStartParams", {}).values()):
            yield f"{name}: rayStartParams are texts"
        pod = group["template"]["spec"]
        if is_v2 and pod.get("restartPolicy", "Never") != "Never":
            yield f"{name}: autoscaler v2 needs restartPolicy Never"
        variables = {one["name"] for one in pod["containers"][0].get("env", [])}
        if is_v2 and "RAY_enable_autoscaler_v2" in variables:
            yield f"{name}: autoscalerOptions.version and RAY_enable_autoscaler_v2 are two ways"
        if spec.get("gcsFaultToleranceOptions") and variables & set(_GCS_VARIABLES):
            yield f"{name}: {_GCS_VARIABLES} do not go with gcsFaultToleranceOptions"


def _pod(pod: Mapping[str, Any]) -> Iterator[str]:
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield "runs as root"
    for container in pod["containers"]:
        context = container.get("securityContext", {})
        if not context.get("readOnlyRootFilesystem"):
            yield f"{container['name']}: its file system can be written"
        if context.get("allowPrivilegeEscalation", True) or context.get("privileged"):
            yield f"{container['name']}: may gain privileges"
        if "ALL" not in context.get("capabilities", {}).get("drop", []):
            yield f"{container['name']}: keeps capabilities"
        if not {"cpu", "memory"} <= container.get("resources", {}).get("limits", {}).keys():
            yield f"{container['name']}: has no limits"
