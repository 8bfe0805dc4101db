"""``mien robustness MODEL``: how scores fall when clips are corrupted."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from mien.evaluate.corruptions import PICTURE_CHANGES, SOUND_CHANGES, SOUND_MISSING
from mien.media.storage import absolute, join
from mien.train.local_ray import ray_session
from mien_jobs.model_clips import open_model_clips
from mien_jobs.robustness import measure_robustness, save_robustness
from mien_jobs.verbs.model_options import add_clip_options, add_model_argument, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_model_argument(parser)
    add_clip_options(parser, out="robustness")
    names = ", ".join([*PICTURE_CHANGES, *SOUND_CHANGES, SOUND_MISSING])
    parser.add_argument(
        "--only", metavar="CORRUPTION", nargs="+", help=f"some of: {names} (default: all)"
    )
    parser.add_argument(
        "--max-clips", type=int, metavar="N", help="so many clips, drawn the same way every time"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts clean and corrupted clips; prints the table, writes the page."""
    plan = plan_of(args)
    model = open_model_clips(args)
    if model.data.left_out:
        print(model.data.left_out)
    with ray_session(plan) if plan.workers else nullcontext():
        found = measure_robustness(model, plan, wanted=args.only, max_clips=args.max_clips)
    out = absolute(args.out)
    save_robustness(found, out)
    print(found.robustness.report().to_markdown())
    print(f"page with the picture: {join(out, 'robustness.html')}")
    return 0
