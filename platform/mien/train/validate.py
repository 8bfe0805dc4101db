"""Predictions of a method over a stream, gathered from all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mien.monitor.picture import picture_statistics
from mien.train.world import World
from mien_models.contract import ClipBatch, Method


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


Change = Callable[[ClipBatch], ClipBatch]
Row = tuple[str, list[npt.NDArray[np.float32]], int, bool, float, list[npt.NDArray[np.float32]]]


def as_given(batch: ClipBatch) -> ClipBatch:
    """The condition that changes nothing."""
    return batch


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
        facts = []
        if with_features:
            known = (found[0].features_BD, picture_statistics(on_device.views[0]))
            facts = [part.float().cpu().numpy() for part in known]
        mine.extend(_rows(batch, logits, facts))
    gathered = (row for worker in world.gather(mine) for row in worker)
    rows = sorted(gathered, key=lambda row: row[0])
    return {name: _as_arrays(rows, condition) for condition, name in enumerate(conditions)}


def _rows(
    batch: ClipBatch,
    logits: Sequence[npt.NDArray[np.float32]],
    facts: Sequence[npt.NDArray[np.float32]],
) -> list[Row]:
    has_face_B = batch.views[0].has_face_BT.float().mean(1).tolist()
    per_clip = [list(parts) for parts in zip(*logits, strict=True)]
    labels_B, has_audio_B = batch.label_B.tolist(), batch.has_audio_B.tolist()
    told = [[part[index] for part in facts] for index in range(len(batch))]
    return list(zip(batch.clip_ids, per_clip, labels_B, has_audio_B, has_face_B, told, strict=True))


def _as_arrays(rows: Sequence[Row], condition: int) -> PredictedClips:
    logits = [row[1][condition] for row in rows]
    has_facts = condition == 0 and bool(rows) and bool(rows[0][5])
    return PredictedClips(
        clip_ids=tuple(row[0] for row in rows),
        logits_NK=np.stack(logits) if logits else np.zeros((0, 0), np.float32),
        labels_N=np.asarray([row[2] for row in rows], dtype=np.int64),
        has_audio_N=np.asarray([row[3] for row in rows], dtype=np.bool_),
        has_face_N=np.asarray([row[4] for row in rows], dtype=np.float32),
        features_ND=np.stack([row[5][0] for row in rows]) if has_facts else None,
        picture_NP=np.stack([row[5][1] for row in rows]) if has_facts else None,
    )
