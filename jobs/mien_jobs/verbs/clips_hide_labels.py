"""``mien clips hide-labels MANIFEST``: a label budget, for semi-supervised training."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which budget, and where the new manifest goes."""
    from mien.clips.label_budget import RAFDB_BUDGETS

    parser.add_argument("manifest", help="manifest file or folder, path or URI")
    how_many = parser.add_mutually_exclusive_group(required=True)
    how_many.add_argument(
        "--per-class", type=int, metavar="N", help="training clips of each class that stay labelled"
    )
    how_many.add_argument(
        "--budget",
        choices=tuple(RAFDB_BUDGETS),
        help="a published one: RAF-DB with so many labels (fear has fewer)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another one keeps other labels")
    parser.add_argument(
        "--out",
        default="label_budget.parquet",
        metavar="FILE",
        help="the new manifest (default: %(default)s); the old one stays as it is",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the new manifest and says what is in it."""
    from mien.clips.label_budget import TRUE_LABEL, named_budget, with_label_budget
    from mien.clips.manifest import Manifest
    from mien.media.storage import absolute

    if not args.out.endswith(".parquet"):
        raise ValueError(f"--out {args.out}: the manifest's name ends in .parquet")
    manifest = Manifest.read(args.manifest)
    budget = (
        named_budget(args.budget, manifest)
        if args.budget
        else dict.fromkeys(manifest.labels, args.per_class)
    )
    few = with_label_budget(manifest, budget, seed=args.seed)
    few.write(absolute(args.out))
    kept = ", ".join(f"{label} {number}" for label, number in budget.items())
    num_hidden = few.table["label"].null_count - manifest.table["label"].null_count
    print(f"labels kept for training: {kept}; {num_hidden} hidden (in the column {TRUE_LABEL})")
    print(f"wrote {args.out}; train on it: mien train dtm --data {args.out}")
    return 0
