"""Frozen features of any model's clips, and what probes read from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.clips.schema import unknown_column
from mien.evaluate.action_units import ActionUnitScores
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.probes import RegressionProbe, identity_probe, regression_probe
from mien.evaluate.report import Report
from mien.track.model_card import make_model_card
from mien.train.plan import TrainPlan
from mien.train.validate import (
    CLASS_METRICS,
    UNIT_METRIC,
    as_given,
    gather_predictions,
    validation_metrics,
)
from mien.train.world import World, choose_device
from mien_jobs.evaluation import Evaluation, open_source
from mien_jobs.model_clips import ModelClips

POSE_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg")


@dataclass(frozen=True, kw_only=True)
class Features:
    """A row for each clip that could be decoded."""

    clip_ids: tuple[str, ...]
    features_ND: NDArray[np.float32]
    people: tuple[str | None, ...]
    uar: float | None
    """Of the labelled clips among them; None without any."""
    au_f1: float | None
    """Mean F1 of the action units in the coded frames among theirs; None without any."""


def gather_features(model: ModelClips, plan: TrainPlan) -> Features:
    """The features of every clip of the model's split, labelled or not.

    Raises:
        ValueError: no clip could be decoded.
    """
    world = World(device=choose_device(plan.device))
    source = open_source(model.data, model.info, plan, use_ray=plan.workers > 0)
    stream = model.info.prediction_stream.for_prediction(model.which)
    stream = replace(stream, action_units=model.method.action_units)
    found = gather_predictions(
        model.method.to(world.device),
        source.scan(stream),
        world,
        lambda: torch.autocast(world.device.type, enabled=False),
        {"": as_given},
        with_features=True,
    )[""]
    if found.features_ND is None:
        raise ValueError(f"no clip of the {model.which} split could be decoded")
    scores, _ = validation_metrics(model.method, found)
    return Features(
        clip_ids=found.clip_ids,
        features_ND=found.features_ND,
        people=tuple(model.data.manifest.by_ids(found.clip_ids).column("subject_id")),
        uar=scores.get(CLASS_METRICS[0]),
        au_f1=scores.get(UNIT_METRIC),
    )


def probe(
    model: ModelClips,
    found: Features,
    what: Collection[str],
    *,
    columns: Sequence[str] | None = None,
) -> ProbeScores:
    """What the features tell beside the expression.

    Args:
        model: with its manifest.
        found: its features.
        what: of `PROBES`.
        columns: numbers of the manifest that ``pose`` reads; None: those of ``POSE_COLUMNS`` that
            it has.

    Raises:
        ValueError: too few people or clips; no such column, or one that holds no numbers.
    """
    is_asked = "identity" in what
    return ProbeScores(
        identity=identity_probe(found.features_ND, found.people) if is_asked else None,
        pose=_read_columns(model, found, columns) if "pose" in what else (),
    )


def probe_report(name: str, found: Features, scores: ProbeScores) -> Report:
    """A page on probes, with the scores that the features are for beside them."""
    values = {"UAR of the same clips": found.uar, "AU F1 of the same clips": found.au_f1}
    beside = [[what, f"{value:.3f}"] for what, value in values.items() if value is not None]
    return Report(title=f"Probes of {name}", lead=scores.sentences(), tables=scores.tables(beside))


def with_details(
    found: Evaluation,
    model: ModelClips,
    *,
    units: ActionUnitScores | None = None,
    probes: ProbeScores | None = None,
) -> Evaluation:
    """An evaluation whose scorecard and model card also tell of action units and probes."""
    card = replace(found.scorecard, action_units=units, probes=probes)
    data = model.data
    written = make_model_card(model.info, card, data.manifest, data.split, is_own=model.is_own)
    return replace(found, scorecard=card, model_card=written)


def _read_columns(
    model: ModelClips, found: Features, columns: Sequence[str] | None
) -> tuple[RegressionProbe, ...]:
    manifest = model.data.manifest.by_ids(found.clip_ids)
    names = manifest.table.column_names
    for column in columns or ():
        if column not in names:
            raise unknown_column(column, names)
    wanted = columns or [column for column in POSE_COLUMNS if column in names]
    if not wanted:
        raise ValueError(
            f"the manifest has none of the columns {', '.join(POSE_COLUMNS)}, which a probe of "
            "the pose reads; `mien probe pose --columns` reads others"
        )
    people = [who or clip for who, clip in zip(found.people, found.clip_ids, strict=True)]
    return tuple(
        regression_probe(name, found.features_ND, _numbers(name, manifest.column(name)), people)
        for name in wanted
    )


def _numbers(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    try:
        return np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name} holds no numbers: {error}") from error
