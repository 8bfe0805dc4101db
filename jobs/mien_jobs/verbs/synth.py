"""``mien synth FOLDER``: a data set of synthetic talking faces."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mien_jobs.field_options import add_field_options, config_from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, how to work, and every setting of ``SynthSpec``."""
    from mien.synth import SynthSpec

    parser.add_argument("folder", type=Path, help="where clips/ and manifest.parquet go")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that render (default: one a core, %(default)s here)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a data set that is in the folder already"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be made, and make nothing"
    )
    add_field_options(parser, SynthSpec)


def run(args: argparse.Namespace) -> int:
    """Renders, speaks and encodes the clips and writes the manifest."""
    from mien.synth import SynthSpec, describe, write_dataset
    from mien_jobs.progress import ProgressBar

    spec = config_from_options(SynthSpec, args)
    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: at least one process has to render")
    print(f"{describe(spec)}\ninto {args.folder}")
    if args.dry_run:
        return 0
    manifest = args.folder / "manifest.parquet"
    if manifest.exists() and not args.overwrite:
        raise ValueError(
            f"{manifest} is there already; give another folder, or --overwrite to replace it"
        )
    with ProgressBar("clips") as progress:
        written = write_dataset(spec, args.folder, num_workers=args.workers, progress=progress)
    print(f"wrote {written}")
    print(f"train on it: mien train mma_dfer --profile tiny --data {written}")
    return 0
