"""``mien clips check MANIFEST``: opens every file and says what is wrong."""

from __future__ import annotations

import argparse
import os

from mien_jobs.tables import print_table

_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How thorough, and where the report goes."""
    parser.add_argument("manifest", help="manifest file or folder, path or URI")
    parser.add_argument(
        "--decode",
        action="store_true",
        help="decode every frame of every clip (slow); otherwise 8 of each, and the sound",
    )
    parser.add_argument("--out", metavar="FILE", help="write all findings there, as CSV")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that open files (default: one a core, %(default)s here)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints and writes the findings; 1 if there are any."""
    from mien.clips.inspect.check import check_clips
    from mien.clips.inspect.findings import count_by_kind, write_findings
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips
    from mien_jobs.progress import ProgressBar

    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: at least one process has to open files")
    if args.out is not None and not args.out.endswith(".csv"):
        raise ValueError(f"--out {args.out}: the report's name ends in .csv")
    usable = usable_clips(Manifest.read(args.manifest))
    if usable.summary():
        print(usable.summary())
    with ProgressBar("clips") as progress:
        report = check_clips(
            usable.manifest,
            decode_all=args.decode,
            num_workers=args.workers,
            progress=progress,
        )
    if args.out is not None:
        write_findings(args.out, report.findings)
    if not report.findings:
        print(f"{report.num_clips} clips opened, nothing wrong")
    else:
        rows = [[*kind[:2], str(kind[2]), kind[3]] for kind in count_by_kind(report.findings)]
        print_table(["", "kind", "clips", "meaning"], rows, numbers=["clips"])
        for finding in report.findings[:_SHOWN]:
            print(f"{finding.severity} {finding.kind} {finding.clip_id}: {finding.detail}")
        rest = len(report.findings) - _SHOWN
        if rest > 0:
            hint = args.out or "all of them: --out FILE.csv"
            print(f"... and {rest} more ({hint})")
        print(f"{report.num_clips} clips opened, something wrong with {report.num_faulty}")
    if args.out is not None:
        print(f"wrote {args.out}")
    return 1 if report.findings else 0
