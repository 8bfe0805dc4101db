"""Clips in memory for evidence studies: decoded and aligned once, kept small, augmented in batches.

A study trains a method some hundred times on the same few hundred clips. ``MemoryClips`` gives the
real training loop (``mien.train.loop.fit``) the batches that it asks for without opening a file:
the order is the streams' own (``ClipOrder``), the frames are chosen by the streams' own rule, only
random crop, flip, rotation and light are drawn for a whole batch at a time, with one grid sampling.

Shapes: N clips, T stored frames, H W pixels.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.clips.manifest import Manifest
from mien.media.sampling import uniform_segments
from mien.seeds import derive_seed
from mien.stream.load import choose_views
from mien.stream.order import ClipOrder
from mien.stream.prepare import CropSettings, prepare_clip
from mien.stream.quarantine import Quarantine
from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.loop import Clips, fit
from mien.train.plan import TrainPlan
from mien.train.world import World
from mien_models.contract import UNLABELLED, Augmentation, ClipBatch, Method, StreamSpec, View

STORED_PX, STORED_FRAMES = 64, 24
SEEN_PX = 36
"""The middle of an aligned crop: what ``tiny`` looks at (64 px less a border of 14)."""


@dataclass(frozen=True, kw_only=True)
class StoredClips:
    """Aligned crops of all clips of a manifest, and its columns."""

    manifest: Manifest
    video_NTHWC: npt.NDArray[np.uint8]
    has_face_NT: npt.NDArray[np.bool_]
    times_NT: npt.NDArray[np.float32]

    def column(self, name: str) -> npt.NDArray[np.object_]:
        """A column of the manifest."""
        return np.asarray(self.manifest.column(name), dtype=object)


def store_clips(manifest_file: Path, place: Path) -> StoredClips:
    """Decodes and aligns every clip, or reads what an earlier call left at ``place`` (.npz)."""
    manifest = Manifest.read(str(manifest_file))
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        crops = CropSettings(
            image_size_px=STORED_PX, align_faces=True, face_rule="largest", with_audio=False
        )
        clips = [prepare_clip(ref, crops, _even_frames) for ref in manifest]
        rows = [
            np.linspace(0, len(clip.frames_NSSC) - 1, STORED_FRAMES).round().astype(int)
            for clip in clips
        ]
        pairs = list(zip(clips, rows, strict=True))
        np.savez(
            place,
            video=np.stack([clip.frames_NSSC[row] for clip, row in pairs]),
            face=np.stack([clip.has_face_N[row] for clip, row in pairs]),
            times=np.stack([clip.frame_times_N[row] for clip, row in pairs]).astype(np.float32),
        )
    with np.load(place) as found:
        return StoredClips(
            manifest=manifest,
            video_NTHWC=found["video"],
            has_face_NT=found["face"],
            times_NT=found["times"],
        )


def _even_frames(num_frames: int) -> list[int]:
    return sorted(set(uniform_segments(num_frames, STORED_FRAMES).tolist()))


def fit_here(method: Method, clips: Clips, plan: TrainPlan) -> None:
    """Trains in this process and leaves nothing but the method's weights."""
    with tempfile.TemporaryDirectory() as folder:
        fit(
            method,
            clips=clips,
            plan=plan,
            world=World(),
            store=CheckpointStore(folder),
            tracker=NoTracker(),
            say=lambda line: None,
        )


