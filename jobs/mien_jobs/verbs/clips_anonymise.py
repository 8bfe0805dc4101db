"""``mien clips anonymise``: copies that are fit for sharing."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.clips.anonymise import AnonymousClips

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which clips, where to, and what a copy shows and plays."""
    parser.add_argument("manifest", metavar="MANIFEST", help="file or folder, path or URI")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="folder to be shared, path or URI"
    )
    parser.add_argument(
        "--mapping",
        required=True,
        metavar="FILE",
        help="local file, outside of --out, that leads from new names back to old ones; keep it, "
        "and keep it apart: an interrupted run goes on with it",
    )
    parser.add_argument(
        "--form",
        choices=("crops", "video"),
        default="crops",
        help="crops: the aligned face alone (default). video: the whole picture with everything "
        "but that face hidden",
    )
    parser.add_argument(
        "--audio",
        choices=("keep", "drop", "pitch_shift"),
        default="keep",
        help="pitch_shift moves each person's voice by 3 to 6 semitones (default: keep)",
    )
    parser.add_argument(
        "--face-rule",
        choices=("largest", "longest_track", "given_box"),
        default="largest",
        help="whose face it is, if there are several (default: largest); given_box reads the "
        "column face_box",
    )
    parser.add_argument(
        "--size", type=int, default=224, metavar="PX", help="side of the crops (default: 224)"
    )
    parser.add_argument(
        "--keep-columns",
        default="",
        metavar="NAMES",
        help="further columns of the manifest to be shared, as in age,sex (default: none)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="clips at the same time (default: one a core, %(default)s here)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the copies and says what was left out; 1 if anything was."""
    from mien.clips.anonymise import CopyOptions, anonymise_clips
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips
    from mien_jobs.progress import ProgressBar

    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: at least one has to work")
    usable = usable_clips(Manifest.read(args.manifest))
    if usable.summary():
        print(usable.summary())
    with ProgressBar("clips") as progress:
        made = anonymise_clips(
            usable.manifest,
            args.out,
            mapping=args.mapping,
            options=CopyOptions(
                form=args.form, sound=args.audio, face_rule=args.face_rule, size_px=args.size
            ),
            keep_columns=[name.strip() for name in args.keep_columns.split(",") if name.strip()],
            num_threads=args.workers,
            progress=progress,
        )
    _report(made, args)
    return 1 if made.left_out else 0


def _report(made: AnonymousClips, args: argparse.Namespace) -> None:
    for clip_id, why in list(made.left_out.items())[:_SHOWN]:
        print(f"  left out {clip_id}: {why}")
    if len(made.left_out) > _SHOWN:
        print(f"  ... and {len(made.left_out) - _SHOWN} more, all of them in {args.mapping}")
    if made.manifest is None:
        print("no clip could be copied; there is nothing to share")
        return
    already = f" ({made.num_there_already} of them by an earlier run)"
    print(
        f"wrote {args.out}: {len(made.manifest)} clips"
        f"{already if made.num_there_already else ''}, {len(made.left_out)} left out"
    )
    print(f"wrote {args.mapping}: leads back to people, not to be shared")
    if args.audio == "keep":
        print("voices are as they were and can be recognised: see --audio")
