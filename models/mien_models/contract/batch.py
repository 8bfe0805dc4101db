"""A batch of clips, as a method gets it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

UNLABELLED = -1
"""The value of ``ClipBatch.label_B`` where a clip has no label."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The frames of one view of a batch of clips."""

    video_BTCHW: Tensor
    """uint8 [B, T, 3, H, W], RGB."""
    frame_times_BT: Tensor
    """float32 [B, T], seconds from the start of the clip."""
    has_face_BT: Tensor
    """bool [B, T]: a face was found in this frame (always True when faces aren't looked for)."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """A batch of clips on the device. Rows of all tensors belong to ``clip_ids``, in order."""

    clip_ids: tuple[str, ...]
    views: tuple[View, ...]
    audio_BFM: Tensor | None
    """float32 [B, F, M] normalised log-mel; None when the stream asks for no audio. Rows of clips
    without sound are zero and marked by ``has_audio_B``."""
    audio_frames_B: Tensor
    """int64 [B]: audio frames before the padding."""
    has_audio_B: Tensor
    """bool [B]: False where the clip has no sound track."""
    label_B: Tensor
    """int64 [B]: index into the label set, ``UNLABELLED`` where there is none."""
    soft_label_BK: Tensor
    """float32 [B, K]: the label distribution; one-hot where only a label is given, zero rows where
    nothing is."""
    subject_B: Tensor
    """int64 [B]: the same number for the same person, -1 where unknown."""
    seed_B: Tensor
    """int64 [B]: hash(run seed, epoch, clip id): randomness that belongs to a clip and does not
    depend on the number of workers."""
    action_units_BTU: Tensor | None = None
    """float32 [B, T, U]: intensities of the first view's frames, NaN where not coded."""
    true_label_B: Tensor | None = None
    """int64 [B]: the class that the manifest's column ``true_label`` knows beside the label
    (planted, or withheld for a test), ``UNLABELLED`` where it knows none. For monitors alone:
    nothing that trains or decides may read it."""

    @property
    def video_BTCHW(self) -> Tensor:
        """The first view's frames, uint8 [B, T, 3, H, W]."""
        return self.views[0].video_BTCHW

    def __len__(self) -> int:
        # Not the number of ids: torch.export would take that for a constant.
        return self.views[0].video_BTCHW.shape[0]

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        """A batch with ``function`` applied to every tensor."""
        return _map_tensors(self, function)  # type: ignore[no-any-return]

    def to(self, device: torch.device, *, non_blocking: bool = True) -> ClipBatch:
        """The batch on another device."""
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def rows(self, start: int, stop: int) -> ClipBatch:
        """Clips ``start`` to ``stop`` (exclusive) as a batch of their own."""
        part = self.map_tensors(lambda tensor: tensor[start:stop])
        return dataclasses.replace(part, clip_ids=self.clip_ids[start:stop])


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and value and isinstance(value[0], View):
        return tuple(_map_tensors(view, function) for view in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            item.name: _map_tensors(getattr(value, item.name), function)
            for item in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def without_audio(batch: ClipBatch) -> ClipBatch:
    """The batch as if no clip had sound."""
    audio = None if batch.audio_BFM is None else torch.zeros_like(batch.audio_BFM)
    return dataclasses.replace(
        batch,
        audio_BFM=audio,
        audio_frames_B=torch.zeros_like(batch.audio_frames_B),
        has_audio_B=torch.zeros_like(batch.has_audio_B),
    )


def without_video(batch: ClipBatch) -> ClipBatch:
    """The batch as if no frame showed a face."""
    view = batch.views[0]
    blank = dataclasses.replace(
        view,
        video_BTCHW=torch.zeros_like(view.video_BTCHW),
        has_face_BT=torch.zeros_like(view.has_face_BT),
    )
    return dataclasses.replace(batch, views=(blank, *batch.views[1:]))


def plain_batch(
    video_BTCHW: Tensor,
    audio_BFM: Tensor | None = None,
    audio_frames_B: Tensor | None = None,
    has_audio_B: Tensor | None = None,
    *,
    clip_ids: Sequence[str] | None = None,
) -> ClipBatch:
    """An unlabelled batch of one view from plain tensors (without audio: marked as missing).

    The clips have no names unless ``clip_ids`` gives them.
    """
    size, frames = video_BTCHW.shape[:2]
    device = video_BTCHW.device
    ones = torch.ones(size, dtype=torch.int64, device=device)
    absent = torch.zeros(size, dtype=torch.bool, device=device)
    if has_audio_B is None:
        has_audio_B = absent if audio_BFM is None else ~absent
    if audio_frames_B is None:
        audio_frames_B = ones * (0 if audio_BFM is None else audio_BFM.shape[1])
    view = View(
        video_BTCHW=video_BTCHW,
        frame_times_BT=torch.zeros(size, frames, device=device),
        has_face_BT=torch.ones(size, frames, dtype=torch.bool, device=device),
    )
    return ClipBatch(
        clip_ids=tuple(clip_ids or ()),
        views=(view,),
        audio_BFM=audio_BFM,
        audio_frames_B=audio_frames_B,
        has_audio_B=has_audio_B,
        label_B=-ones,
        soft_label_BK=torch.zeros(size, 0, device=device),
        subject_B=-ones,
        seed_B=0 * ones,
    )
