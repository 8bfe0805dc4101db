"""``mien forget SUBJECT``: a person out of manifests, caches and memories; what used them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.clips.forget.procedure import ForgetOutcome, ForgetPlan, ForgetRequest

_SHOWN = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom, and everywhere that their clips may be."""
    parser.add_argument("subject", help="the person, as the manifests' column subject_id has it")
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="MANIFEST",
        help="all manifests that may hold the person; name them, the caches and the runs in one "
        "call, because afterwards nothing tells which clips were theirs",
    )
    parser.add_argument("--cache", nargs="+", default=[], metavar="URI", help="clip caches")
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of runs (and of packages, evaluations): replay memories in them are cleaned, "
        "everything else that names the clips is listed",
    )
    parser.add_argument(
        "--tracking",
        nargs="+",
        metavar="URI",
        help="MLflow servers or data bases in which to look for runs and models (default: "
        "MLFLOW_TRACKING_URI, and the data base in each folder of --runs)",
    )
    parser.add_argument(
        "--delete-media", action="store_true", help="also delete the person's source files"
    )
    parser.add_argument("--yes", action="store_true", help="yes, really delete the source files")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and change nothing"
    )
    parser.add_argument(
        "--receipt",
        metavar="FILE",
        help="where the dated record goes (default: forgotten-TIME.json beside the first manifest)",
    )


def run(args: argparse.Namespace) -> int:
    """Finds, removes, verifies and writes the receipt; 1 if something is left."""
    from mien.clips.forget.person import UnknownPersonError
    from mien.clips.forget.procedure import ForgetRequest, forget, left_to_do, plan_forgetting
    from mien.clips.forget.receipt import default_location
    from mien_jobs.progress import ProgressBar

    request = ForgetRequest(
        name=args.subject,
        manifests=tuple(args.data),
        caches=tuple(args.cache),
        runs=tuple(args.runs),
        tracking=tracking_uris(args.tracking, args.runs),
        delete_media=args.delete_media,
    )
    try:
        with ProgressBar("tracked runs") as progress:
            plan = plan_forgetting(request, progress)
    except UnknownPersonError as error:
        return _forgotten_before(request, error, is_dry_run=args.dry_run)
    print_plan(plan)
    if args.delete_media and not args.yes and not args.dry_run:
        raise ValueError(
            f"--delete-media would delete {len(plan.media.theirs)} source files for good; add "
            "--yes if that is meant. Nothing was changed"
        )
    if args.dry_run:
        print_left_to_do(left_to_do(plan))
        print("nothing was changed (--dry-run)")
        return 0
    receipt = args.receipt or default_location(plan.person.manifests[0].uri)
    outcome = forget(plan, receipt, print)
    print_outcome(outcome)
    print(f"receipt: {receipt}")
    return 1 if outcome.remaining else 0


def tracking_uris(wish: list[str] | None, runs: list[str]) -> tuple[str, ...]:
    """Where to look for tracked runs: what was asked for, else the usual places that exist."""
    from pathlib import Path

    from mien.media.storage import absolute, is_remote
    from mien.track.tracker import embedded_uri

    if wish is not None:
        return tuple(wish)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    embedded = [
        embedded_uri(absolute(folder))
        for folder in runs
        if not is_remote(folder) and (Path(absolute(folder)) / "mlflow.db").is_file()
    ]
    return tuple(([server] if server else []) + embedded)


def print_plan(plan: ForgetPlan) -> None:
    """What was found of the person, and where."""
    person, request = plan.person, plan.request
    for manifest in person.manifests:
        print(f"{len(manifest.clip_ids)} of {manifest.num_rows} clips in {manifest.uri}")
    for uri, count in plan.cached.items():
        print(f"{count} clips in the cache {uri}")
    for memory in plan.memories:
        print(f"{memory.in_memory} mentions in the memory of {memory.location}")
    verb = "to be deleted" if request.delete_media else "kept (--delete-media deletes them)"
    print(f"{len(plan.media.theirs)} source files of theirs, {verb}")
    not_looked = [
        what
        for what, places in (
            ("no cache (--cache)", request.caches),
            ("no runs (--runs)", request.runs),
            ("no MLflow (--tracking)", request.tracking),
        )
        if not places
    ]
    if not_looked:
        print(f"not looked at: {', '.join(not_looked)}")


def print_outcome(outcome: ForgetOutcome) -> None:
    """The proof, and what people have to do."""
    for line in outcome.verified:
        print(f"verified: {line}")
    for line in outcome.remaining:
        print(f"STILL THERE: {line}; run this again")
    print_left_to_do(outcome.left_to_do)


def print_left_to_do(lines: Sequence[str]) -> None:
    """What Mien can't undo."""
    if lines:
        print("left for you to do:")
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  ... and {len(lines) - _SHOWN} more, all in the receipt")


def _forgotten_before(request: ForgetRequest, error: ValueError, *, is_dry_run: bool) -> int:
    """Says so where a receipt tells that the person was forgotten, else raises the error."""
    from mien.clips.forget.person import manifest_file
    from mien.clips.forget.receipt import find_receipt, now

    found = find_receipt(request.name, [manifest_file(uri) for uri in request.manifests])
    if found is None:
        raise error
    location, receipt = found
    if not receipt.finished and not is_dry_run:
        # Manifests come last: that none of them names the person means that all was done.
        receipt.finished = now()
        receipt.verified = [f"0 rows in manifest {uri}" for uri in request.manifests]
        receipt.write(location, request.name)
    print(f"{request.name} was forgotten, begun on {receipt.started}; receipt: {location}")
    print("no row of theirs is left; caches and runs can't be searched any more")
    return 0
