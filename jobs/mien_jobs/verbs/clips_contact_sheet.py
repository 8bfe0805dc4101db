"""``mien clips contact-sheet MANIFEST``: a picture of faces, a row for each class."""

from __future__ import annotations

import argparse
import os

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which faces, and where the picture goes."""
    parser.add_argument("manifest", help="manifest file or folder, path or URI")
    parser.add_argument("--out", default="contact_sheet.png", metavar="FILE", help="a .png")
    parser.add_argument(
        "--by",
        choices=("label", "subject", "split"),
        default="label",
        help="what a row is (default: label)",
    )
    parser.add_argument("--per-group", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--seed", type=int, default=0, help="another one shows other clips")
    parser.add_argument(
        "--face-px", type=int, default=112, metavar="N", help="side of a face (default: 112)"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the sheet and says which clips show no face."""
    from mien.clips.inspect.contact_sheet import make_contact_sheet
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips
    from mien.media.storage import write_bytes_atomically
    from mien_jobs.progress import ProgressBar

    if not args.out.endswith(".png"):
        raise ValueError(f"--out {args.out}: the picture's name ends in .png")
    if not 1 <= args.per_group <= 100:
        raise ValueError(f"--per-group {args.per_group}: expected 1 to 100 clips in a row")
    if not 48 <= args.face_px <= 512:
        raise ValueError(f"--face-px {args.face_px}: expected 48 to 512 pixels")
    usable = usable_clips(Manifest.read(args.manifest))
    if usable.summary():
        print(usable.summary())
    with ProgressBar("clips") as progress:
        sheet = make_contact_sheet(
            usable.manifest,
            by=args.by,
            per_group=args.per_group,
            seed=args.seed,
            face_px=args.face_px,
            num_threads=len(os.sched_getaffinity(0)),
            progress=progress,
        )
    write_bytes_atomically(args.out, sheet.png)
    shown = sum(len(cells) for cells in sheet.rows.values())
    print(f"wrote {args.out}: {shown} clips in {len(sheet.rows)} rows")
    if sheet.groups_left_out:
        print(f"{sheet.groups_left_out} smaller groups do not fit on it")
    for problem in sheet.problems[:_SHOWN]:
        print(f"  {problem}")
    if len(sheet.problems) > _SHOWN:
        print(f"  ... and {len(sheet.problems) - _SHOWN} more without a face")
    return 0
