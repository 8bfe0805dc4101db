"""``mien evaluate MODEL``: scores of a model on the clips that it was not trained on."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from mien.media.storage import absolute, join, write_bytes_atomically
from mien.track.model_card import CARD_FILE
from mien.train.local_ray import ray_session
from mien_jobs.evaluation import evaluate_method, save_evaluation
from mien_jobs.model_clips import open_model_clips
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


def run(args: argparse.Namespace) -> int:
    """Predicts every clip once, scores, writes predictions, scorecard, page and model card."""
    plan = plan_of(args)
    use_ray = plan.workers > 0
    model = open_model_clips(args)
    if model.data.left_out:
        print(model.data.left_out)
    with ray_session(plan) if use_ray else nullcontext():
        found = evaluate_method(
            model.method,
            model.info,
            model.data,
            which=model.which,
            plan=plan,
            use_ray=use_ray,
            slice_by=args.slice_by,
            is_own=model.is_own,
        )
    out = absolute(args.out)
    location = save_evaluation(found, out)
    write_bytes_atomically(join(out, CARD_FILE), found.model_card.encode())
    print(found.report.to_markdown())
    print(found.quarantine.summary())
    print(f"predictions: {location}")
    print(f"page with pictures: {join(out, f'scorecard-{model.which}.html')}")
    return 0
