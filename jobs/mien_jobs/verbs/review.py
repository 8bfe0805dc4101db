"""``mien review MODEL``: accepted but doubtful pseudo-labels of a model of DTM, for a person."""

from __future__ import annotations

import argparse
from collections import Counter

from mien_jobs.tables import print_table
from mien_jobs.verbs.audit_labels import add_review_options
from mien_jobs.verbs.model_options import MODEL_HELP

_PRINTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and what is made of it."""
    parser.add_argument("model", help=f"of dtm: {MODEL_HELP}")
    add_review_options(parser, default="pseudo_label_review")


def run(args: argparse.Namespace) -> int:
    """Writes the table, the page and Label Studio's files, and says what was found."""
    from mien.clips.manifest import Manifest
    from mien.clips.person_data import usable_clips
    from mien.track.references import resolve
    from mien_jobs.data import trained_on
    from mien_jobs.methods import load_method
    from mien_jobs.progress import ProgressBar
    from mien_jobs.pseudo_labels import pseudo_label
    from mien_jobs.reviewing import check_review_options, write_queue
    from mien_jobs.tracking import tracking_uri
    from mien_models.dtm import Dtm

    check_review_options(args)
    info, method = load_method(resolve(tracking_uri(args.registry, args.storage), args.model))
    if not isinstance(method, Dtm):
        raise ValueError(
            f"{args.model} is a model of {info.method}, which gives no pseudo-labels; name one of "
            "`mien train dtm` (doubted labels of rdfer: `mien audit-labels`)"
        )
    where = args.data or trained_on(info).manifest
    usable = usable_clips(Manifest.read(where)).manifest
    with ProgressBar("clips without label") as progress:
        found = pseudo_label(method, info, usable, progress)
    classes = Counter(item.suggested for item in found.accepted)
    print(
        f"{len(found.accepted)} pseudo-labels reach their class's threshold, "
        f"{found.refused} don't; "
        f"{', '.join(f'{name} {classes[name]}' for name in method.classes)}"
    )
    if not found.accepted:
        print(
            "nothing to review, and nothing written: the model accepts no pseudo-label of these "
            "clips. Train it longer, or with a lower --set config.threshold.floor"
        )
        return 0
    names = ("clip", "pseudo-label", "confidence", "threshold", "margin", "runner-up")
    columns = ("confidence", "threshold", "margin")
    rows = [
        (
            item.clip_id,
            item.suggested,
            *(f"{item.facts[name]:.2f}" for name in columns),
            str(item.facts["runner_up"]),
        )
        for item in found.accepted[:_PRINTED]
    ]
    print_table(names, rows, numbers=columns)
    write_queue(
        args,
        found.accepted,
        usable,
        manifest_uri=where,
        title=f"Pseudo-labels of {info.recipe.get('name', info.method)}",
        classes=method.classes,
        num_shown=min(args.pages, len(found.accepted)),
        face_rule=trained_on(info).face_rule,
    )
    return 0
