"""Predictions of a method over a stream, gathered from all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mien.evaluate.action_units import presence, score_action_units
from mien.evaluate.metrics import score_logits
from mien.evaluate.unit_intensities import are_intensities, score_intensities
from mien.monitor.picture import picture_statistics
from mien.train.world import World
from mien_models.contract import UNLABELLED, ClipBatch, Method, StreamSpec

CLASS_METRICS = ("val/uar", "val/war", "val/macro_f1")
UNIT_METRIC = "val/au_f1"
"""Mean over action units of the F1 of all validation frames together, as the scorecard's."""
INTENSITY_METRIC = "val/au_icc"
"""Mean over action units of the ICC(3,1) of intensities. A curve, not to choose an epoch by: it is
missing where no code varies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedClips:
    """Logits of clips, one row a clip, sorted by clip id."""

    clip_ids: tuple[str, ...]
    logits_NK: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.int64]
    """-1 where a clip has no label."""
    has_audio_N: npt.NDArray[np.bool_]
    has_face_N: npt.NDArray[np.float32]
    """Share of the sampled frames in which a face was found."""
    features_ND: npt.NDArray[np.float32] | None = None
    """Under the first condition, where they were asked for."""
    picture_NP: npt.NDArray[np.float32] | None = None
    """See `picture_statistics`; where features were asked for."""
    units_MU: npt.NDArray[np.float32] | None = None
    """Probabilities of action units under the first condition in all M sampled frames, where the
    method tells them and the clips' codes came with them."""
    codes_MU: npt.NDArray[np.float32] | None = None
    """Coded intensities of the same frames, NaN where not coded."""
    intensities_MU: npt.NDArray[np.float32] | None = None
    """Intensities read in the same frames, in FACS steps; None where the method tells none."""
    times_M: npt.NDArray[np.float32] | None = None
    """When these frames are shown, in seconds."""
    faces_M: npt.NDArray[np.float32] | None = None
    """1 where a face was found in them, else 0."""


Change = Callable[[ClipBatch], ClipBatch]
Facts = dict[str, npt.NDArray[np.float32]]
"""Arrays by name, a row a clip or one clip's."""
Row = tuple[str, list[npt.NDArray[np.float32]], int, bool, float, Facts]


def as_given(batch: ClipBatch) -> ClipBatch:
    """The condition that changes nothing."""
    return batch


def validation_streams(method: Method) -> list[StreamSpec]:
    """What is scored after an epoch: clips with a class, and of methods that tell action units
    those that are coded without one."""
    plain = method.prediction_stream().for_prediction("val")
    if not method.action_units:
        return [replace(plain, labelled=True)]
    plain = replace(plain, action_units=method.action_units)
    return [replace(plain, labelled=True), replace(plain, labelled=False, coded=True)]


