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
from mien.clips.readers.frames import OCCURRENCE
from mien.evaluate.action_units import ActionUnitScores, presence, score_action_units
from mien.evaluate.report import Table
from mien.evaluate.unit_intensities import IntensityScores, are_intensities, score_intensities
from mien.train.validate import PredictedClips

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class UnitEvaluation:
    """Scores, and what they were made from."""

    scores: ActionUnitScores
    intensities: IntensityScores | None
    """Of the clips whose codes are intensities; None without any, or where the method tells none.
    Occurrences, 0 and 1, don't say how strong a unit is: to read 3 there is no error."""
    frames: pa.Table
    """A row for each sampled frame: clip_id, subject_id, time_s, has_face, then for each unit its
    probability (``AU12``) and coded intensity (``AU12_coded``, null where not coded). Where the
    method tells intensities also ``AU12_intensity``, in FACS steps, and has_intensity_codes, false
    in clips whose codes the manifest calls occurrences."""

    def tables(self) -> list[Table]:
        """The scores for people."""
        intensities = [] if self.intensities is None else [self.intensities.table()]
        return [self.scores.table(), *intensities]

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Flat names for a tracker."""
        intensities = {} if self.intensities is None else self.intensities.to_metrics(prefix)
        return self.scores.to_metrics(prefix) | intensities


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
        manifest: says who is in the clips and, in a column ``au_coding``, whether their codes are
            occurrences; those of clips that don't say are taken for intensities.
        present_from: coded intensity from which on a unit counts as present.
    """
    tables = [_frames(part, units, manifest) for part in parts if part.units_MU is not None]
    if not tables:
        return None
    frames = pa.concat_tables(tables)
    if all(frames[f"{unit}_coded"].null_count == len(frames) for unit in units):
        return None
    scores = score_action_units({"all": read_and_coded(frames, units, present_from)}, units)
    return UnitEvaluation(
        scores=scores, intensities=_intensity_scores(frames, units), frames=frames
    )


def read_and_coded(
    frames: pa.Table, units: tuple[str, ...], present_from: float
) -> tuple[Floats, Floats]:
    """Probabilities and truth [M, U] (NaN: not coded) of the frames of a `UnitEvaluation`."""
    coded_MU = _columns(frames, units, "_coded")
    return _columns(frames, units, ""), presence(coded_MU, threshold=present_from)


def _intensity_scores(frames: pa.Table, units: tuple[str, ...]) -> IntensityScores | None:
    if "has_intensity_codes" not in frames.column_names:
        return None
    coded_MU = _columns(frames, units, "_coded")
    coded_MU[~frames["has_intensity_codes"].to_numpy()] = np.nan
    if not are_intensities(coded_MU):
        return None
    return score_intensities(_columns(frames, units, "_intensity"), coded_MU, units)


def _columns(frames: pa.Table, units: tuple[str, ...], suffix: str) -> Floats:
    """A value for each frame and unit, [M, U]; NaN for null."""
    columns = [frames[f"{unit}{suffix}"].to_numpy().astype(np.float64) for unit in units]
    return np.stack(columns, axis=1)


def _frames(found: PredictedClips, units: tuple[str, ...], manifest: Manifest) -> pa.Table:
    assert found.units_MU is not None
    assert found.codes_MU is not None
    assert found.faces_M is not None
    num_frames = len(found.units_MU) // len(found.clip_ids)
    clips = manifest.by_ids(found.clip_ids)
    people = clips.column("subject_id")
    columns = {
        "clip_id": pa.array(np.repeat(np.asarray(found.clip_ids), num_frames), pa.string()),
        "subject_id": pa.array([who for who in people for _ in range(num_frames)], pa.string()),
        "time_s": pa.array(found.times_M),
        "has_face": pa.array(found.faces_M > 0),
    }
    if found.intensities_MU is not None:
        is_said = "au_coding" in clips.table.column_names
        codings = clips.column("au_coding") if is_said else [None] * len(clips)
        has_intensity_codes = [coding != OCCURRENCE for coding in codings]
        columns["has_intensity_codes"] = pa.array(np.repeat(has_intensity_codes, num_frames))
    for index, unit in enumerate(units):
        columns[unit] = pa.array(found.units_MU[:, index].astype(np.float64))
        coded_M = found.codes_MU[:, index].astype(np.float64)
        columns[f"{unit}_coded"] = pa.array(coded_M, mask=np.isnan(coded_M))
        if found.intensities_MU is not None:
            read_M = found.intensities_MU[:, index].astype(np.float64)
            columns[f"{unit}_intensity"] = pa.array(read_M)
    return pa.table(columns)
