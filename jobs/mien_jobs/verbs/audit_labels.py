"""``mien audit-labels RUN``: which labels a run of RDFER doubts, for a person to decide."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mien_jobs.tables import print_table
from mien_jobs.verbs.model_options import MODEL_HELP

if TYPE_CHECKING:
    from mien.clips.manifest import Manifest
    from mien.review.items import ReviewItem
    from mien_jobs.audit import AuditedRun

_PRINTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what is made of it."""
    parser.add_argument(
        "run",
        help=f"of rdfer, a folder also while it is being trained: {MODEL_HELP}",
    )
    add_review_options(parser, default="label_audit")
    parser.add_argument(
        "--out-of-fold",
        nargs="+",
        default=[],
        metavar="FILE",
        help="test predictions (predictions-test.parquet) of runs that were not trained on these "
        "clips, one a fold: shown beside, and confident learning then is made of them",
    )


def add_review_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """What every queue for review can be told."""
    parser.add_argument(
        "--out", default=default, metavar="FOLDER", help="folder or URI (default: %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="MANIFEST", help="manifest; without it the one of the training"
    )
    parser.add_argument(
        "--pages",
        type=int,
        default=200,
        metavar="N",
        help="clips on the page, with faces (default: 200); the table may hold more",
    )
    parser.add_argument(
        "--face-px", type=int, default=128, metavar="N", help="side of a face (default: 128)"
    )
    parser.add_argument("--registry", default="auto", help="MLflow URI of the registry")
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")


def run(args: argparse.Namespace) -> int:
    """Writes the table, the page and Label Studio's files, and says what was found."""
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips
    from mien_jobs import audit
    from mien_jobs.reviewing import check_review_options, write_queue
    from mien_jobs.tracking import tracking_uri

    check_review_options(args)
    found = audit.read_run(args.run, tracking_uri(args.registry, args.storage))
    usable = usable_clips(Manifest.read(args.data or found.data.manifest))
    gone = sorted(set(found.ledger) - set(usable.manifest.column("clip_id")))
    if gone:
        raise ValueError(
            f"{len(gone)} clips of the run are not among the usable clips of the manifest "
            f"({', '.join(gone[:3])}{', ...' if len(gone) > 3 else ''}); name the manifest that it "
            "was trained on with --data"
        )
    unseen = audit.read_out_of_fold(args.out_of_fold, found.classes)
    compared, ranks = _confident_learning(found, unseen)
    items = audit.audit_items(
        found, cleanlab_rank=ranks, out_of_fold=unseen if args.out_of_fold else None
    )
    _say_what_was_found(items)
    for line in [*compared, *_against_truth(found, items, ranks, usable.manifest)]:
        print(line)
    doubted = [item for item in items if item.reason != "clean"]
    shown = audit.with_key_moments(doubted[: args.pages], found, usable.manifest)
    by_id = {item.clip_id: item for item in shown}
    queue = [*shown, *(item for item in items if item.clip_id not in by_id)]
    write_queue(
        args,
        queue,
        usable.manifest,
        manifest_uri=args.data or found.data.manifest,
        title=f"Labels doubted by {found.name}",
        classes=found.classes,
        notes=tuple(compared),
        num_shown=len(shown),
        face_rule=found.data.face_rule,
    )
    return 0


def _say_what_was_found(items: list[ReviewItem]) -> None:
    from collections import Counter

    counts = Counter(item.reason for item in items)
    told = ", ".join(f"{counts[name]} {name}" for name in ("noisy", "unsure", "hard", "clean"))
    print(f"{len(items)} clips: {told}")
    names = ("clip", "given", "suggested", "verdict", "agreement", "margin")
    rows = [
        (
            item.clip_id,
            item.given or "-",
            item.suggested,
            item.reason,
            f"{item.facts['agreement']:.2f}",
            f"{item.facts['margin']:.2f}",
        )
        for item in items[:_PRINTED]
    ]
    print_table(names, rows, numbers=("agreement", "margin"))


def _confident_learning(
    found: AuditedRun, unseen: dict[str, list[float]]
) -> tuple[list[str], dict[str, int] | None]:
    """Lines about what cleanlab doubts, and its ranking; without cleanlab, how to get it."""
    import numpy as np

    from mien.review import confident_learning
    from mien_jobs import audit

    if not confident_learning.is_available():
        return [f"not compared with confident learning ({confident_learning.INSTALL})"], None
    given_N, rows_NK = audit.given_labels(found), audit.probabilities(found)
    clip_ids = list(found.ledger)
    source = "the same predictions"
    if unseen:
        chosen = [row for row, clip in enumerate(clip_ids) if clip in unseen]
        clip_ids = [clip_ids[row] for row in chosen]
        given_N, rows_NK = given_N[chosen], np.array([unseen[clip] for clip in clip_ids])
        source = f"out-of-fold predictions of {len(chosen)} of {len(found.ledger)} clips"
    doubted = [clip_ids[row] for row in confident_learning.doubted_by_cleanlab(given_N, rows_NK)]
    noisy = {clip for clip, record in found.ledger.items() if record["verdict"] == "noisy"}
    line = (
        f"confident learning (cleanlab) on {source} doubts {len(doubted)} labels, "
        f"{len(noisy & set(doubted))} of the {len(noisy)} noisy ones among them"
    )
    return [line], {clip: rank for rank, clip in enumerate(doubted, start=1)}


def _against_truth(
    found: AuditedRun,
    items: list[ReviewItem],
    ranks: dict[str, int] | None,
    manifest: Manifest,
) -> list[str]:
    """Lines about precision and recall, where the manifest has a column ``true_label``."""
    from mien.review.quality import found_errors, ranking_auc
    from mien_jobs import audit

    if "true_label" not in manifest.table.column_names:
        return []
    pairs = zip(manifest.column("clip_id"), manifest.column("true_label"), strict=True)
    truth = {clip: label for clip, label in pairs if label is not None}
    given = {item.clip_id: item.given or "" for item in items}
    wrong = [clip for clip, label in given.items() if truth.get(clip, label) != label]
    lines = []
    noisy = [item.clip_id for item in items if item.reason == "noisy"]
    for name, doubted in (("agreement", noisy), ("cleanlab", list(ranks or ()))):
        if name == "cleanlab" and ranks is None:
            continue
        scores = found_errors(doubted, given, truth)
        if scores.precision is None:
            continue
        recall = "-" if scores.recall is None else f"{scores.recall:.2f}"
        lines.append(
            f"against the column true_label, {name}: precision {scores.precision:.2f}, recall "
            f"{recall} ({scores.right} of {scores.wrong_labels} wrong labels)"
        )
    auc = ranking_auc(audit.doubts(found), wrong)
    if auc is not None:
        lines.append(f"ranking by margin: a wrong label is ahead of a right one in {auc:.0%}")
    return lines
