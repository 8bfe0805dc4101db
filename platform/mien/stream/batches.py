"""Rows of arrays to a ``ClipBatch``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mien_models.contract import ClipBatch, StreamSpec, View

Row = dict[str, npt.NDArray[np.generic] | int | bool | str]
"""One clip as arrays: ``clip_id``, ``label``, ``view0/video`` (uint8 [T, 3, H, W]), ..."""


def collate(rows: Sequence[Row], spec: StreamSpec) -> ClipBatch:
    """Stacks the rows of one batch; tensors own their memory."""
    return ClipBatch(
        clip_ids=tuple(str(row["clip_id"]) for row in rows),
        views=tuple(
            View(
                video_BTCHW=_stack(rows, f"view{index}/video"),
                frame_times_BT=_stack(rows, f"view{index}/times"),
                has_face_BT=_stack(rows, f"view{index}/has_face"),
            )
            for index in range(len(spec.views))
        ),
        audio_BFM=_stack(rows, "audio") if spec.audio else None,
        audio_frames_B=_numbers(rows, "audio_frames"),
        has_audio_B=_numbers(rows, "has_audio").bool(),
        label_B=_numbers(rows, "label"),
        soft_label_BK=_stack(rows, "soft_label"),
        subject_B=_numbers(rows, "subject"),
        seed_B=_numbers(rows, "seed"),
        action_units_BTU=_stack(rows, "action_units") if spec.action_units else None,
        true_label_B=_numbers(rows, "true_label") if spec.with_true_label else None,
    )


def _stack(rows: Sequence[Row], name: str) -> Tensor:
    arrays: list[Any] = [row[name] for row in rows]
    # A copy in memory that torch aligned: kernels may take another path, with other last bits, on
    # memory that starts elsewhere, and numpy's start depends on what the process did before.
    return torch.from_numpy(np.stack(arrays)).clone()


def _numbers(rows: Sequence[Row], name: str) -> Tensor:
    values: list[Any] = [row[name] for row in rows]
    return torch.tensor([int(value) for value in values], dtype=torch.int64)
