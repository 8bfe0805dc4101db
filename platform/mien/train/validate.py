"""Predictions of a method over a stream, gathered from all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


Row = tuple[str, npt.NDArray[np.float32], int, bool, float]


@torch.inference_mode()
def gather_predictions(
    method: Method,
    batches: Iterable[ClipBatch],
    world: World,
    autocast: Callable[[], torch.autocast],
    change: Callable[[ClipBatch], ClipBatch] = lambda batch: batch,
) -> PredictedClips:
    """Predicts this worker's batches and gathers the rows of all workers, on every worker.

    Args:
        method: put into evaluation mode.
        batches: this worker's share.
        world: the workers.
        autocast: opens the precision of the forward pass.
        change: applied to every batch first (switch a modality off).
    """
    method.eval()
    mine: list[Row] = []
    for batch in batches:
        changed = change(batch.to(world.device))
        with autocast():
            logits_BK = method.predict(changed).logits_BK
        mine.extend(_rows(batch, logits_BK.float().cpu().numpy()))
    rows = sorted(
        (row for worker in world.gather(mine) for row in worker), key=lambda row: row[0]
    )
    return PredictedClips(
        clip_ids=tuple(row[0] for row in rows),
        logits_NK=np.stack([row[1] for row in rows]) if rows else np.zeros((0, 0), np.float32),
        labels_N=np.asarray([row[2] for row in rows], dtype=np.int64),
        has_audio_N=np.asarray([row[3] for row in rows], dtype=np.bool_),
        has_face_N=np.asarray([row[4] for row in rows], dtype=np.float32),
    )


def _rows(batch: ClipBatch, logits_BK: npt.NDArray[np.float32]) -> list[Row]:
    has_face_B = batch.views[0].has_face_BT.float().mean(1).tolist()
    return list(
        zip(
            batch.clip_ids,
            list(logits_BK),
            batch.label_B.tolist(),
            batch.has_audio_B.tolist(),
            has_face_B,
            strict=True,
        )
    )
