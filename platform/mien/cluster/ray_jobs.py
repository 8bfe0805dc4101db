"""Jobs on a Ray cluster, through the Jobs API of its dashboard."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import requests
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from mien.cluster.errors import ClusterError
from mien.cluster.jobs import Job, JobRequest, Status, next_name, refuse_unended
from mien.cluster.leaks import refuse_secrets
from mien.cluster.working_tree import WorkingTree

_POLL_S = 1.0
_STATUS_AFTER_LOGS_S = 30.0
_COMMAND, _CODE, _NEEDS_ENV = "mien.command", "mien.code", "mien.needs_env"


class RayJobs:
    """The jobs of one Ray cluster.

    A cluster with token authentication wants ``RAY_AUTH_MODE=token`` and ``RAY_AUTH_TOKEN_PATH``
    in this environment.

    Args:
        address: of its dashboard, such as ``http://127.0.0.1:8265``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._opened: JobSubmissionClient | None = None

    def manifest(self, request: JobRequest) -> str:
        """What ``submit`` would send, as YAML."""
        sent = {
            "address": self.address,
            "submission_id": request.name,
            "entrypoint": request.entrypoint,
            "runtime_env": _runtime_env(request, Path("TREE")),
            "metadata": _metadata(request),
        }
        text = str(yaml.safe_dump(sent, sort_keys=False, width=100))
        refuse_secrets(text, os.environ, "the job")
        return text + (f"# TREE:\n{_commented(request.tree)}" if request.tree else "")

    def submit(self, request: JobRequest) -> str:
        """Uploads the working tree, unless the cluster has it, and starts the job."""
        self.manifest(request)
        with tempfile.TemporaryDirectory() as folder, _talking(self.address):
            root = Path(folder)
            if request.tree is not None:
                request.tree.stage(root)
            with _whole_upload():
                return cast(
                    str,
                    self._client.submit_job(
                        entrypoint=request.entrypoint,
                        submission_id=request.name,
                        runtime_env=_runtime_env(request, root),
                        metadata=_metadata(request),
                    ),
                )

    def all(self) -> list[Job]:
        """Mien's jobs, newest first."""
        with _talking(self.address):
            found = [_job(one) for one in self._client.list_jobs() if _is_ours(one)]
        never = datetime.min.replace(tzinfo=UTC)
        return sorted(found, key=lambda job: job.started or never, reverse=True)

    def get(self, job_id: str) -> Job:
        """One job."""
        try:
            with _talking(self.address):
                return _job(self._client.get_job_info(job_id))
        except ClusterError as error:
            if "does not exist" in str(error):
                raise ClusterError(
                    f"no job {job_id!r} on {self.address}; `mien jobs list` shows those there are"
                ) from error
            raise

    def logs(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """What the job printed; with ``follow`` until it ends."""
        self.get(job_id)
        with _talking(self.address):
            if follow:
                yield from _synchronous(self._client.tail_job_logs(job_id))
                self._wait_for_status(job_id)
            else:
                yield self._client.get_job_logs(job_id)

    def stop(self, job_id: str) -> None:
        """Asks the job's program to end (SIGTERM), and ends it where it doesn't."""
        self.get(job_id)
        with _talking(self.address):
            self._client.stop_job(job_id)

    def resume(self, job_id: str, tree: Callable[[], WorkingTree]) -> str:
        """Runs an ended job's verb again with the same code; a training goes on from its
        newest checkpoint."""
        job = self.get(job_id)
        refuse_unended(job)
        kind, _, what = job.code.partition(" ")
        if not job.command:
            raise ClusterError(f"job {job_id} was not submitted by `mien submit`")
        taken = tree() if kind == "tree" else None
        if taken is not None and taken.content_hash != what:
            raise ClusterError(
                f"job {job_id} ran tree {what}, and this working tree is {taken.content_hash}: "
                "check that commit out, or go on with other code on purpose: "
                f"mien submit --address {self.address} -- {' '.join(job.command)}"
            )
        name = next_name(job_id)
        taken_names = {other.id for other in self.all()}
        while name in taken_names:
            name = next_name(name)
        return self.submit(
            JobRequest(
                name=name,
                command=job.command,
                tree=taken,
                image=what if kind == "image" else "",
                needs_env=job.needs_env,
            )
        )

    @property
    def _client(self) -> JobSubmissionClient:
        if self._opened is None:
            self._opened = JobSubmissionClient(self.address)
        return self._opened

    def _wait_for_status(self, job_id: str) -> None:
        """The last line comes a moment before the status."""
        until = time.monotonic() + _STATUS_AFTER_LOGS_S
        while not self.get(job_id).has_ended and time.monotonic() < until:
            time.sleep(_POLL_S)


def _runtime_env(request: JobRequest, root: Path) -> dict[str, Any]:
    if request.image:
        return {"image_uri": request.image}
    if request.tree is None:
        return {}
    packages = [str(root / name) for name in request.tree.packages()]
    return {"working_dir": str(root)} | ({"py_modules": packages} if packages else {})


def _metadata(request: JobRequest) -> dict[str, str]:
    return {
        _COMMAND: json.dumps(request.command),
        _CODE: request.code,
        _NEEDS_ENV: json.dumps(request.needs_env),
    }


def _is_ours(details: JobDetails) -> bool:
    return bool(details.submission_id) and _COMMAND in (details.metadata or {})


def _job(details: JobDetails) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id or details.job_id or "",
        status=cast(Status, str(details.status.value)),
        command=tuple(json.loads(metadata.get(_COMMAND, "[]"))),
        code=metadata.get(_CODE, ""),
        needs_env=tuple(json.loads(metadata.get(_NEEDS_ENV, "[]"))),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=_time(details.start_time),
        ended=_time(details.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _commented(tree: WorkingTree) -> str:
    lines = [*tree.summary().splitlines(), *tree.listing().splitlines()]
    return "".join(f"# {line}\n" for line in lines)


@contextmanager
def _whole_upload() -> Iterator[None]:
    """Ray leaves out what .gitignore names, also where git tracks it; the listing has it."""
    name = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _talking(address: str) -> Iterator[None]:
    """Turns the failures of Ray's client into words.

    Raises:
        ClusterError: no cluster there, a token that is refused, or a request that is.
    """
    try:
        yield
    except (ConnectionError, requests.exceptions.ConnectionError) as error:
        raise ClusterError(
            f"no Ray dashboard answers at {address}: give --address http://HOST:8265 (or set "
            "RAY_API_SERVER_ADDRESS), and check that the cluster runs; a cluster whose dashboard "
            "is bound to loopback is reached through `ssh -L 8265:127.0.0.1:8265 HOST` or "
            "`kubectl port-forward`"
        ) from error
    except AuthenticationError as error:
        raise ClusterError(
            f"{address} wants a token, and not the one of this terminal: set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN_PATH=FILE with the cluster's token"
        ) from error
    except RuntimeError as error:
        raise ClusterError(f"{address} says: {_first_lines(error)}") from error


def _first_lines(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:6] if line.strip())[:600]


def _synchronous(pieces: AsyncIterator[str]) -> Iterator[str]:
    """An asynchronous iterator, item by item."""
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(pieces))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
