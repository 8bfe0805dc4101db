"""``mien clips correct MANIFEST DECISIONS``: a person's decisions laid over a manifest."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifest, the decisions, and where the new manifest goes."""
    parser.add_argument("manifest", help="the manifest that was reviewed, path or URI")
    parser.add_argument(
        "decisions",
        help="CSV of the page or the filled-in table of `mien audit-labels` or `mien review`, or "
        "Label Studio's JSON export",
    )
    parser.add_argument(
        "--out",
        default="corrected.parquet",
        metavar="FILE",
        help="the new manifest (default: %(default)s); the old one stays as it is",
    )
    parser.add_argument(
        "--new-classes",
        action="store_true",
        help="a decision may name a class that no clip has yet",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the new manifest and says what changed."""
    from mien.clips.manifest import Manifest
    from mien.media.storage import absolute
    from mien.review.decisions import read_decisions
    from mien.review.overlay import BEFORE, apply_decisions

    if not args.out.endswith(".parquet"):
        raise ValueError(f"--out {args.out}: the manifest's name ends in .parquet")
    decisions = read_decisions(args.decisions)
    if not decisions:
        raise ValueError(
            f"{args.decisions} holds no decision: fill in the column `decision`, or download them "
            "from the page"
        )
    found = apply_decisions(Manifest.read(args.manifest), decisions, new_classes=args.new_classes)
    found.manifest.write(absolute(args.out))
    print(
        f"{len(decisions)} decisions: {found.changed} labels changed, {found.labelled} given, "
        f"{found.removed} taken away, {found.kept} kept"
    )
    print(f"wrote {args.out}; the labels from before are in its column {BEFORE}")
    return 0
