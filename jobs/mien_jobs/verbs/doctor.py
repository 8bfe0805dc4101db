"""``mien doctor``: what works on this machine, and what to type for what doesn't."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mien_jobs.checks.result import Check

STORAGE_VARIABLE = "MIEN_STORAGE"
_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}

CHECKS: dict[str, str] = {
    "python": "machine:check_python",
    "cores": "machine:check_cores",
    "memory": "machine:check_memory",
    "shared memory": "machine:check_shared_memory",
    "object store": "machine:check_object_store",
    "open files": "machine:check_open_files",
    "torch": "compute:check_torch",
    "companions": "compute:check_companions",
    "ffmpeg": "codecs:check_ffmpeg",
    "codecs": "codecs:check_codecs",
    "faces": "faces:check_face_detector",
    "synth": "faces:check_synth",
    "ray": "services:check_ray_installed",
    "mlflow": "services:check_mlflow",
}
"""Name of a check: its module in ``mien_jobs.checks`` and its function. They are imported one by
one, because a library that does not even load is what doctor is there to find."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at beyond the machine itself."""
    parser.add_argument("--ray", action="store_true", help="also start a local Ray and run a task")
    parser.add_argument(
        "--storage",
        metavar="URI",
        default=os.environ.get(STORAGE_VARIABLE),
        help="also write, read and delete a file there, as in s3://bucket/runs "
        f"(default: ${STORAGE_VARIABLE})",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="where runs will be written; its disk is checked (default: here)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line for each check; 1 if any failed."""
    if not args.folder.is_dir():
        raise ValueError(f"--folder {args.folder}: there is no such folder")
    counts = {"ok": 0, "warn": 0, "fail": 0}
    for name, function in _checks(args):
        outcome = examine(name, function)
        counts[outcome.status] += 1
        print(format_check(outcome, colour=sys.stdout.isatty()), flush=True)
    print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
    return 1 if counts["fail"] else 0


def examine(name: str, function: Callable[[], Check]) -> Check:
    """The outcome of a check; one that breaks is a failure with the exception's words."""
    from mien_jobs.checks.result import fail

    try:
        return function()
    except Exception as error:
        if os.environ.get("MIEN_DEBUG"):
            raise
        words = " ".join(str(error).split())[:300]
        return fail(
            name,
            f"{type(error).__name__}: {words}",
            "reinstall what belongs together: pip install -c constraints.txt -e '.[synth,s3]' "
            "(MIEN_DEBUG=1 mien doctor shows where it broke)",
        )


def format_check(check: Check, *, colour: bool = False) -> str:
    """One line, and one more with what to type where the check is not ok."""
    word = f"{check.status:<5}"
    if colour:
        word = f"\033[{_COLOURS[check.status]}m{word}\033[0m"
    line = f"{word} {check.name:<14} {check.found}"
    return f"{line}\n{'':21}-> {check.advice}" if check.advice else line


def _checks(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Check]]]:
    for name, target in CHECKS.items():
        yield name, partial(_call, target)
        if name == "open files":
            yield "disk", partial(_call, "machine:check_disk", args.folder)
    if args.ray:
        yield "ray task", partial(_call, "services:check_ray_runs")
    if args.storage:
        yield "storage", partial(_call, "services:check_storage", args.storage)


def _call(target: str, *arguments: object) -> Check:
    module, _, function = target.partition(":")
    check = getattr(import_module(f"mien_jobs.checks.{module}"), function)
    return cast("Check", check(*arguments))
