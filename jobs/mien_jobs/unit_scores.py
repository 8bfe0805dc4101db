"""Action units of every sampled frame: a table of predictions and codes, then their scores.

Shapes: M frames, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mien.clips.manifest import Manifest
from mien.evaluate.action_units import ActionUnitScores, presence, score_action_units
from mien.train.validate import PredictedClips

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class UnitEvaluation:
    """Scores, and what they were made from."""

    scores: ActionUnitScores
    frames: pa.Table
    """A row for each sampled frame: clip_id, subject_id, time_s, has_face, then for each unit its
    probability (``AU12``) and coded intensity (``AU12_coded``, null where not coded)."""


def evaluate_units(
    parts: Sequence[PredictedClips],
    units: tuple[str, ...],
    manifest: Manifest,
    *,
    present_from: float,
) -> UnitEvaluation | None:
    """Scores of predicted units; None where no frame is coded for any of them.

    Args:
        parts: predicted with their codes.
        units: their names.
        manifest: says who is in the clips.
        present_from: coded intensity from which on a unit counts as present.
    """
    tables = [_frames(part, units, manifest) for part in parts if part.units_MU is not None]
    if not tables:
        return None
    frames = pa.concat_tables(tables)
    if all(frames[f"{unit}_coded"].null_count == len(frames) for unit in units):
        return None
    scores = score_action_units({"all": read_and_coded(frames, units, present_from)}, units)
    return UnitEvaluation(scores=scores, frames=frames)


def read_and_coded(
    frames: pa.Table, units: tuple[str, ...], present_from: float
) -> tuple[Floats, Floats]:
    """Probabilities and truth [M, U] (NaN: not coded) of the frames of a `UnitEvaluation`."""
    read_MU = np.stack([frames[unit].to_numpy() for unit in units], axis=1)
    coded_MU = np.stack(
        [frames[f"{unit}_coded"].to_numpy().astype(np.float64) for unit in units], axis=1
    )
    return read_MU, presence(coded_MU, threshold=present_from)


def _frames(found: PredictedClips, units: tuple[str, ...], manifest: Manifest) -> pa.Table:
    assert found.units_MU is not None
    assert found.codes_MU is not None
    assert found.faces_M is not None
    num_frames = len(found.units_MU) // len(found.clip_ids)
    people = manifest.by_ids(found.clip_ids).column("subject_id")
    columns = {
        "clip_id": pa.array(np.repeat(np.asarray(found.clip_ids), num_frames), pa.string()),
        "subject_id": pa.array([who for who in people for _ in range(num_frames)], pa.string()),
        "time_s": pa.array(found.times_M),
        "has_face": pa.array(found.faces_M > 0),
    }
    for index, unit in enumerate(units):
        columns[unit] = pa.array(found.units_MU[:, index].astype(np.float64))
        coded_M = found.codes_MU[:, index].astype(np.float64)
        columns[f"{unit}_coded"] = pa.array(coded_M, mask=np.isnan(coded_M))
    return pa.table(columns)
