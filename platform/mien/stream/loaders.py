"""Which rows a worker's step is made of: the loaders that executors run, here or in Ray tasks.

A loader knows the clips of every step; it loads any one of a step's rows alone, so that whoever
runs it can divide the work as it likes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.media.errors import ClipError
from mien.seeds import derive_seed
from mien.stream.batches import Row
from mien.stream.load import ClipRequest, load_clip
from mien.stream.order import ClipOrder, StreamError
from mien.stream.plan import LoadPlan
from mien.stream.quarantine import QuarantinedClip
from mien.stream.select import StreamClips
from mien_models.contract import StreamSpec

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
        """Rows of this worker's whole step; only the last step of a plain pass has fewer."""

    @property
    def bytes_per_row(self) -> int:
        """Size of a row's arrays, the same for all rows."""

    def num_rows(self, steps: range) -> int:
        """Rows of this worker's steps."""

    def row(self, step: int, place: int) -> Row:
        """One of this worker's rows of a step."""


def load_step(loader: StepLoader, step: int) -> list[Row]:
    """All rows of a step, loaded here and now."""
    return [loader.row(step, place) for place in range(loader.num_rows(range(step, step + 1)))]


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

    @property
    def bytes_per_row(self) -> int:
        """Size of a row's arrays."""
        return _num_bytes(absent_row(self._request(0, 0)))

    def num_rows(self, steps: range) -> int:
        """Rows of this worker's steps, all of which are whole."""
        return len(steps) * self.clips_per_step

    def row(self, step: int, place: int) -> Row:
        """A row of this worker's part of the global batch of a step.

        Raises:
            StreamError: nothing but clips that cannot be decoded.
            StorageUnusableError: the storage fails, and no clip is to blame.
        """
        epoch, chosen = self.order.batch(step)
        clip = int(chosen[self.rank * self.clips_per_step + place])
        failed: list[QuarantinedClip] = []
        current = clip
        for attempt in range(SUBSTITUTES + 1):
            request = self._request(epoch, current)
            try:
                with _one_thread():
                    return load_clip(request) | {FAILED: to_json(failed), PRESENT: True}
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

    @property
    def bytes_per_row(self) -> int:
        """Size of a row's arrays."""
        return _num_bytes(absent_row(self._request(0)))

    def num_rows(self, steps: range) -> int:
        """Rows of this worker's steps; fewer in the last one."""
        size = self.clips_per_step
        return min(steps.stop * size, len(self._mine())) - steps.start * size

    def row(self, step: int, place: int) -> Row:
        """A row of this worker's batch number ``step``.

        Raises:
            StorageUnusableError: the storage fails, and no clip is to blame.
        """
        request = self._request(self._mine()[step * self.clips_per_step + place])
        try:
            with _one_thread():
                return load_clip(request) | {FAILED: "", PRESENT: True}
        except ClipError as error:
            failed = to_json([_quarantined(request.ref, error)])
            return absent_row(request) | {FAILED: failed, PRESENT: False}

    def _mine(self) -> range:
        return range(self.rank, len(self.clips), self.world_size)

    def _request(self, clip: int) -> ClipRequest:
        ref = self.clips.ref(clip)
        seed = derive_seed(self.seed, "plain", ref.clip_id)
        return self.clips.request(clip, self.spec, self.label_set, seed=seed, plan=self.plan)


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
    if spec.with_true_label:
        row["true_label"] = -1
    return row


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The same bits everywhere: torch's sums (log-mel) depend on its number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _num_bytes(row: Row) -> int:
    return sum(np.asarray(value).nbytes for value in row.values())


def _quarantined(ref: ClipRef, error: ClipError) -> QuarantinedClip:
    return QuarantinedClip(ref.clip_id, ref.uri, error.reason, str(error))


def to_json(clips: Sequence[QuarantinedClip]) -> str:
    """What a row says under `FAILED`."""
    return json.dumps([astuple(clip) for clip in clips]) if clips else ""


def from_json(text: str) -> list[QuarantinedClip]:
    """The clips that `to_json` wrote down."""
    return [QuarantinedClip(*entry) for entry in json.loads(text)] if text else []
