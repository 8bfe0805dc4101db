"""``mien monitor PREDICTIONS --model NAME@champion``: do predictions still look as accepted?"""

from __future__ import annotations

import argparse
from pathlib import Path

from mien.media.storage import absolute
from mien.monitor.reading import read_sample
from mien.monitor.signals import LEVEL
from mien.track.references import resolve
from mien_jobs.monitoring import (
    monitor,
    reference_of,
    save_monitoring,
    track_monitoring,
)
from mien_jobs.tracking import tracking_uri
from mien_jobs.verbs.model_options import MODEL_HELP, add_registry_options

LOOK = 3
"""Exit code: a person should look."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS",
        help="folder that `mien predict --features --out FOLDER` filled, tables of windows, or a "
        "file of `mien evaluate`",
    )
    parser.add_argument(
        "--model",
        required=True,
        help=f"model that predicted: {MODEL_HELP}",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE|FOLDER",
        nargs="+",
        help="predictions to compare with, of the same kinds; default: those of the clips that the "
        "model was accepted with, which lie in its package",
    )
    parser.add_argument(
        "--level",
        type=float,
        default=LEVEL,
        metavar="P",
        help="probability of an alarm where nothing has changed (default: %(default)s)",
    )
    parser.add_argument(
        "--out", default="monitor", help="folder or URI for the results (default: %(default)s)"
    )
    add_registry_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compares, prints, writes JSON and a page, tracks; exit code 3 where somebody should look."""
    if not 0.0005 <= args.level <= 0.2:
        raise ValueError(f"--level {args.level}: expected 0.0005 to 0.2")
    uri = tracking_uri(args.registry, args.storage)
    package = resolve(uri, args.model)
    reference = read_sample(args.reference) if args.reference else reference_of(package)
    new = read_sample(args.predictions)
    result = monitor(reference, new, level=args.level, title=f"Monitor of {args.model}")
    print(result.report.to_markdown())
    print(f"page with pictures: {save_monitoring(result, absolute(args.out))}")
    if uri is not None and _is_registered(args):
        print(f"MLflow run: {track_monitoring(result, uri, args.model)}")
    return LOOK if result.found.loud else 0


def _is_registered(args: argparse.Namespace) -> bool:
    """Whether there is an MLflow that knows of the model, or that was named."""
    return args.registry != "auto" or not Path(args.model).is_dir()
