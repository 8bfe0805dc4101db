"""Jobs, whichever system runs them."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from mien.cluster.errors import ClusterError
from mien.cluster.working_tree import WorkingTree

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"]
ENDED: tuple[Status, ...] = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED_EXIT_CODE = 143
"""As of a program that was ended by SIGTERM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A verb to run on a cluster."""

    name: str
    """Unique; small letters, digits and ``-``."""
    command: tuple[str, ...]
    """The verb and its arguments, as after ``mien``."""
    tree: WorkingTree | None = None
    """The code to take along; None: what is installed there, or in the image."""
    image: str = ""
    """The container image to run in; empty: as the nodes are."""
    needs_env: tuple[str, ...] = ()
    """Environment variables without which the job must not start."""

    def __post_init__(self) -> None:
        for name in self.needs_env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ClusterError(f"{name!r} is no name of an environment variable")

    @property
    def entrypoint(self) -> str:
        """The shell command: what must be set is checked first, then the verb is run."""
        checks = [
            f': "${{{name}:?must be set in the environment of the nodes}}" && '
            for name in self.needs_env
        ]
        run = "exec " if checks else ""
        return f"{''.join(checks)}{run}python -m mien_jobs.cli {shlex.join(self.command)}"

    @property
    def code(self) -> str:
        """What runs, in words."""
        if self.image:
            return f"image {self.image}"
        return f"tree {self.tree.content_hash}" if self.tree else "installed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job that was submitted."""

    id: str
    status: Status
    command: tuple[str, ...]
    """The verb and its arguments."""
    code: str = ""
    needs_env: tuple[str, ...] = ()
    message: str = ""
    exit_code: int | None = None
    """Of the job's program, once it has ended."""
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED

    def shell_code(self) -> int:
        """The exit code for whoever waited for the job."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return STOPPED_EXIT_CODE
        # A negative code: ended by that signal.
        code = self.exit_code or 1
        return code if code > 0 else 128 - code


class Jobs(Protocol):
    """A system that runs jobs."""

    def manifest(self, request: JobRequest) -> str:
        """Exactly what would be sent for a request, for people to read."""

    def submit(self, request: JobRequest) -> str:
        """Starts a job and returns its id."""

    def all(self) -> list[Job]:
        """Mien's jobs, newest first."""

    def get(self, job_id: str) -> Job:
        """One job; ClusterError where there is none of that id."""

    def logs(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """Pieces of what the job printed; all there is, or until it ends."""

    def stop(self, job_id: str) -> None:
        """Asks a job to end."""

    def resume(self, job_id: str, tree: Callable[[], WorkingTree]) -> str:
        """Starts an ended job again, and returns the new id.

        Args:
            job_id: the job that ended.
            tree: reads the working tree, where the job took one along.
        """


def new_name(command: tuple[str, ...], label: str = "") -> str:
    """A name for a job: its verb, a label, and a number nobody else has drawn."""
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join((command[0], label)).lower()).strip("-")
    return f"{slug[:30].rstrip('-')}-{secrets.token_hex(4)}"


def refuse_unended(job: Job) -> None:
    """Only what failed or was stopped can be resumed.

    Raises:
        ClusterError: says what to do instead.
    """
    if job.status == "SUCCEEDED":
        raise ClusterError(f"job {job.id} has succeeded; there is nothing to go on with")
    if not job.has_ended:
        raise ClusterError(
            f"job {job.id} is {job.status}; look at it with `mien jobs logs {job.id}`, or end it "
            f"with `mien jobs stop {job.id}` first"
        )


def next_name(job_id: str) -> str:
    """The id of the job that goes on with another: ``NAME-r2``, ``NAME-r3``, ..."""
    base, _, number = job_id.rpartition("-r")
    if base and number.isdigit():
        return f"{base}-r{int(number) + 1}"
    return f"{job_id}-r2"
