"""Jobs on Kubernetes: KubeRay's RayJobs, through kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from mien.cluster.errors import ClusterError
from mien.cluster.jobs import Job, JobRequest, Status, next_name, refuse_unended
from mien.cluster.leaks import refuse_secrets
from mien.cluster.manifest_rules import faults
from mien.cluster.rayjob import CODE, COMMAND, GroupDemand, make_rayjob, to_yaml
from mien.cluster.working_tree import WorkingTree

_KIND = "rayjobs.ray.io"
_OURS = "app.kubernetes.io/managed-by=mien"


class KubernetesJobs:
    """The jobs in one namespace.

    Args:
        context: of the kubeconfig.
        namespace: where the manifests of k8s/ were applied.
        demands: nodes that a submitted job needs; not needed to look at jobs.
    """

    def __init__(self, context: str, namespace: str, demands: Sequence[GroupDemand] = ()) -> None:
        self.context = context
        self.namespace = namespace
        self.demands = list(demands)

    def manifest(self, request: JobRequest) -> str:
        """The RayJob that ``submit`` would create."""
        made = make_rayjob(request, self.demands, self.namespace)
        if found := faults(made):
            raise ClusterError(f"KubeRay would refuse the manifest: {'; '.join(found)}")
        text = to_yaml(made)
        refuse_secrets(text, os.environ, "the manifest")
        return text

    def submit(self, request: JobRequest) -> str:
        """Creates the RayJob."""
        self._kubectl("create", "-f", "-", given=self.manifest(request))
        return request.name

    def all(self) -> list[Job]:
        """Mien's jobs, newest first."""
        found = json.loads(self._kubectl("get", _KIND, "-l", _OURS, "-o", "json"))["items"]
        newest = sorted(found, key=lambda one: one["metadata"]["creationTimestamp"], reverse=True)
        return [read_rayjob(one) for one in newest]

    def get(self, job_id: str) -> Job:
        """One job."""
        return read_rayjob(self._read(job_id))

    def logs(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the job printed, as the pod that submits it to Ray shows it."""
        self.get(job_id)
        options = ["--follow", "--pod-running-timeout=30m"] if follow else []
        command = self._command("logs", f"job/{job_id}", *options)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            yield from process.stdout
            complaint = process.stderr.read()
        if process.returncode != 0:
            raise ClusterError(f"kubectl could not read the logs of {job_id}: {complaint.strip()}")

    def stop(self, job_id: str) -> None:
        """Takes the job's nodes away; the job stays and can be resumed."""
        self._suspend(job_id, True)

    def resume(self, job_id: str, tree: Callable[[], WorkingTree]) -> str:
        """Lets a stopped job go on, or starts a failed one again under a new name.

        The image is the job's, so that no working tree is read.
        """
        found = self._read(job_id)
        job = read_rayjob(found)
        refuse_unended(job)
        if job.status == "STOPPED" and found["spec"].get("suspend"):
            self._suspend(job_id, False)
            return job_id
        again = {key: found[key] for key in ("apiVersion", "kind", "spec")}
        again["spec"].pop("suspend", None)
        again["metadata"] = {
            "name": next_name(job_id),
            "namespace": self.namespace,
            "labels": found["metadata"]["labels"],
            "annotations": {
                name: found["metadata"]["annotations"][name] for name in (CODE, COMMAND)
            },
        }
        again["spec"].pop("jobId", None)
        self._kubectl("create", "-f", "-", given=json.dumps(again))
        return str(again["metadata"]["name"])

    def _read(self, job_id: str) -> dict[str, Any]:
        try:
            return cast(dict[str, Any], json.loads(self._kubectl("get", _KIND, job_id, "-ojson")))
        except ClusterError as error:
            if "NotFound" in str(error):
                raise ClusterError(
                    f"no job {job_id!r} in namespace {self.namespace}; `mien jobs list --k8s "
                    f"{self.context}` shows those there are"
                ) from error
            raise

    def _suspend(self, job_id: str, value: bool) -> None:
        self.get(job_id)
        patch = json.dumps({"spec": {"suspend": value}})
        self._kubectl("patch", _KIND, job_id, "--type=merge", "-p", patch)

    def _kubectl(self, *arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            self._command(*arguments), input=given, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl ({self.context}): {done.stderr.strip()[:800]}")
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("kubectl is not installed; it is how Kubernetes is spoken to")
        return [program, "--context", self.context, "--namespace", self.namespace, *arguments]


def read_rayjob(found: Mapping[str, Any]) -> Job:
    """A RayJob as Kubernetes holds it."""
    status = found.get("status", {})
    annotations = found["metadata"].get("annotations", {})
    state = str(status.get("jobStatus") or "PENDING")
    if found["spec"].get("suspend") or status.get("jobDeploymentStatus") == "Suspended":
        state = "STOPPED"
    elif status.get("jobDeploymentStatus") == "Failed":
        # No node came in time, or the operator refused the manifest: Ray never saw the job.
        state = "FAILED"
    return Job(
        id=found["metadata"]["name"],
        status=cast(Status, state),
        command=tuple(json.loads(annotations.get(COMMAND, "[]"))),
        code=annotations.get(CODE, ""),
        message=status.get("message", ""),
        started=_time(status.get("startTime")),
        ended=_time(status.get("endTime")),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
