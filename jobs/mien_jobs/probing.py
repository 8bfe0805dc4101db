"""Frozen features of any model's clips, and what probes read from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.clips.schema import unknown_column
from mien.evaluate.probe_scores import ProbeScores
from mien.evaluate.probes import RegressionProbe, identity_probe, regression_probe
from mien.evaluate.report import Report
from mien.train.plan import TrainPlan
from mien.train.validate import CLASS_METRICS, as_given, validation_metrics
from mien_jobs.model_clips import ModelClips
from mien_jobs.split_predictions import SplitPredictions, open_source, predict_everything
from mien_jobs.unit_scores import evaluate_units

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
    source = open_source(model.data, model.info, plan, use_ray=plan.workers > 0)
    found = predict_everything(
        model.method,
        model.info,
        source,
        which=model.which,
        plan=plan,
        uncoded=True,
        changes={"": as_given},
    )
    return features_of(model, found)


def features_of(model: ModelClips, found: SplitPredictions) -> Features:
    """The features among a split's predictions.

    Raises:
        ValueError: there are none.
    """
    parts = found.as_given
    if not parts:
        raise ValueError(f"no clip of the {model.which} split could be decoded")
    method, manifest = model.method, model.data.manifest
    clip_ids = tuple(clip for part in parts for clip in part.clip_ids)
    units = evaluate_units(
        parts, method.action_units, manifest, present_from=method.units_present_from
    )
    return Features(
        clip_ids=clip_ids,
        features_ND=np.concatenate([part.features_ND for part in parts]),
        people=tuple(manifest.by_ids(clip_ids).column("subject_id")),
        uar=validation_metrics(method, parts[0])[0].get(CLASS_METRICS[0]),
        au_f1=None if units is None else units.scores.pooled_f1,
    )


def probe_what_can_be(model: ModelClips, found: Features, what: Collection[str]) -> ProbeScores:
    """As `probe`, but what these clips don't allow is listed with its reason: it does not cost an
    evaluation its other scores."""
    scores = ProbeScores()
    for name in what:
        try:
            one = probe(model, found, [name])
        except ValueError as error:
            scores = replace(scores, not_probed=(*scores.not_probed, f"{name}: {error}"))
        else:
            scores = replace(
                scores, identity=one.identity or scores.identity, pose=one.pose or scores.pose
            )
    return scores


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
