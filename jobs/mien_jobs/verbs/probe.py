"""``mien probe identity|pose MODEL``: what a model's frozen features tell beside the expression."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from mien.media.storage import absolute, join, write_bytes_atomically
from mien.train.local_ray import ray_session
from mien_jobs.model_clips import open_model_clips
from mien_jobs.probing import POSE_COLUMNS, gather_features, probe, probe_report
from mien_jobs.recipe import PROBES
from mien_jobs.verbs.model_options import add_clip_options, add_model_argument, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("what", choices=PROBES, help="who it is, or where the head points")
    add_model_argument(parser)
    add_clip_options(parser, out="probe")
    parser.add_argument(
        "--columns",
        metavar="COLUMN",
        nargs="+",
        help=f"pose: columns of numbers to read (default: {', '.join(POSE_COLUMNS)})",
    )


def run(args: argparse.Namespace) -> int:
    """Gathers features, probes them, prints and writes the report."""
    if args.columns and args.what == "identity":
        raise ValueError("--columns goes with `mien probe pose`; identity is subject_id")
    plan = plan_of(args)
    model = open_model_clips(args, features_only=True)
    with ray_session(plan) if plan.workers else nullcontext():
        found = gather_features(model, plan)
    scores = probe(model, found, [args.what], columns=args.columns)
    report = probe_report(model.info.method, found, scores)
    location = join(absolute(args.out), f"{args.what}.html")
    write_bytes_atomically(location, report.to_html().encode())
    print(report.to_markdown())
    print(f"page: {location}")
    return 0
