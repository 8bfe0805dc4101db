"""The ends that all queues for review have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from mien.clips.manifest import Manifest
from mien.media.faces import FaceRule
from mien.media.storage import absolute
from mien.review.decisions import KEEP, NONE
from mien.review.export import CONFIG, PAGE, TABLE, TASKS, PageSettings, write_review
from mien.review.items import ReviewItem
from mien_jobs.progress import ProgressBar


def check_review_options(args: argparse.Namespace) -> None:
    """Refuses sizes that make no page.

    Raises:
        ValueError: says which option, and what it may be.
    """
    if args.pages < 0:
        raise ValueError(f"--pages {args.pages}: expected 0 (no page) or more clips")
    if not 48 <= args.face_px <= 512:
        raise ValueError(f"--face-px {args.face_px}: expected 48 to 512 pixels")


def write_queue(
    args: argparse.Namespace,
    items: Sequence[ReviewItem],
    manifest: Manifest,
    *,
    manifest_uri: str,
    title: str,
    classes: tuple[str, ...],
    notes: tuple[str, ...] = (),
    num_shown: int,
    face_rule: FaceRule = "largest",
) -> None:
    """Writes a queue to ``args.out`` and says what to do with it.

    Args:
        args: of a verb with the review options.
        items: the queue; the first ``num_shown`` are on the page.
        manifest: that holds them all.
        manifest_uri: where it was read from.
        title: of the page.
        classes: what may be chosen.
        notes: lines on top of the page.
        num_shown: clips on the page.
        face_rule: whose face is shown.
    """
    folder = absolute(args.out)
    settings = PageSettings(
        title=title,
        classes=classes,
        notes=notes,
        pages=num_shown,
        face_px=args.face_px,
        face_rule=face_rule,
        model=title,
    )
    with ProgressBar("faces") as progress:
        write_review(folder, items, manifest, settings, progress)
    here = os.getcwd() + "/"
    print(f"wrote {args.out}: {TABLE} ({len(items)} clips), {PAGE} ({num_shown} with faces),")
    print(f"  {TASKS} and {CONFIG} for Label Studio")
    print(f"decide on the page ({folder.removeprefix(here)}/{PAGE}) and download the decisions, or")
    print(f"  fill in the column `decision` of the table: a class, {KEEP} or {NONE}. Then:")
    print(f"  mien clips correct {manifest_uri} FILE")
    print("the folder holds people's faces: share and delete it as you would the clips")
