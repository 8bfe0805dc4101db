"""``mien evaluate MODEL``: scores of a model on the clips that it was not trained on."""

from __future__ import annotations

import argparse

from mien.clips.manifest import Manifest
from mien.clips.person_data import usable_clips
from mien.clips.splits import Split
from mien.evaluate.slices import USUAL_COLUMNS
from mien.infer.package import PackageInfo
from mien.media.storage import absolute
from mien.track.registry import resolve
from mien.train.local_ray import ray_session
from mien.train.plan import TrainPlan
from mien_jobs.caching import read_cached
from mien_jobs.data import RunData, load_plan, split_clips, trained_on
from mien_jobs.evaluation import SplitName, evaluate_method, save_evaluation
from mien_jobs.methods import load_method
from mien_jobs.tracking import tracking_uri


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("model", help="package folder, or NAME@alias or NAME/version of a registry")
    parser.add_argument(
        "--data", metavar="MANIFEST", help="manifest; without it the one of the training"
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="clips to score; default: test on the training's manifest, all on another one",
    )
    parser.add_argument(
        "--slice-by",
        metavar="COLUMN",
        nargs="+",
        help="manifest columns to score separately; default: the usual ones that are there "
        f"({', '.join(USUAL_COLUMNS)})",
    )
    parser.add_argument("--out", default="evaluation", help="folder or URI for the results")
    parser.add_argument("--registry", default="auto", help="MLflow URI of the registry")
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Predicts every clip once, scores, writes predictions and scorecard."""
    package = resolve(tracking_uri(args.registry, args.storage), args.model)
    info, method = load_method(package)
    data, is_own = open_clips(info, args.data)
    if data.left_out:
        print(data.left_out)
    which: SplitName = args.split or ("test" if is_own else "all")
    plan = TrainPlan(device=args.device, workers=1)
    data = read_cached(data, trained_on(info), [info.prediction_stream.for_prediction(which)])
    with ray_session(plan):
        found = evaluate_method(method, info, data, which=which, plan=plan, slice_by=args.slice_by)
    location = save_evaluation(found, absolute(args.out))
    print(found.report.to_markdown())
    print(found.quarantine.summary())
    print(f"predictions: {location}")
    print(f"page with pictures: {absolute(args.out)}/scorecard-{which}.html")
    return 0


def open_clips(info: PackageInfo, manifest_uri: str | None) -> tuple[RunData, bool]:
    """The clips to score, and whether they are those of the model's training.

    On the training's manifest the split is drawn again as it was then, and must be the same one.

    Raises:
        ValueError: the training's clips or split can't be had again.
    """
    plan = trained_on(info)
    whole = Manifest.read(absolute(manifest_uri or plan.manifest))
    manifest_hash = whole.consented().content_hash()
    is_own = manifest_hash == info.manifest_hash
    usable = usable_clips(whole, plan.licences if is_own else ())
    manifest = usable.manifest
    if not is_own:
        if manifest_uri is None:
            raise ValueError(
                f"{plan.manifest} has changed since the model was trained on it, so nobody can say "
                "who was in its test split; name the manifest to score with --data"
            )
        split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    else:
        split = split_clips(plan, manifest)
        if split.content_hash != info.split_hash:
            raise ValueError(
                "the split drawn now differs from the one that the model was trained with; use the "
                f"version of Mien that trained it ({info.mien_version})"
            )
    data = RunData(
        manifest=manifest,
        label_set=info.label_set,
        split=split,
        loading=load_plan(plan),
        manifest_hash=manifest_hash,
        left_out=usable.summary(),
    )
    return data, is_own