def validation_metrics(
    method: Method, found: PredictedClips
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores by which an epoch can be chosen (`CLASS_METRICS` where clips have classes,
    `UNIT_METRIC` where units are coded), and those of single classes and units and
    `INTENSITY_METRIC`."""
    metrics: dict[str, float] = {}
    details: dict[str, float] = {}
    has_class_N = found.labels_N != UNLABELLED
    if has_class_N.any():
        logits_NK = found.logits_NK[has_class_N]
        scores = score_logits(logits_NK, found.labels_N[has_class_N], method.classes)
        values = (scores.uar, scores.war, scores.macro_f1)
        metrics |= dict(zip(CLASS_METRICS, values, strict=True))
        known = {item.name: item.recall for item in scores.per_class if item.recall is not None}
        details |= {f"val/recall/{name}": recall for name, recall in known.items()}
    read_MU, codes_MU = found.units_MU, found.codes_MU
    if read_MU is not None and codes_MU is not None and not np.isnan(codes_MU).all():
        truth_MU = presence(codes_MU, threshold=method.units_present_from)
        units = score_action_units({"val": (read_MU, truth_MU)}, method.action_units)
        metrics[UNIT_METRIC] = units.pooled_f1
        f1s = {unit.name: unit.f1 for unit in units.pooled if unit.f1 is not None}
        details |= {f"{UNIT_METRIC}/{name}": f1 for name, f1 in f1s.items()}
        # Which clips are coded as occurrences stands in the manifest, which is not known here.
        if found.intensities_MU is not None and are_intensities(codes_MU):
            mean = score_intensities(found.intensities_MU, codes_MU, method.action_units).mean
            details |= {} if mean.icc is None else {INTENSITY_METRIC: mean.icc}
    return metrics, details


@torch.inference_mode()
def gather_predictions(
    method: Method,
    batches: Iterable[ClipBatch],
    world: World,
    autocast: Callable[[], torch.autocast],
    conditions: Mapping[str, Change],
    *,
    with_features: bool = False,
) -> dict[str, PredictedClips]:
    """Predicts this worker's batches and gathers the rows of all workers, on every worker.

    Args:
        method: put into evaluation mode.
        batches: this worker's share.
        world: the workers.
        autocast: opens the precision of the forward pass.
        conditions: by name, how a batch is changed first (a modality switched off); every clip is
            decoded once and predicted under each.
        with_features: also keep the features of the first condition.
    """
    method.eval()
    mine: list[Row] = []
    for batch in batches:
        on_device = batch.to(world.device)
        with autocast():
            found = [method.predict(change(on_device)) for change in conditions.values()]
        logits = [one.logits_BK.float().cpu().numpy() for one in found]
        facts: dict[str, Tensor] = {}
        if with_features:
            facts["features"] = found[0].features_BD
            facts["picture"] = picture_statistics(on_device.views[0])
        units_BTU = found[0].action_unit_logits_BTU
        if units_BTU is not None and on_device.action_units_BTU is not None:
            facts["units"] = units_BTU.float().sigmoid()
            facts["codes"] = on_device.action_units_BTU
            if found[0].action_unit_intensity_BTU is not None:
                facts["intensities"] = found[0].action_unit_intensity_BTU
            facts["times"] = on_device.views[0].frame_times_BT
            facts["faces"] = on_device.views[0].has_face_BT
        told = {name: part.float().cpu().numpy() for name, part in facts.items()}
        mine.extend(_rows(batch, logits, told))
    gathered = (row for worker in world.gather(mine) for row in worker)
    rows = sorted(gathered, key=lambda row: row[0])
    return {name: _as_arrays(rows, condition) for condition, name in enumerate(conditions)}


def _rows(batch: ClipBatch, logits: Sequence[npt.NDArray[np.float32]], facts: Facts) -> list[Row]:
    has_face_B = batch.views[0].has_face_BT.float().mean(1).tolist()
    per_clip = [list(parts) for parts in zip(*logits, strict=True)]
    labels_B, has_audio_B = batch.label_B.tolist(), batch.has_audio_B.tolist()
    told = [{name: part[index] for name, part in facts.items()} for index in range(len(batch))]
    return list(zip(batch.clip_ids, per_clip, labels_B, has_audio_B, has_face_B, told, strict=True))


def _as_arrays(rows: Sequence[Row], condition: int) -> PredictedClips:
    logits = [row[1][condition] for row in rows]

    def of_clips(name: str) -> npt.NDArray[np.float32] | None:
        is_told = condition == 0 and bool(rows) and name in rows[0][5]
        return np.stack([row[5][name] for row in rows]) if is_told else None

    def of_frames(name: str) -> npt.NDArray[np.float32] | None:
        values = of_clips(name)
        return None if values is None else np.concatenate(values)

    return PredictedClips(
        clip_ids=tuple(row[0] for row in rows),
        logits_NK=np.stack(logits) if logits else np.zeros((0, 0), np.float32),
        labels_N=np.asarray([row[2] for row in rows], dtype=np.int64),
        has_audio_N=np.asarray([row[3] for row in rows], dtype=np.bool_),
        has_face_N=np.asarray([row[4] for row in rows], dtype=np.float32),
        features_ND=of_clips("features"),
        picture_NP=of_clips("picture"),
        units_MU=of_frames("units"),
        codes_MU=of_frames("codes"),
        intensities_MU=of_frames("intensities"),
        times_M=of_frames("times"),
        faces_M=of_frames("faces"),
    )