class MemoryClips:
    """What the training loop reads from (``mien.train.loop.Clips``).

    Args:
        stored: the clips.
        label_N: class index of each clip, ``UNLABELLED`` where it has none.
        truth_N: the true class index of each clip.
        parts: rows of ``train``, ``val`` and ``test``.
        num_classes: K.
        seed: of the run.
    """

    def __init__(
        self,
        stored: StoredClips,
        *,
        label_N: npt.NDArray[np.int64],
        truth_N: npt.NDArray[np.int64],
        parts: Mapping[str, npt.NDArray[np.int64]],
        num_classes: int,
        seed: int,
    ) -> None:
        self.quarantine = Quarantine()
        self.label_N, self.truth_N, self.parts, self.seed = label_N, truth_N, parts, seed
        self.clip_ids = stored.column("clip_id")
        self.num_classes = num_classes
        video = torch.from_numpy(stored.video_NTHWC).permute(0, 1, 4, 2, 3)
        self.video_NTCHW = video.contiguous()
        self.has_face_NT = torch.from_numpy(stored.has_face_NT)
        self.times_NT = torch.from_numpy(stored.times_NT)

    def rows(self, spec: StreamSpec) -> npt.NDArray[np.int64]:
        """Rows of the clips that a stream holds."""
        rows = np.arange(len(self.label_N)) if spec.split == "all" else self.parts[spec.split]
        if spec.labelled is not None:
            rows = rows[(self.label_N[rows] != UNLABELLED) == spec.labelled]
        return rows

    def num_clips(self, spec: StreamSpec) -> int:
        """Clips that a stream holds."""
        return len(self.rows(spec))

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        """Whole batches in one pass over a stream."""
        return self._order(spec).steps_per_epoch

    def _order(self, spec: StreamSpec) -> ClipOrder:
        rows = self.rows(spec)
        return ClipOrder(
            spec, labels=self.label_N[rows], subjects=np.zeros(len(rows), int), seed=self.seed
        )

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        """The batches of a training stream, from a step on."""
        order, rows = self._order(spec), self.rows(spec)
        for step in range(start_step, start_step + num_steps):
            epoch, chosen = order.batch(step)
            yield self._batch(rows[chosen], spec, epoch=epoch)

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        """One plain pass."""
        rows = self.rows(spec)
        for start in range(0, len(rows), spec.batch_size):
            yield self._batch(rows[start : start + spec.batch_size], spec, epoch=-1)

    def _batch(self, rows: npt.NDArray[np.int64], spec: StreamSpec, *, epoch: int) -> ClipBatch:
        seeds = [derive_seed(self.seed, epoch, self.clip_ids[row]) for row in rows]
        chosen = [choose_views(spec.views, STORED_FRAMES, seed) for seed in seeds]
        views = []
        for index, view in enumerate(spec.views):
            frames_BT = torch.from_numpy(np.stack([frames[index] for frames in chosen]))
            where = (torch.from_numpy(rows)[:, None], frames_BT)
            generator = torch.Generator().manual_seed(derive_seed(*seeds, index) % 2**63)
            views.append(
                View(
                    video_BTCHW=augment(self.video_NTCHW[where], view.augmentation, generator),
                    frame_times_BT=self.times_NT[where],
                    has_face_BT=self.has_face_NT[where],
                )
            )
        return self._labelled(rows, tuple(views), seeds, spec)

    def _labelled(
        self,
        rows: npt.NDArray[np.int64],
        views: tuple[View, ...],
        seeds: Sequence[int],
        spec: StreamSpec,
    ) -> ClipBatch:
        label_B = torch.from_numpy(self.label_N[rows])
        soft_BK = F.one_hot(label_B.clamp(min=0), self.num_classes).float()
        zeros_B = torch.zeros(len(rows), dtype=torch.int64)
        return ClipBatch(
            clip_ids=tuple(self.clip_ids[rows]),
            views=views,
            audio_BFM=None,
            audio_frames_B=zeros_B,
            has_audio_B=zeros_B.bool(),
            label_B=label_B,
            soft_label_BK=soft_BK * (label_B != UNLABELLED)[:, None],
            subject_B=zeros_B - 1,
            seed_B=torch.tensor([seed % 2**62 for seed in seeds]),
            true_label_B=torch.from_numpy(self.truth_N[rows]) if spec.with_true_label else None,
        )


def augment(
    video_BTCHW: Tensor, augmentation: Augmentation | None, generator: torch.Generator
) -> Tensor:
    """The middle of the crops, [B, T, C, SEEN_PX, SEEN_PX] uint8, changed once a clip."""
    if augmentation is None:
        border = (STORED_PX - SEEN_PX) // 2
        return video_BTCHW[..., border : border + SEEN_PX, border : border + SEEN_PX]
    size = len(video_BTCHW)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(size).uniform_(low, high, generator=generator)

    area_B = draw(augmentation.min_crop_area, 1.0)
    scale_B = SEEN_PX / STORED_PX * area_B.sqrt()
    reach_B = (1.0 - area_B.sqrt()) * SEEN_PX / STORED_PX
    angle_B = draw(-1, 1) * math.radians(augmentation.rotation_deg)
    flip_B = torch.where(draw(0, 1) < augmentation.flip_probability, -1.0, 1.0)
    theta_B23 = torch.zeros(size, 2, 3)
    theta_B23[:, 0, 0], theta_B23[:, 0, 1] = scale_B * angle_B.cos() * flip_B, -angle_B.sin()
    theta_B23[:, 1, 0], theta_B23[:, 1, 1] = angle_B.sin() * flip_B, scale_B * angle_B.cos()
    theta_B23[:, 0, 1] *= scale_B
    theta_B23[:, 1, 0] *= scale_B
    theta_B23[:, 0, 2], theta_B23[:, 1, 2] = draw(-1, 1) * reach_B, draw(-1, 1) * reach_B
    # Frames stand in the place of channels: one grid a clip.
    stacked_BCHW = video_BTCHW.flatten(1, 2).float()
    grid = F.affine_grid(theta_B23, [size, 1, SEEN_PX, SEEN_PX], align_corners=False)
    seen = F.grid_sample(stacked_BCHW, grid, padding_mode="border", align_corners=False)
    contrast_B = 1.0 + draw(-1, 1) * augmentation.contrast
    brightness_B = 1.0 + draw(-1, 1) * augmentation.brightness
    means_B = seen.mean(dim=(1, 2, 3))
    gain_B, shift_B = contrast_B * brightness_B, (1 - contrast_B) * means_B * brightness_B
    seen = seen * gain_B[:, None, None, None] + shift_B[:, None, None, None]
    return seen.round().clamp(0, 255).to(torch.uint8).unflatten(1, video_BTCHW.shape[1:3])


def split_people(
    stored: StoredClips, shares: Mapping[str, float], seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each part; parts share nobody."""
    people = sorted(set(stored.column("subject_id")), key=lambda name: derive_seed(seed, name))
    parts, start = {}, 0.0
    of_clip = stored.column("subject_id")
    for name, share in shares.items():
        stop = start + share
        chosen = people[round(start * len(people)) : round(stop * len(people))]
        parts[name] = np.flatnonzero(np.isin(of_clip, chosen))
        start = stop
    return parts


def at_seen_size(config: object) -> object:
    """A method's configuration for crops of ``SEEN_PX`` without a border."""
    return replace(config, image_size_px=SEEN_PX, border_px=0)  # type: ignore[type-var]
