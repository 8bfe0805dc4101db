"""Predictions of a method over a stream, gathered from all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

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


Change = Callable[[ClipBatch], ClipBatch]
Row = tuple[str, list[npt.NDArray[np.float32]], int, bool, float]


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
) -> dict[str, PredictedClips]:
    """Predicts this worker's batches and gathers the rows of all workers, on every worker.

    Args:
        method: put into evaluation mode.
        batches: this worker's share.
        world: the workers.
        autocast: opens the precision of the forward pass.
        conditions: by name, how a batch is changed first (a modality switched off); every clip is
            decoded once and predicted under each.
    """
    method.eval()
    mine: list[Row] = []
    for batch in batches:
        on_device = batch.to(world.device)
        with autocast():
            logits = [method.predict(change(on_device)).logits_BK for change in conditions.values()]
        mine.extend(_rows(batch, [part.float().cpu().numpy() for part in logits]))
    gathered = (row for worker in world.gather(mine) for row in worker)
    rows = sorted(gathered, key=lambda row: row[0])
    return {name: _as_arrays(rows, condition) for condition, name in enumerate(conditions)}


def _rows(batch: ClipBatch, logits: Sequence[npt.NDArray[np.float32]]) -> list[Row]:
    has_face_B = batch.views[0].has_face_BT.float().mean(1).tolist()
    per_clip = [list(parts) for parts in zip(*logits, strict=True)]
    labels_B, has_audio_B = batch.label_B.tolist(), batch.has_audio_B.tolist()
    return list(zip(batch.clip_ids, per_clip, labels_B, has_audio_B, has_face_B, strict=True))


def _as_arrays(rows: Sequence[Row], condition: int) -> PredictedClips:
    logits = [row[1][condition] for row in rows]
    return PredictedClips(
        clip_ids=tuple(row[0] for row in rows),
        logits_NK=np.stack(logits) if logits else np.zeros((0, 0), np.float32),
        labels_N=np.asarray([row[2] for row in rows], dtype=np.int64),
        has_audio_N=np.asarray([row[3] for row in rows], dtype=np.bool_),
        has_face_N=np.asarray([row[4] for row in rows], dtype=np.float32),
    )
