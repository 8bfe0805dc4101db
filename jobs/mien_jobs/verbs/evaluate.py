"""``mien evaluate MODEL``: scores of a model on the clips that it was not trained on."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from mien.media.storage import absolute, join, write_bytes_atomically
from mien.track.model_card import CARD_FILE
from mien.train.local_ray import ray_session
from mien_jobs.evaluation import evaluate_model
from mien_jobs.evaluation_results import frames_file, page_file, save_evaluation
from mien_jobs.model_clips import open_model_clips
from mien_jobs.recipe import PROBES
from mien_jobs.verbs.model_options import (
    add_clip_options,
    add_model_argument,
    add_slice_option,
    plan_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_model_argument(parser)
    add_clip_options(parser, out="evaluation")
    add_slice_option(parser)
    parser.add_argument(
        "--present-from",
        type=float,
        metavar="X",
        help="coded intensity from which on an action unit is present, for models that predict "
        "them; DISFA's protocol: 2 (default: as in the model's training)",
    )
    parser.add_argument(
        "--probe",
        nargs="+",
        choices=PROBES,
        default=[],
        help="also put into the scorecard what the frozen features tell of the person, or of "
        "where the head points (see `mien probe`)",
    )


def run(args: argparse.Namespace) -> int:
    """Predicts every clip once, scores, writes predictions, scorecard, page and model card."""
    plan = plan_of(args)
    model = open_model_clips(args)
    if model.data.left_out:
        print(model.data.left_out)
    with ray_session(plan) if plan.workers else nullcontext():
        found = evaluate_model(
            model,
            plan,
            probes=args.probe,
            present_from=args.present_from,
            slice_by=args.slice_by,
        )
    out = absolute(args.out)
    save_evaluation(found, out)
    print(found.report.to_markdown())
    print(found.quarantine.summary())
    write_bytes_atomically(join(out, CARD_FILE), found.model_card.encode())
    if found.classes is not None:
        print(f"predictions: {join(out, f'predictions-{found.split}.parquet')}")
    if found.units is not None:
        place = join(out, frames_file(found.split))
        print(f"action units of every sampled frame: {place}")
    print(f"page with tables and pictures: {join(out, page_file(found))}")
    return 0
