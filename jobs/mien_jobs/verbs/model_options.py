"""Options of the verbs that look at a trained model's predictions."""

from __future__ import annotations

import argparse

from mien.evaluate.slices import USUAL_COLUMNS
from mien.train.plan import TrainPlan

MODEL_HELP = (
    "folder of a package or of a run; NAME@alias or NAME/version of a registry, also after "
    "models:/; runs:/RUN_ID of MLflow, or a run's id or name"
)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument("model", help=MODEL_HELP)


def add_clip_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    """Which clips, and where results go."""
    parser.add_argument(
        "--data", metavar="MANIFEST", help="manifest; without it the one of the training"
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="clips to score; default: test on the training's manifest, all on another one",
    )
    parser.add_argument(
        "--out", default=out, help="folder or URI for the results (default: %(default)s)"
    )
    add_registry_options(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--decode-tasks",
        type=int,
        default=2,
        metavar="N",
        help="Ray tasks that decode at once; 0: decode in this process, without Ray "
        "(default: %(default)s)",
    )


def add_registry_options(parser: argparse.ArgumentParser) -> None:
    """Where models are registered."""
    parser.add_argument("--registry", default="auto", help="MLflow URI of the registry")
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")


def add_slice_option(parser: argparse.ArgumentParser) -> None:
    """The columns to slice by."""
    parser.add_argument(
        "--slice-by",
        metavar="COLUMN",
        nargs="+",
        help="manifest columns to score separately; default: the usual ones that are there "
        f"({', '.join(USUAL_COLUMNS)})",
    )


def plan_of(args: argparse.Namespace) -> TrainPlan:
    """How clips are read and predicted; no workers: without Ray.

    Raises:
        ValueError: a negative number of tasks.
    """
    if args.decode_tasks < 0:
        raise ValueError(f"--decode-tasks must be 0 or more, got {args.decode_tasks}")
    on_ray = args.decode_tasks > 0
    return TrainPlan(
        device=args.device, workers=int(on_ray), decode_tasks=max(1, args.decode_tasks)
    )
