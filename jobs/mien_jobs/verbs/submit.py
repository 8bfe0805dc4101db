"""``mien submit [--address URL | --k8s CONTEXT] -- VERB ARGS``: run a verb on a cluster."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mien.cluster.jobs import Job, JobRequest, Jobs, new_name
from mien.cluster.leaks import refuse_secrets
from mien.cluster.working_tree import MAX_UPLOAD_MB, WorkingTree, read_working_tree
from mien_jobs.submission import (
    ADDRESS_VARIABLE,
    cluster_address,
    demands_of,
    read_command,
    refuse_lost_runs,
    refuse_unreachable_files,
)

if TYPE_CHECKING:
    from mien_jobs.recipe import Recipe

_LONG = """\
Runs any verb on a cluster, follows what it prints and ends with its exit code. Interrupting
(Ctrl-C) or losing this terminal never stops the job: `mien jobs logs ID` goes on reading.

  mien submit --address http://127.0.0.1:8265 -- train rdfer --data s3://clips/manifest.parquet \\
      --set storage=s3://runs track.uri=http://mlflow:5000
  mien submit --k8s my-context --image registry/mien@sha256:... --dry-run -- train mma_dfer ...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _LONG
    parser.usage = "mien submit [--address URL | --k8s CONTEXT] [options] -- VERB ARGS ..."
    add_cluster_options(parser)
    parser.add_argument(
        "--code",
        choices=("tree", "installed"),
        default="tree",
        help="on a Ray cluster: take the files along that git tracks here (default), or use the "
        "Mien that is installed there",
    )
    parser.add_argument(
        "--image",
        default="",
        metavar="NAME@sha256:...",
        help="container image that holds the code (needed with --k8s; on a Ray cluster its nodes "
        "must be able to run containers)",
    )
    parser.add_argument(
        "--needs-env",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="environment variables (such as AWS_SECRET_ACCESS_KEY) that must be set on the Ray "
        "cluster, else the job does not start; values are never sent",
    )
    parser.add_argument(
        "--max-upload-mb",
        type=float,
        default=MAX_UPLOAD_MB,
        metavar="MB",
        help=f"the most that the uploaded files may have together (default {MAX_UPLOAD_MB})",
    )
    parser.add_argument(
        "--detach", action="store_true", help="print the job's id and don't wait for it"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print exactly what would be sent, and send nothing"
    )
    parser.add_argument(
        "command", nargs="+", metavar="VERB ARGS", help="after `--`: what is to be run"
    )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which cluster."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--address",
        metavar="URL",
        help=f"dashboard of a Ray cluster (default: ${ADDRESS_VARIABLE}); token authentication: "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE",
    )
    where.add_argument("--k8s", metavar="CONTEXT", help="context of kubectl; KubeRay must be there")
    parser.add_argument("--namespace", default="mien", help="Kubernetes namespace (default: mien)")


def open_jobs(args: argparse.Namespace, recipe: Recipe | None = None) -> Jobs:
    """The cluster that the options name, ready for the jobs of a recipe."""
    if args.k8s:
        from mien.cluster.kube_jobs import KubernetesJobs

        return KubernetesJobs(args.k8s, args.namespace, demands_of(recipe))
    from mien.cluster.ray_jobs import RayJobs

    return RayJobs(cluster_address(args.address))


def run(args: argparse.Namespace) -> int:
    """Submits, and follows the job."""
    recipe = read_command(args.command)
    refuse_secrets(" ".join(args.command), os.environ, "the job's arguments")
    if recipe is not None:
        refuse_lost_runs(recipe, on_kubernetes=bool(args.k8s))
    tree = _tree(args)
    shared = refuse_unreachable_files(args.command, tree)
    request = JobRequest(
        name=new_name(tuple(args.command), recipe.name if recipe else ""),
        command=tuple(args.command),
        tree=tree,
        image=args.image,
        needs_env=tuple(args.needs_env),
    )
    jobs = open_jobs(args, recipe)
    if args.dry_run:
        print(jobs.manifest(request), end="")
        return 0
    if shared:
        print(f"the cluster must see these paths too: {', '.join(shared)}")
    if tree is not None:
        print(tree.summary())
    if args.image and "@sha256:" not in args.image:
        print(f"note: {args.image} may be another image tomorrow; NAME@sha256:... is not")
    job_id = jobs.submit(request)
    print(f"submitted {job_id}", flush=True)
    if args.detach:
        print(f"follow it with: mien jobs logs {job_id} {options_of(args)} --follow")
        return 0
    return follow(jobs, job_id, args)


def follow(jobs: Jobs, job_id: str, args: argparse.Namespace) -> int:
    """Prints what a job prints until it ends; its exit code."""
    try:
        for piece in jobs.logs(job_id, follow=True):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(
            f"\nthe job goes on; see it with: mien jobs logs {job_id} {options_of(args)} --follow; "
            f"end it with: mien jobs stop {job_id} {options_of(args)}",
            file=sys.stderr,
        )
        raise
    job = jobs.get(job_id)
    print(ending(job), file=sys.stderr)
    return job.shell_code() if job.has_ended else 1


def ending(job: Job) -> str:
    """How a job ended, in a line."""
    if job.status == "SUCCEEDED":
        return f"job {job.id} succeeded"
    code = "" if job.exit_code is None else f" with exit code {job.exit_code}"
    # Ray repeats the end of what was printed.
    message = " ".join(job.message.partition(", last available logs")[0].split())
    why = f": {message}" if message else ""
    return f"job {job.id} {job.status.lower()}{code}{why}"


def options_of(args: argparse.Namespace) -> str:
    """The options that name the same cluster again."""
    if args.k8s:
        return f"--k8s {args.k8s} --namespace {args.namespace}"
    return f"--address {cluster_address(args.address)}"


def _tree(args: argparse.Namespace) -> WorkingTree | None:
    if args.k8s or args.image or args.code == "installed":
        return None
    return read_working_tree(Path.cwd(), os.environ, max_mb=args.max_upload_mb)
