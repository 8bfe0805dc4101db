"""The order of clips: step number in, clip numbers out, from hash(seed, epoch) alone.

Nothing is remembered between steps, so training can start at any step, and all workers compute
the same global batch and take their own part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from mien.seeds import generator

IndexArray = npt.NDArray[np.int64]


class StreamError(ValueError):
    """A stream that cannot give what was asked of it."""


class ClipOrder:
    """The global batches of a training stream.

    Raises:
        StreamError: fewer clips than a batch, or a sampler without the labels that it needs.
    """

    def __init__(
        self,
        *,
        labels: Sequence[int] | IndexArray,
        subjects: Sequence[int] | IndexArray,
        batch_size: int,
        seed: int,
        sampler: Literal["plain", "class_uniform"] = "plain",
        subject_cap: int | None = None,
    ) -> None:
        """``labels`` and ``subjects`` hold a number for each clip of the stream, -1: unknown."""
        self._labels = np.asarray(labels, dtype=np.int64)
        self._subjects = np.asarray(subjects, dtype=np.int64)
        self._batch_size = batch_size
        self._seed = seed
        self._sampler = sampler
        self._subject_cap = subject_cap
        self._epochs: dict[int, IndexArray] = {}
        if sampler == "class_uniform" and (self._labels < 0).any():
            raise StreamError(
                "sampler='class_uniform' needs a label on every clip of the stream; "
                "set labelled=True or use sampler='plain'"
            )
        clips_per_epoch = len(self._epoch(0))
        if clips_per_epoch < batch_size:
            raise StreamError(
                f"the stream has {clips_per_epoch} clips an epoch, fewer than one batch of "
                f"{batch_size}; use a smaller batch size or more clips"
            )
        self.steps_per_epoch = clips_per_epoch // batch_size
        """Whole global batches in an epoch; the clips left over differ from epoch to epoch."""

    def batch(self, step: int) -> tuple[int, IndexArray]:
        """The epoch that a step lies in, and the ``batch_size`` clip numbers of its batch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self._batch_size
        return epoch, self._epoch(epoch)[start : start + self._batch_size]

    def substitute(self, epoch: int, clip: int, attempt: int) -> int:
        """The clip that takes the place of one that can't be decoded, for the given attempt.

        It has the same label where another clip with that label exists.
        """
        candidates = np.flatnonzero(self._labels == self._labels[clip])
        candidates = candidates[candidates != clip]
        if len(candidates) == 0:
            candidates = np.arange(len(self._labels))
        rng = generator(self._seed, "substitute", epoch, clip, attempt)
        return int(candidates[rng.integers(len(candidates))])

    def _epoch(self, epoch: int) -> IndexArray:
        if epoch not in self._epochs:
            # Two neighbouring epochs are all that a stream ever needs at a time.
            self._epochs = {key: self._epochs[key] for key in self._epochs if key == epoch - 1}
            self._epochs[epoch] = self._draw(generator(self._seed, "order", epoch))
        return self._epochs[epoch]

    def _draw(self, rng: np.random.Generator) -> IndexArray:
        if self._sampler == "class_uniform":
            return _class_uniform(self._labels, rng)
        permutation = rng.permutation(len(self._labels))
        if self._subject_cap is None:
            return permutation
        return _capped(permutation, self._subjects, self._subject_cap)


def _class_uniform(labels: IndexArray, rng: np.random.Generator) -> IndexArray:
    """A class uniformly, then a clip of it uniformly, with replacement."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = rng.integers(len(by_class), size=len(labels))
    position = rng.random(len(labels))
    return np.asarray(
        [
            by_class[k][int(u * len(by_class[k]))]
            for k, u in zip(chosen.tolist(), position.tolist(), strict=True)
        ],
        dtype=np.int64,
    )


def _capped(clips: IndexArray, subjects: IndexArray, cap: int) -> IndexArray:
    """The clips in their order, at most ``cap`` of each known subject."""
    seen: dict[int, int] = {}
    kept = []
    for clip in clips.tolist():
        subject = int(subjects[clip])
        seen[subject] = seen.get(subject, 0) + 1
        if subject < 0 or seen[subject] <= cap:
            kept.append(clip)
    return np.asarray(kept, dtype=np.int64)
