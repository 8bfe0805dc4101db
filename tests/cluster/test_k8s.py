"""The manifests of k8s/ and of jobs: KubeRay's own schemas, unknown fields refused, our rules."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mien.cluster.errors import ClusterError
from mien.cluster.groups import NodeGroup
from mien.cluster.jobs import JobRequest
from mien.cluster.kube_jobs import KubernetesJobs, read_rayjob
from mien.cluster.manifest_rules import faults, pods
from mien.cluster.rayjob import GroupDemand, make_rayjob
from mien.train.prometheus import GAUGES

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
IMAGE = "registry.example/mien@sha256:" + "a" * 64
CRDS = Path(os.environ.get("MIEN_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))
"""KubeRay's CRDs, and `validate_crd.py` that turns them into JSON Schemas."""


@pytest.fixture(scope="session")
def schemas() -> dict[str, Draft202012Validator]:
    """A strict validator for each kind of KubeRay."""
    if not (CRDS / "validate_crd.py").exists():
        pytest.skip("KubeRay's CRDs are not here: set MIEN_KUBERAY_CRDS to a folder with them")
    sys.path.insert(0, str(CRDS))
    try:
        import validate_crd  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(CRDS))
    files = [CRDS / "crds" / f"ray.io_{kind}.yaml" for kind in ("rayclusters", "rayjobs")]
    definitions = [yaml.load(file.read_text(), yaml.CSafeLoader) for file in files]
    kinds = ("RayCluster", "RayJob")
    return {kind: validate_crd.validator(kind, "v1", definitions) for kind in kinds}


def job_manifest() -> dict[str, Any]:
    demands = [
        GroupDemand(
            group=NodeGroup(label="train", cpus=32, memory_gb=240, gpus=8, most=4), least=2, most=4
        ),
        GroupDemand(group=NodeGroup(label="decode", cpus=16), least=0, most=16),
    ]
    command = ("train", "rdfer", "--set", "storage=s3://runs")
    return make_rayjob(JobRequest(name="train-a", command=command, image=IMAGE), demands, "mien")


