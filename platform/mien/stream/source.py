"""Streams of batches from a manifest: what the training loop opens, on Ray Data or in process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from torch import Tensor

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.stream.batches import Row, collate
from mien.stream.loaders import (
    FAILED,
    PRESENT,
    PlainLoader,
    StepLoader,
    TrainingLoader,
    from_json,
    load_step,
)
from mien.stream.order import ClipOrder, StreamError
from mien.stream.plan import DEFAULT, LoadPlan
from mien.stream.quarantine import Quarantine
from mien.stream.select import StreamClips, select_clips
from mien_models.contract import ClipBatch, StreamSpec


class Executor(Protocol):
    """Runs a loader over steps, ahead of the reader, in order."""

    def __call__(self, loader: StepLoader, steps: range) -> Iterator[list[Row]]:
        """The rows of each step."""


def in_process(loader: StepLoader, steps: range) -> Iterator[list[Row]]:
    """The executor that decodes in the calling process, when asked."""
    return map(partial(load_step, loader), steps)


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
            self.quarantine.update(clip for row in rows for clip in from_json(str(row[FAILED])))
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
