"""Frozen features of any model's clips, and what probes read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.clips.schema import unknown_column
from mien.evaluate.metrics import score_logits
from mien.evaluate.probes import IdentityProbe, RegressionProbe, identity_probe, regression_probe
from mien.evaluate.report import Report, Table
from mien.train.plan import TrainPlan
from mien.train.world import choose_device
from mien_jobs.evaluation import open_source
from mien_jobs.model_clips import ModelClips
from mien_models.contract import UNLABELLED

POSE_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg")


@dataclass(frozen=True, kw_only=True)
class Features:
    """A row for each clip that could be decoded."""

    clip_ids: tuple[str, ...]
    features_ND: NDArray[np.float32]
    people: tuple[str | None, ...]
    uar: float | None
    """Of the labelled clips among them; None without any."""


@torch.inference_mode()
def gather_features(model: ModelClips, plan: TrainPlan) -> Features:
    """The features of every clip of the model's split, labelled or not.

    Raises:
        ValueError: no clip could be decoded.
    """
    device = choose_device(plan.device)
    source = open_source(model.data, model.info, plan, use_ray=plan.workers > 0)
    stream = model.info.prediction_stream.for_prediction(model.which)
    method = model.method.to(device).eval()
    clip_ids: list[str] = []
    features, logits, labels = [], [], []
    for batch in source.scan(stream):
        found = method.predict(batch.to(device))
        clip_ids += batch.clip_ids
        features.append(found.features_BD.float().cpu().numpy())
        logits.append(found.logits_BK.float().cpu().numpy())
        labels += batch.label_B.tolist()
    if not clip_ids:
        raise ValueError(f"no clip of the {model.which} split could be decoded")
    labels_N = np.asarray(labels)
    is_labelled_N = labels_N != UNLABELLED
    uar = None
    if is_labelled_N.any():
        logits_NK = np.concatenate(logits)[is_labelled_N]
        uar = score_logits(logits_NK, labels_N[is_labelled_N], model.info.label_set.classes).uar
    return Features(
        clip_ids=tuple(clip_ids),
        features_ND=np.concatenate(features),
        people=tuple(model.data.manifest.by_ids(clip_ids).column("subject_id")),
        uar=uar,
    )


def probe_identity(model: ModelClips, found: Features) -> Report:
    """Who it is, as a report beside the UAR."""
    probe = identity_probe(found.features_ND, found.people)
    return _identity_report(model, found, probe)


def probe_columns(model: ModelClips, found: Features, columns: Sequence[str] | None) -> Report:
    """Numbers of the manifest (angles of the head), as a report beside the UAR.

    Args:
        model: with its manifest.
        found: its features.
        columns: which; None: those of ``POSE_COLUMNS`` that the manifest has.

    Raises:
        ValueError: no such column, or one that holds no numbers.
    """
    manifest = model.data.manifest.by_ids(found.clip_ids)
    names = manifest.table.column_names
    for column in columns or ():
        if column not in names:
            raise unknown_column(column, names)
    wanted = columns or [column for column in POSE_COLUMNS if column in names]
    if not wanted:
        raise ValueError(
            f"the manifest has none of the columns {', '.join(POSE_COLUMNS)}; name columns of "
            "numbers with --columns"
        )
    people = [who or clip for who, clip in zip(found.people, found.clip_ids, strict=True)]
    probes = [
        regression_probe(name, found.features_ND, _numbers(name, manifest.column(name)), people)
        for name in wanted
    ]
    return _pose_report(model, found, probes)


def _numbers(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    try:
        return np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name} holds no numbers: {error}") from error


def _identity_report(model: ModelClips, found: Features, probe: IdentityProbe) -> Report:
    rows = [
        ["identity, linear", f"{probe.linear.value:.3f}", str(probe.linear.interval)],
        ["identity, nearest clip", f"{probe.nearest.value:.3f}", str(probe.nearest.interval)],
        ["identity, a guess", f"{probe.chance:.3f}", ""],
        *_uar_row(model, found),
    ]
    lead = [
        f"From features of {model.info.method}, a linear probe names {probe.linear.value:.1%} of "
        f"{probe.num_clips} clips of {probe.num_people} people rightly (a guess: "
        f"{probe.chance:.1%}); it has learnt other clips of the same people. Less is better."
    ]
    if probe.left_out:
        lead.append(f"{probe.left_out} clips of people with too few clips are left out.")
    note = (
        "Clips of one person often share light and background, which counts as identity here. "
        "Compare with an untrained model of the same kind."
    )
    table = Table(
        title="Identity", head=["probe", "value", "95 % over people"], rows=rows, note=note
    )
    return Report(title="Identity probe", lead=lead, tables=[table])


def _pose_report(model: ModelClips, found: Features, probes: Sequence[RegressionProbe]) -> Report:
    rows = [
        [one.name, f"{one.r2:.3f}", str(one.interval), f"{one.mean_error:.3g}", str(one.num_clips)]
        for one in probes
    ]
    rows += [[*row, "", ""] for row in _uar_row(model, found)]
    best = max(probes, key=lambda one: one.r2)
    lead = [
        f"From features of {model.info.method}, a ridge regression reads {best.name} best: R2 "
        f"{best.r2:.3f} ({best.interval}) on {best.num_people} people that it has not seen. 0 is "
        "no better than the mean."
    ]
    head = ["probe", "R2", "95 % over people", "mean error", "clips"]
    return Report(title="Pose probe", lead=lead, tables=[Table(title="Pose", head=head, rows=rows)])


def _uar_row(model: ModelClips, found: Features) -> list[list[str]]:
    """The score that the features are for, from the same clips."""
    return [] if found.uar is None else [["UAR of the same clips", f"{found.uar:.3f}", ""]]