@pytest.fixture(scope="session", params=["local", "gpu-cloud"])
def overlay(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """All manifests of an overlay, as kubectl would apply them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(K8S, folder, ignore=shutil.ignore_patterns("*.env"))
    for example in folder.rglob("*.env.example"):
        shutil.copyfile(example, example.with_suffix(""))
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder / "overlays" / request.param)],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def test_overlays_are_valid_for_kuberay_and_kubernetes(
    overlay: list[dict[str, Any]], schemas: dict[str, Draft202012Validator]
) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    kinds = [one["kind"] for one in overlay]
    assert {"RayCluster", "Deployment", "StatefulSet", "NetworkPolicy"} <= set(kinds)
    assert {"PodDisruptionBudget", "PriorityClass", "ConfigMap"} <= set(kinds)
    for one in overlay:
        if one["kind"] in schemas:
            assert [error.message for error in schemas[one["kind"]].iter_errors(one)] == []
        else:
            validate(one, "1.36", strict=True)


def test_overlays_keep_our_rules(overlay: list[dict[str, Any]]) -> None:
    assert [(one["metadata"]["name"], faults(one)) for one in overlay if faults(one)] == []
    seen = [pod for one in overlay for pod in pods(one)]
    assert len(seen) == 6  # head, two groups, redis, PostgreSQL, MLflow
    for where, pod in seen:
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        if where in ("head", "train", "decode"):
            assert "/dev/shm" in mounts
        for container in pod["containers"]:
            for variable in container.get("env", []):
                is_secret = re.search(r"(?i)secret|password|token", variable["name"])
                assert not (is_secret and "value" in variable), variable["name"]


def test_job_is_valid_and_says_what_the_recipe_said(
    schemas: dict[str, Draft202012Validator],
) -> None:
    made = job_manifest()
    assert [error.message for error in schemas["RayJob"].iter_errors(made)] == []
    assert faults(made) == []
    train, decode = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (train["replicas"], train["minReplicas"], train["maxReplicas"]) == (2, 2, 4)
    assert train["labels"] == {"ray-subcluster": "train"}
    limits = train["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "32", "memory": "240Gi", "nvidia.com/gpu": "8"}
    assert (decode["replicas"], decode["maxReplicas"]) == (0, 16)
    assert "nvidia.com/gpu" not in json.dumps(decode)


def test_unknown_fields_and_wrong_types_are_found(
    schemas: dict[str, Draft202012Validator],
) -> None:
    for change in (
        lambda spec: spec.update(enrtypoint="x"),
        lambda spec: spec.update(backoffLimit="2"),
        lambda spec: spec["rayClusterSpec"].update(autoscaler={}),
        lambda spec: spec["rayClusterSpec"]["autoscalerOptions"].update(version="v3"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(gpus=1),
    ):
        wrong = copy.deepcopy(job_manifest())
        change(wrong["spec"])
        assert len(list(schemas["RayJob"].iter_errors(wrong))) == 1


def test_what_only_the_operator_would_refuse_is_found() -> None:
    cases = {
        "minReplicas is larger": lambda cluster: cluster["workerGroupSpecs"][0].update(
            minReplicas=9
        ),
        "restartPolicy Never": lambda cluster: cluster["headGroupSpec"]["template"]["spec"].update(
            restartPolicy="Always"
        ),
        "runs as root": lambda cluster: cluster["headGroupSpec"]["template"]["spec"].pop(
            "securityContext"
        ),
        "labels belong into the group": lambda cluster: cluster["headGroupSpec"].update(
            rayStartParams={"labels": "a=b"}
        ),
    }
    for words, change in cases.items():
        wrong = job_manifest()
        change(wrong["spec"]["rayClusterSpec"])
        (fault,) = faults(wrong)
        assert words in fault
    wrong = job_manifest()
    wrong["spec"]["shutdownAfterJobFinishes"] = False
    assert faults(wrong) == ["ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"]


def test_job_without_image_or_with_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    demands = [GroupDemand(group=NodeGroup(), least=1, most=1)]
    jobs = KubernetesJobs("prod", "mien", demands)
    with pytest.raises(ClusterError, match="give --image"):
        jobs.manifest(JobRequest(name="a", command=("list",)))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-K7MDENG")
    clean = jobs.manifest(JobRequest(name="a", command=("list",), image=IMAGE))
    assert "wJalrXUtnFEMI-K7MDENG" not in clean
    assert "mien-object-store" in clean
    leaking = JobRequest(name="a", command=("train", "--key=wJalrXUtnFEMI-K7MDENG"), image=IMAGE)
    with pytest.raises(ClusterError, match=r"\$AWS_SECRET_ACCESS_KEY") as caught:
        jobs.manifest(leaking)
    assert "wJalrX" not in str(caught.value)


def test_state_of_a_rayjob_is_read() -> None:
    made = job_manifest()
    assert read_rayjob(made).status == "PENDING"
    assert read_rayjob(made).command == ("train", "rdfer", "--set", "storage=s3://runs")
    running = {**made, "status": {"jobStatus": "RUNNING", "startTime": "2026-11-21T10:00:00Z"}}
    assert read_rayjob(running).status == "RUNNING"
    failed = {**made, "status": {"jobDeploymentStatus": "Failed", "message": "no node came"}}
    assert (read_rayjob(failed).status, read_rayjob(failed).shell_code()) == ("FAILED", 1)
    stopped = {**running, "spec": {**made["spec"], "suspend": True}}
    assert read_rayjob(stopped).status == "STOPPED"


def test_dashboard_shows_metrics_that_there_are() -> None:
    text = (K8S / "base" / "grafana-dashboard.json").read_text()
    shown = set(re.findall(r"ray_(mien_\w+)", text))
    assert shown <= {name for name, _ in GAUGES.values()}
    assert {"mien_clips_per_second", "mien_waiting_for_data_ratio"} <= shown
    assert {"mien_quarantined_clips", "mien_epoch"} <= shown


def test_nothing_secret_is_committed_with_the_manifests() -> None:
    for path in [*K8S.rglob("*.yaml"), *K8S.rglob("*.example")]:
        for line in path.read_text().splitlines():
            filled = re.match(r"\s*-?\s*\w*(SECRET|PASSWORD|password)\w*\s*[:=]\s*(\S+)", line)
            assert filled is None, f"{path}: {line}"
