"""Streams of batches from a manifest: what the training loop opens, on Ray Data or in process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef, Manifest
from mien.clips.splits import Split
from mien.media.errors import ClipError
from mien.seeds import derive_seed
from mien.stream.batches import Row, collate
from mien.stream.load import ClipRequest, load_clip
from mien.stream.order import ClipOrder, StreamError
from mien.stream.plan import DEFAULT, LoadPlan
from mien.stream.quarantine import Quarantine, QuarantinedClip
from mien.stream.select import StreamClips, select_clips
from mien_models.contract import ClipBatch, StreamSpec

SUBSTITUTES = 8
"""Clips tried in the place of one that can't be decoded before the stream gives up."""

FAILED = "failed"
"""Row entry: JSON list of the clips that failed on the way to this row; "" for none."""
PRESENT = "present"
"""Row entry: False where nothing could be decoded (plain passes only)."""


class StepLoader(Protocol):
    """Gives the rows of a step; sent to the processes that decode."""

    @property
    def clips_per_step(self) -> int:
        """Rows of a whole step of this worker."""

    def __call__(self, step: int) -> list[Row]:
        """This worker's rows of a step."""


class Executor(Protocol):
    """Runs a loader over steps, ahead of the reader, in order."""

    def __call__(self, loader: StepLoader, steps: range) -> Iterator[list[Row]]:
        """The rows of each step."""


def in_process(loader: StepLoader, steps: range) -> Iterator[list[Row]]:
    """The executor that decodes in the calling process, when asked."""
    return map(loader, steps)


@dataclass(frozen=True, kw_only=True)
class TrainingLoader:
    """Rows of a shuffled, augmented, endless stream; a bad clip's place is taken by another."""

    clips: StreamClips
    order: ClipOrder
    spec: StreamSpec
    label_set: LabelSet
    plan: LoadPlan
    seed: int
    rank: int
    world_size: int

    @property
    def clips_per_step(self) -> int:
        """This worker's part of a global batch."""
        return self.spec.batch_size // self.world_size

    def __call__(self, step: int) -> list[Row]:
        """This worker's rows of the global batch of a step."""
        epoch, chosen = self.order.batch(step)
        mine = chosen[self.rank * self.clips_per_step : (self.rank + 1) * self.clips_per_step]
        return [self._row(epoch, int(clip)) for clip in mine]

    def _row(self, epoch: int, clip: int) -> Row:
        failed: list[QuarantinedClip] = []
        current = clip
        for attempt in range(SUBSTITUTES + 1):
            request = self._request(epoch, current)
            try:
                return load_clip(request) | {FAILED: _to_json(failed), PRESENT: True}
            except ClipError as error:
                failed.append(_quarantined(request.ref, error))
                current = self.order.substitute(epoch, clip, attempt)
        raise StreamError(
            f"{len(failed)} clips in a row could not be decoded; the last: {failed[-1].message} "
            "Check the storage and the manifest's uris with `mien ingest`."
        )

    def _request(self, epoch: int, clip: int) -> ClipRequest:
        ref = self.clips.ref(clip)
        seed = derive_seed(self.seed, epoch, ref.clip_id)
        return self.clips.request(clip, self.spec, self.label_set, seed=seed, plan=self.plan)


