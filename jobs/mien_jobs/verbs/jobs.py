"""``mien jobs WHAT``: the jobs that ``mien submit`` has started."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from mien.cluster.jobs import Job
from mien.cluster.working_tree import read_working_tree
from mien_jobs.tables import plain_table, print_table
from mien_jobs.verbs.submit import add_cluster_options, ending, follow, open_jobs, options_of

ACTIONS = {
    "list": "the jobs of a cluster, newest first",
    "status": "one job; the exit code is 0 while it runs and when it succeeded",
    "logs": "what a job printed",
    "stop": "end a job",
    "resume": "start a failed or stopped job again; a training goes on from its checkpoint",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions with their options."""
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    for name, summary in ACTIONS.items():
        sub = actions.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name != "list":
            sub.add_argument("job", metavar="ID", help="as `mien submit` and `mien jobs list` say")
        add_cluster_options(sub)
        if name in ("logs", "resume"):
            sub.add_argument(
                "--follow",
                action="store_true",
                help="go on until the job ends, and end with its exit code",
            )


def run(args: argparse.Namespace) -> int:
    """Does what was asked for."""
    return {"list": _list, "status": _status, "logs": _logs, "stop": _stop, "resume": _resume}[
        args.action
    ](args)


def _list(args: argparse.Namespace) -> int:
    found = open_jobs(args).all()
    if not found:
        print("no jobs; start one with: mien submit -- VERB ...")
        return 0
    now = datetime.now(UTC)
    rows = [
        [job.id, job.status, _since(job, now), job.code, " ".join(job.command)] for job in found
    ]
    print_table(["job", "status", "time", "code", "verb"], rows)
    return 0


def _status(args: argparse.Namespace) -> int:
    job = open_jobs(args).get(args.job)
    facts = [
        ("job", job.id),
        ("status", job.status),
        ("verb", " ".join(job.command)),
        ("code", job.code),
        ("started", job.started.isoformat(timespec="seconds") if job.started else "not yet"),
        ("time", _since(job, datetime.now(UTC))),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("message", job.message),
    ]
    print(plain_table([(name, value) for name, value in facts if value]))
    return job.shell_code() if job.has_ended else 0


def _logs(args: argparse.Namespace) -> int:
    jobs = open_jobs(args)
    if args.follow:
        return follow(jobs, args.job, args)
    for piece in jobs.logs(args.job, follow=False):
        print(piece, end="")
    return 0


def _stop(args: argparse.Namespace) -> int:
    jobs = open_jobs(args)
    job = jobs.get(args.job)
    if job.has_ended:
        print(ending(job))
        return 0
    jobs.stop(args.job)
    print(f"stopping {args.job}; go on with: mien jobs resume {args.job} {options_of(args)}")
    return 0


def _resume(args: argparse.Namespace) -> int:
    jobs = open_jobs(args)
    new = jobs.resume(args.job, lambda: read_working_tree(Path.cwd(), os.environ))
    print(f"submitted {new}, which goes on with {args.job}", flush=True)
    if args.follow:
        return follow(jobs, new, args)
    print(f"follow it with: mien jobs logs {new} {options_of(args)} --follow", file=sys.stderr)
    return 0


def _since(job: Job, now: datetime) -> str:
    if job.started is None:
        return ""
    seconds = round(((job.ended or now) - job.started).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
