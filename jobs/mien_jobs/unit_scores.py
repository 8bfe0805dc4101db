"""Action units of every frame of a split: predictions first, then their scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mien.evaluate.action_units import ActionUnitScores, presence, score_action_units
from mien.train.plan import TrainPlan
from mien.train.world import choose_device
from mien_jobs.evaluation import open_source
from mien_jobs.model_clips import ModelClips
from mien_models.contract import ClipBatch, Prediction

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class UnitEvaluation:
    """Scores, and what they were made from."""

    scores: ActionUnitScores
    frames: pa.Table
    """A row for each sampled frame: clip_id, subject_id, time_s, has_face, then for each unit its
    probability (``AU12``) and coded intensity (``AU12_coded``, null where not coded)."""


@torch.inference_mode()
def evaluate_units(model: ModelClips, plan: TrainPlan, *, present_from: float) -> UnitEvaluation:
    """Predicts the units of every clip of the split, with or without a class label.

    Args:
        model: its method names ``action_units``.
        plan: device and decoding.
        present_from: coded intensity from which on a unit counts as present.

    Raises:
        ValueError: no frame of these clips is coded, or the method predicts no units.
    """
    units = model.method.action_units
    if not units:
        raise ValueError(f"{model.info.method} predicts no action units")
    device = choose_device(plan.device)
    source = open_source(model.data, model.info, plan, use_ray=plan.workers > 0)
    stream = model.info.prediction_stream.for_prediction(model.which)
    stream = dataclasses.replace(stream, action_units=units)
    method = model.method.to(device).eval()
    parts = []
    for batch in source.scan(stream):
        on_device = batch.to(device)
        parts.append(_frames(batch, method.predict(on_device), units, model))
    frames = pa.concat_tables(parts) if parts else pa.table({})
    if not parts or all(frames[f"{unit}_coded"].null_count == len(frames) for unit in units):
        raise ValueError(
            f"no frame of the {model.which} split is coded for {', '.join(units)}; fill the "
            "manifest's column action_units"
        )
    return UnitEvaluation(scores=score_frames(frames, units, present_from), frames=frames)


def score_frames(frames: pa.Table, units: tuple[str, ...], present_from: float) -> ActionUnitScores:
    """Scores of the frames that `evaluate_units` wrote, as one fold."""
    return score_action_units({"all": read_and_coded(frames, units, present_from)}, units)


def read_and_coded(
    frames: pa.Table, units: tuple[str, ...], present_from: float
) -> tuple[Floats, Floats]:
    """Probabilities and truth [N, U] (NaN: not coded) of the frames that `evaluate_units` wrote."""
    read_NU = np.stack([frames[unit].to_numpy() for unit in units], axis=1)
    coded_NU = np.stack(
        [frames[f"{unit}_coded"].to_numpy().astype(np.float64) for unit in units], axis=1
    )
    return read_NU, presence(coded_NU, threshold=present_from)


def _frames(
    batch: ClipBatch, found: Prediction, units: tuple[str, ...], model: ModelClips
) -> pa.Table:
    if found.action_unit_logits_BTU is None or batch.action_units_BTU is None:
        raise ValueError(f"{model.info.method} names action units but predicts none")
    view = batch.views[0]
    num_frames = view.frame_times_BT.shape[1]
    people = model.data.manifest.by_ids(batch.clip_ids).column("subject_id")
    read_NU = found.action_unit_logits_BTU.float().sigmoid().cpu().numpy().reshape(-1, len(units))
    coded_NU = batch.action_units_BTU.numpy().reshape(-1, len(units))
    columns = {
        "clip_id": pa.array(np.repeat(np.asarray(batch.clip_ids), num_frames), pa.string()),
        "subject_id": pa.array([who for who in people for _ in range(num_frames)], pa.string()),
        "time_s": pa.array(view.frame_times_BT.flatten().numpy()),
        "has_face": pa.array(view.has_face_BT.flatten().numpy()),
    }
    for index, unit in enumerate(units):
        columns[unit] = pa.array(read_NU[:, index].astype(np.float64))
        coded_N = coded_NU[:, index].astype(np.float64)
        columns[f"{unit}_coded"] = pa.array(coded_N, mask=np.isnan(coded_N))
    return pa.table(columns)
