"""``mien predict INPUT ...``: a model over films, to rows for their windows and frames."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mien.infer.film_reading import FilmSettings
    from mien.infer.film_report import Wishes
    from mien.infer.many_films import ModelParts
    from mien.infer.network import BatchedNetwork
    from mien.infer.one_film import FilmRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from mien_jobs.verbs.model_options import MODEL_HELP

    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="a film (also s3://...), a folder of films, a folder of pictures, a 'pattern*'",
    )
    parser.add_argument("--input", nargs="+", metavar="INPUT", default=[], help="the same, named")
    parser.add_argument(
        "--model",
        required=True,
        help=MODEL_HELP,
    )
    parser.add_argument(
        "--out",
        metavar="FILE|FOLDER",
        help="one input: a table (.parquet, .csv, .jsonl); any number: a folder (or s3://...) "
        "that gets tables of windows and frames, and inputs.csv with what became of each input; "
        "started again, what is done is not done again",
    )
    parser.add_argument(
        "--rows",
        choices=("windows", "frames"),
        default="windows",
        help="what a row of a table is (a folder gets both)",
    )
    parser.add_argument(
        "--format", choices=("parquet", "csv", "jsonl"), default="parquet", help="in a folder"
    )
    _add_looks(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read films, over all nodes of RAY_ADDRESS; default: 0, this process, "
        "for one input, else one a CPU, or one a GPU",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="cores for the faces of one film"
    )
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="windows that the network sees at once"
    )
    parser.add_argument("--registry", default="auto", help="MLflow URI of the registry")
    parser.add_argument("--storage", default="runs", help="folder of the runs, for --registry auto")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _add_looks(parser: argparse.ArgumentParser) -> None:
    """How a film is looked at, and what else is made of it."""
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="length of a window; default: films up to 10 s are one, longer ones cut every 3 s",
    )
    parser.add_argument(
        "--step",
        type=float,
        metavar="SECONDS",
        help="from one window to the next; default: a window's length",
    )
    parser.add_argument(
        "--people", type=int, default=8, metavar="N", help="people of a window (default: 8)"
    )
    parser.add_argument(
        "--effects",
        action="store_true",
        help="also tell by how much sound and picture raise the label's log-probability; three "
        "times the network's work",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="windows also bring the network's features, which `mien monitor` compares",
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="divide logits by the temperature that was fitted on validation clips, so that "
        "probabilities are closer to frequencies; labels stay (default: raw)",
    )
    parser.add_argument("--overlay", metavar="FILE.mp4", help="also the film with what was found")
    parser.add_argument(
        "--timeline",
        metavar="FILE.png",
        help="also a plot over time: classes, and action units of models that tell them",
    )
    parser.add_argument(
        "--post-filter",
        type=int,
        default=1,
        metavar="FRAMES",
        help="temporal post-filter: class probabilities of frames, overlay and timeline are means "
        "over so many frames of the same person, an odd number (15, 31, ...); tables of frames "
        "keep those before it as p_<class>_raw; windows are not filtered (default: 1, none)",
    )


def run(args: argparse.Namespace) -> int:
    """Predicts every input; 1 if one of several, or a part of one, could not be."""
    from mien.infer.film_report import Wishes
    from mien.infer.inputs import find_inputs
    from mien.infer.rows import is_table
    from mien.track.references import resolve
    from mien.train.world import choose_device
    from mien_jobs.data import prediction_plan
    from mien_jobs.prediction import model_parts, temperatures_of
    from mien_jobs.tracking import tracking_uri

    _check(args)
    settings = _settings(args)
    inputs = find_inputs([*args.inputs, *args.input])
    is_file = args.out is not None and is_table(args.out)
    if len(inputs) > 1 and (is_file or args.overlay or args.timeline):
        raise ValueError(
            f"{len(inputs)} inputs don't fit into one file: give --out a folder, and --overlay and "
            "--timeline with one input at a time"
        )
    device = choose_device(args.device)
    model = model_parts(resolve(tracking_uri(args.registry, args.storage), args.model))
    classes = model.info.label_set.classes
    temperatures = temperatures_of(model.info) if args.calibrated else None
    kind = "calibrated" if args.calibrated else "raw"
    print(f"{model.info.method}, classes {', '.join(classes)}, on {device}, {kind} probabilities")
    if args.effects and model.info.prediction_stream.audio is None:
        print("warning: --effects: this model does not hear, so that there is nothing to tell")
    wishes = Wishes(
        label_set=model.info.label_set,
        settings=settings,
        plan=prediction_plan(model.info),
        out=args.out,
        rows=args.rows,
        overlay=args.overlay,
        timeline=args.timeline,
        weights_sha256=model.info.weights_sha256,
    )
    if args.out and not is_file:
        return _into_folder(inputs, args, model, wishes, str(device), temperatures)
    with model.network(
        str(device),
        args.batch,
        with_effects=args.effects,
        with_features=args.features,
        temperatures=temperatures,
    ) as network:
        return _one_by_one(inputs, network, wishes)


def _check(args: argparse.Namespace) -> None:
    if not args.inputs and not args.input:
        raise ValueError("nothing to predict: name a film or a folder, as in mien predict FILM.mp4")
    for name in ("people", "threads", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)}: expected 1 or more")
    if args.features:
        _check_features(args)
    _check_post_filter(args)
    if args.workers is not None and args.workers < 0:
        raise ValueError(f"--workers {args.workers}: expected 0 or more")


def _check_features(args: argparse.Namespace) -> None:
    if args.out is None or args.rows == "frames":
        raise ValueError("--features come with windows in a table: give --out, and no --rows")
    if "csv" in (args.format, args.out.rpartition(".")[2].lower()):
        raise ValueError(
            "--features: a CSV cell holds no list of numbers; write Parquet (--format parquet, or "
            "--out FILE.parquet) or JSON lines"
        )


def _check_post_filter(args: argparse.Namespace) -> None:
    from mien.infer.post_filter import PostFilter
    from mien.infer.rows import is_table

    PostFilter(args.post_filter)
    has_frames = args.out is not None and (args.rows == "frames" or not is_table(args.out))
    if args.post_filter > 1 and not (has_frames or args.overlay or args.timeline):
        raise ValueError(
            f"--post-filter {args.post_filter} is of frames, and nothing shows frames here: add "
            "--out FILE --rows frames, --out FOLDER, --overlay or --timeline"
        )


def _settings(args: argparse.Namespace) -> FilmSettings:
    from mien.infer.film_reading import FilmSettings
    from mien.infer.windows import Windowing

    windowing = Windowing(window_s=args.window, step_s=args.step)
    return FilmSettings(
        windowing=windowing,
        max_people=args.people,
        threads=args.threads,
        post_filter_frames=args.post_filter,
    )


def _one_by_one(inputs: list[str], network: BatchedNetwork, wishes: Wishes) -> int:
    from mien.infer.film_report import report_film
    from mien.media.errors import ClipError

    bad: list[str] = []
    for location in inputs:
        print(f"\n{location}")
        try:
            report = report_film(location, network, wishes)
        except ClipError as error:
            if len(inputs) == 1:
                raise
            print(f"({error.reason}) {error}")
            bad.append(location)
            continue
        print(report.text)
        if report.is_cut_off:
            bad.append(location)
    if bad and len(inputs) > 1:
        print(f"\n{len(bad)} of {len(inputs)} inputs failed or are cut off: {', '.join(bad)}")
    return 1 if bad else 0


def _into_folder(
    inputs: list[str],
    args: argparse.Namespace,
    model: ModelParts,
    wishes: Wishes,
    device: str,
    temperatures: Mapping[str, float] | None,
) -> int:
    from contextlib import nullcontext

    from mien.infer.many_films import predict_many
    from mien.media.storage import absolute
    from mien.train.local_ray import ray_session
    from mien.train.plan import TrainPlan
    from mien_jobs.prediction import crew_of, folder_job

    if args.overlay or args.timeline:
        raise ValueError("--overlay and --timeline go with one input and no folder for --out")
    out = absolute(args.out)
    effects = args.effects and model.info.prediction_stream.audio is not None
    job = folder_job(
        out,
        model,
        wishes.settings,
        wishes.plan,
        args.format,
        with_effects=effects,
        with_features=args.features,
        temperatures=temperatures,
    )
    workers = 0 if args.workers is None and len(inputs) == 1 else args.workers
    use_ray = workers != 0
    with ray_session(TrainPlan(workers=0)) if use_ray else nullcontext():
        crew = crew_of(workers, device, args.batch)
        records = []
        for record in predict_many(inputs, job, model, crew):
            records.append(record)
            print(_line(record, f"{len(records)}/{len(inputs)}"), flush=True)
    return _sum_up(records, out)


def _line(record: FilmRecord, place: str) -> str:
    if record.status == "failed":
        return f"{place} {record.input}: ({record.reason}) {record.message}"
    told = "".join(f"; {warning}" for warning in record.warnings)
    return (
        f"{place} {record.input}: {record.duration_s:.1f} s, {record.num_windows} windows, "
        f"{record.num_frames} frames, {record.num_people} people{told}"
    )


def _sum_up(records: list[FilmRecord], out: str) -> int:
    counts = Counter(record.status for record in records)
    reasons = Counter(record.reason for record in records if record.reason)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    print(
        f"{counts['done']} of {len(records)} inputs done"
        + (f", {counts['incomplete']} cut off" if counts["incomplete"] else "")
        + (f", {counts['failed']} failed" if counts["failed"] else "")
        + (f" ({why})" if why else "")
        + f"; tables in {out}/windows and {out}/frames, what became of each input in "
        f"{out}/inputs.csv"
    )
    return 1 if counts["failed"] or counts["incomplete"] else 0
