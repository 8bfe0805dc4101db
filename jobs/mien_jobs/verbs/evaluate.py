"""``mien evaluate MODEL``: scores of a model on the clips that it was not trained on."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from contextlib import nullcontext

import pyarrow.parquet as pq

from mien.evaluate.action_units import ActionUnitScores
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.report import Report
from mien.media.storage import absolute, join, write_bytes_atomically
from mien.track.model_card import CARD_FILE
from mien.train.local_ray import ray_session
from mien_jobs.evaluation import Evaluation, evaluate_method, has_labels, save_evaluation
from mien_jobs.model_clips import ModelClips, open_model_clips
from mien_jobs.probing import gather_features, probe, with_details
from mien_jobs.recipe import PROBES
from mien_jobs.unit_scores import UnitEvaluation, evaluate_units
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
        "where the head points (see `mien probe`); looks at the clips once more",
    )


def run(args: argparse.Namespace) -> int:
    """Predicts every clip once, scores, writes predictions, scorecard, page and model card."""
    plan = plan_of(args)
    use_ray = plan.workers > 0
    model = open_model_clips(args)
    if model.data.left_out:
        print(model.data.left_out)
    found = units = probes = None
    has_units = bool(model.method.action_units) and _has_codes(model)
    with ray_session(plan) if use_ray else nullcontext():
        if args.probe:
            probes = probe(model, gather_features(model, plan), args.probe)
        if has_labels(model.data, model.which) or not has_units:
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
        if has_units:
            present_from = args.present_from
            if present_from is None:
                present_from = model.method.units_present_from
            units = evaluate_units(model, plan, present_from=present_from)
    out = absolute(args.out)
    if found is not None:
        scores = None if units is None else units.scores
        _report_classes(with_details(found, model, units=scores, probes=probes), out, model.which)
    if units is not None:
        _keep_frames(units, out, model.which)
        if found is None:
            _report_units(units.scores, probes, out, model.which)
    return 0


def _report_classes(found: Evaluation, out: str, which: str) -> None:
    location = save_evaluation(found, out)
    write_bytes_atomically(join(out, CARD_FILE), found.model_card.encode())
    print(found.report.to_markdown())
    print(found.quarantine.summary())
    print(f"predictions: {location}")
    print(f"page with pictures: {join(out, f'scorecard-{which}.html')}")


def _report_units(
    units: ActionUnitScores, probes: ProbeScores | None, out: str, which: str
) -> None:
    """The scorecard of a model that is scored by its action units alone."""
    asked = probes or ProbeScores()
    report = Report(
        title=f"Action units, {which} split",
        lead=[f"Mean F1 {units.pooled_f1:.3f}.", *asked.sentences()],
        tables=[units.table(), *asked.tables()],
    )
    figures = {
        "split": which,
        "pooled_f1": units.pooled_f1,
        "action_units": dataclasses.asdict(units),
        "probes": None if probes is None else dataclasses.asdict(probes),
    }
    place = join(out, f"action-units-{which}")
    write_bytes_atomically(f"{place}.json", json.dumps(figures, indent=2).encode())
    write_bytes_atomically(f"{place}.html", report.to_html().encode())
    print(report.to_markdown())
    print(f"page: {place}.html")


def _keep_frames(units: UnitEvaluation, out: str, which: str) -> None:
    frames = io.BytesIO()
    pq.write_table(units.frames, frames)
    place = join(out, f"action-units-{which}.parquet")
    write_bytes_atomically(place, frames.getvalue())
    print(f"action units of every sampled frame: {place}")


def _has_codes(model: ModelClips) -> bool:
    column = model.data.manifest.table["action_units"]
    return int(column.null_count) < len(column)