@dataclass(frozen=True, kw_only=True)
class PlainLoader:
    """Rows of one plain pass: every clip once, in manifest order, failures marked and left out."""

    clips: StreamClips
    spec: StreamSpec
    label_set: LabelSet
    plan: LoadPlan
    seed: int
    rank: int
    world_size: int

    @property
    def num_steps(self) -> int:
        """Batches of this worker; the last one may be smaller."""
        return -(-len(self._mine()) // self.clips_per_step)

    @property
    def clips_per_step(self) -> int:
        """This worker's part of a batch, at least one clip."""
        return max(1, self.spec.batch_size // self.world_size)

    def __call__(self, step: int) -> list[Row]:
        """This worker's rows of its batch number ``step``."""
        mine = self._mine()[step * self.clips_per_step : (step + 1) * self.clips_per_step]
        return [self._row(clip) for clip in mine]

    def _mine(self) -> range:
        return range(self.rank, len(self.clips), self.world_size)

    def _row(self, clip: int) -> Row:
        ref = self.clips.ref(clip)
        seed = derive_seed(self.seed, "plain", ref.clip_id)
        request = self.clips.request(clip, self.spec, self.label_set, seed=seed, plan=self.plan)
        try:
            return load_clip(request) | {FAILED: "", PRESENT: True}
        except ClipError as error:
            failed = _to_json([_quarantined(ref, error)])
            return absent_row(request) | {FAILED: failed, PRESENT: False}


def absent_row(request: ClipRequest) -> Row:
    """A row of the right shapes for a clip that could not be decoded; readers drop it."""
    spec, size = request.spec, request.spec.image_size_px
    row: Row = {
        "clip_id": request.ref.clip_id,
        "label": -1,
        "soft_label": np.zeros(len(request.label_set), dtype=np.float32),
        "subject": request.subject,
        "seed": request.seed,
        "audio_frames": 0,
        "has_audio": False,
    }
    for index, view in enumerate(spec.views):
        row[f"view{index}/video"] = np.zeros((view.num_frames, 3, size, size), dtype=np.uint8)
        row[f"view{index}/times"] = np.zeros(view.num_frames, dtype=np.float32)
        row[f"view{index}/has_face"] = np.zeros(view.num_frames, dtype=np.bool_)
    if spec.audio is not None:
        shape = (spec.audio.num_frames, spec.audio.num_mels)
        row["audio"] = np.zeros(shape, dtype=np.float32)
    if spec.action_units:
        shape = (spec.views[0].num_frames, len(spec.action_units))
        row["action_units"] = np.full(shape, np.nan, dtype=np.float32)
    return row


class ClipSource:
    """Opens the streams of one worker."""

    def __init__(
        self,
        manifest: Manifest,
        split: Split,
        label_set: LabelSet,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        executor: Executor = in_process,
        plan: LoadPlan = DEFAULT,
        keep_bytes: int = 256 << 20,
    ) -> None:
        """``seed`` is the run's; ``rank`` and ``world_size`` say which share is this worker's.

        ``keep_bytes`` bounds the memory for plain passes that are looked at again and again.
        """
        self.quarantine = Quarantine()
        self._manifest = manifest
        self._split = split
        self._label_set = label_set
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._executor = executor
        self._plan = plan
        self._keep_bytes = keep_bytes
        self._kept: dict[StreamSpec, list[ClipBatch]] = {}
        self._selected: dict[StreamSpec, StreamClips] = {}

    def num_clips(self, spec: StreamSpec) -> int:
        """Clips that a stream holds."""
        return len(self._select(spec))

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        """Whole global batches in one pass over a stream.

        Raises:
            StreamError: the stream has fewer clips than one batch.
        """
        return self._order(spec).steps_per_epoch

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        """This worker's part of the global batches ``start_step``, ``start_step + 1``, ...

        Raises:
            StreamError: too few clips, or a batch size that the workers can't share evenly.
        """
        unit = spec.clips_per_source * self._world_size
        if spec.batch_size % unit:
            groups = " times clips_per_source" if spec.clips_per_source > 1 else ""
            raise StreamError(
                f"batch_size={spec.batch_size} is the size over all workers and must be a multiple "
                f"of their number{groups}, {unit}"
            )
        loader = TrainingLoader(
            clips=self._select(spec),
            order=self._order(spec),
            spec=spec,
            label_set=self._label_set,
            plan=self._plan,
            seed=self._seed,
            rank=self._rank,
            world_size=self._world_size,
        )
        return self._collate(loader, range(start_step, start_step + num_steps), spec)

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        """This worker's part of one plain pass: no augmentation, every clip once.

        A pass is the same every time, so one that fits in ``keep_bytes`` is decoded only once.
        """
        plain = replace(spec, views=tuple(replace(v, augmentation=None) for v in spec.views))
        if plain in self._kept:
            yield from self._kept[plain]
            return
        kept: list[ClipBatch] | None = []
        size = sum(_size_bytes(batches) for batches in self._kept.values())
        for batch in self._decode_once(plain):
            size += _size_bytes([batch])
            if kept is not None and size <= self._keep_bytes:
                kept.append(batch)
            else:
                kept = None
            yield batch
        if kept is not None:
            self._kept[plain] = kept

    def _decode_once(self, plain: StreamSpec) -> Iterator[ClipBatch]:
        loader = PlainLoader(
            clips=self._select(plain),
            spec=plain,
            label_set=self._label_set,
            plan=self._plan,
            seed=self._seed,
            rank=self._rank,
            world_size=self._world_size,
        )
        return self._collate(loader, range(loader.num_steps), plain)

    def _collate(self, loader: StepLoader, steps: range, spec: StreamSpec) -> Iterator[ClipBatch]:
        for rows in self._executor(loader, steps):
            self.quarantine.update(clip for row in rows for clip in _from_json(str(row[FAILED])))
            present = [row for row in rows if row[PRESENT]]
            if present:
                yield collate(present, spec)

    def _select(self, spec: StreamSpec) -> StreamClips:
        if spec not in self._selected:
            self._selected[spec] = select_clips(self._manifest, self._split, self._label_set, spec)
        return self._selected[spec]

    def _order(self, spec: StreamSpec) -> ClipOrder:
        clips = self._select(spec)
        return ClipOrder(
            spec,
            labels=clips.labels,
            subjects=clips.subjects,
            sources=clips.sources,
            seed=self._seed,
        )


def _size_bytes(batches: Sequence[ClipBatch]) -> int:
    sizes: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    for batch in batches:
        batch.map_tensors(count)
    return sum(sizes)


def _quarantined(ref: ClipRef, error: ClipError) -> QuarantinedClip:
    return QuarantinedClip(ref.clip_id, ref.uri, error.reason, str(error))


def _to_json(clips: Sequence[QuarantinedClip]) -> str:
    return json.dumps([astuple(clip) for clip in clips]) if clips else ""


def _from_json(text: str) -> list[QuarantinedClip]:
    return [QuarantinedClip(*entry) for entry in json.loads(text)] if text else []
