"""``mien export MODEL --out FOLDER``: a model as ONNX and torch.export files, checked."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.export.graph import Format
    from mien.export.write import Export

MOST_FILMS = 16
"""Films that a check reads, evenly chosen."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from mien_jobs.verbs.model_options import add_model_argument, add_registry_options

    add_model_argument(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="gets model.onnx, model.pt2, preprocessing.json and check.json; must be new or empty",
    )
    parser.add_argument("--format", choices=("onnx", "torch"), help="only this one (default: both)")
    parser.add_argument(
        "--check",
        nargs="+",
        metavar="FILE|FOLDER|MANIFEST",
        help="films with faces on which the files must say what the package says, "
        f"of many {MOST_FILMS} (default: built-in ones, made here)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads of the latency table"
    )
    add_registry_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exports, checks, measures; nothing is left behind if a file differs from the package."""
    import torch

    from mien.export.write import export_package
    from mien.media.storage import is_remote
    from mien.track.references import resolve
    from mien_jobs.data import prediction_plan
    from mien_jobs.methods import load_method
    from mien_jobs.tracking import tracking_uri

    if args.threads < 1:
        raise ValueError(f"--threads {args.threads}: expected 1 or more")
    if is_remote(args.out):
        raise ValueError(f"--out {args.out}: expected a local folder; copy it to a bucket then")
    formats: list[Format] = [args.format] if args.format else ["onnx", "torch"]
    if "onnx" in formats and find_spec("onnxscript") is None:
        raise ValueError(
            "ONNX files are written with onnxscript: pip install -c constraints.txt -e "
            "'.[export]', or export with --format torch alone"
        )
    torch.set_num_threads(args.threads)
    info, method = load_method(resolve(tracking_uri(args.registry, args.storage), args.model))
    with _films(args.check) as films:
        made = export_package(
            info,
            method,
            args.out,
            formats=formats,
            films=films,
            plan=prediction_plan(info),
        )
    _tell(made)
    return 0


@contextmanager
def _films(named: list[str] | None) -> Iterator[list[str]]:
    """The films of the check; built-in ones are gone afterwards."""
    from mien.clips.manifest import Manifest
    from mien.infer.inputs import find_inputs

    if named is not None:
        tables = [name for name in named if name.endswith(".parquet")]
        films = [clip.uri for name in tables for clip in Manifest.read(name).consented()]
        films += find_inputs([name for name in named if name not in tables])
        films = list(dict.fromkeys(films))
        yield films[:: max(1, -(-len(films) // MOST_FILMS))]
        return
    with tempfile.TemporaryDirectory(prefix="mien-export-") as folder:
        print("making built-in clips to check with (--check FILE takes your own)", flush=True)
        yield [clip.uri for clip in Manifest.read(str(_make_clips(Path(folder) / "clips")))]


def _make_clips(folder: Path) -> Path:
    from mien.synth import SynthDataMissingError, SynthSpec, write_dataset

    spec = SynthSpec(
        num_subjects=2,
        classes=("happiness", "sadness", "anger"),
        duration_s=1.0,
        missing_audio=1 / 3,
        supersample=False,
    )
    try:
        return write_dataset(spec, folder, num_workers=0)
    except SynthDataMissingError as error:
        raise ValueError(f"{error}. Or name films to check with: --check FILM.mp4 ...") from error


def _tell(made: Export) -> None:
    from mien.evaluate.markdown import markdown_table
    from mien.export.latency import latency_table

    for name, found in made.comparisons.items():
        print(
            f"{name}: largest difference from the package {found.largest_difference:.1e} over "
            f"{found.num_windows} windows, same class in {found.class_agreement:.0%}"
        )
    table = latency_table(made.latencies, made.threads)
    print(f"\n{table.title}\n\n{markdown_table(table.head, table.rows)}\n")
    print(f"wrote {made.folder}: how to make its inputs is in preprocessing.json")
