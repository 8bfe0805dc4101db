"""``mien promote RUN --name NAME``: the better model on the same clips becomes champion."""

from __future__ import annotations

import argparse

from mien.evaluate.compare import PromotionRules
from mien.media.storage import absolute
from mien_jobs.promotion import PromotionRequest, promote
from mien_jobs.tracking import tracking_uri
from mien_jobs.verbs.model_options import (
    MODEL_HELP,
    add_clip_options,
    add_slice_option,
    plan_of,
)

_RULES = PromotionRules()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        "challenger",
        metavar="MODEL",
        help=MODEL_HELP,
    )
    parser.add_argument("--name", required=True, help="registered model whose champion it may be")
    parser.add_argument("--alias", default="champion", help="default: %(default)s")
    add_clip_options(parser, out="promotion")
    add_slice_option(parser)
    rules = parser.add_argument_group("conditions")
    rules.add_argument("--score", choices=("uar", "war", "macro_f1"), default=_RULES.score)
    rules.add_argument(
        "--min-gain",
        type=float,
        default=_RULES.min_gain,
        metavar="X",
        help="the lower end of the gain's 95 %% interval must be above this; -0.01: as good within "
        "a point (default: %(default)s)",
    )
    rules.add_argument(
        "--max-slice-loss",
        type=float,
        default=_RULES.max_slice_loss,
        metavar="X",
        help="WAR that a slice may lose (default: %(default)s)",
    )
    rules.add_argument(
        "--min-slice-war",
        type=float,
        default=_RULES.min_slice_war,
        metavar="X",
        help="WAR that every large enough slice must have (default: %(default)s)",
    )
    rules.add_argument(
        "--max-latency-ratio",
        type=float,
        default=_RULES.max_latency_ratio,
        metavar="X",
        help="times the champion's time for a clip (default: %(default)s)",
    )
    rules.add_argument(
        "--max-latency-ms", type=float, metavar="MS", help="time for a clip on this machine"
    )


def run(args: argparse.Namespace) -> int:
    """Decides, prints why; exit code 1 where the challenger was refused."""
    uri = tracking_uri(args.registry, args.storage)
    if uri is None:
        raise ValueError("promotion moves an alias of a registry: --registry must not be off")
    request = PromotionRequest(
        uri=uri,
        challenger=args.challenger,
        name=args.name,
        alias=args.alias,
        data=args.data,
        split=args.split,
        slice_by=None if args.slice_by is None else tuple(args.slice_by),
        rules=PromotionRules(
            score=args.score,
            min_gain=args.min_gain,
            max_slice_loss=args.max_slice_loss,
            min_slice_war=args.min_slice_war,
            max_latency_ratio=args.max_latency_ratio,
            max_latency_ms=args.max_latency_ms,
        ),
    )
    found = promote(request, plan_of(args), absolute(args.out))
    title = f"{args.challenger} (version {found.version} of {args.name})"
    print(found.verdict.report(title).to_markdown())
    if found.move is None:
        kept = (
            "there is still none" if found.champion is None else f"still version {found.champion}"
        )
        print(f"refused: {args.name}@{args.alias} is {kept}")
    else:
        print(f"promoted: {args.name}@{args.alias} is version {found.version} now")
        if found.champion is not None:
            print(f"take it back: mien rollback --name {args.name} --alias {args.alias}")
    print(f"report, scorecard and predictions: {absolute(args.out)}")
    return 0 if found.move else 1
