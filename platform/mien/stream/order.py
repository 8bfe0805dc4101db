"""The order of clips: step number in, clip numbers out, from hash(seed, epoch) alone.

Nothing is remembered between steps, so training can start at any step, and all workers compute
the same global batch and take their own part of it.

**The rule of the last batch.** An epoch is made of whole global batches, as all workers have to
make the same number of steps of the same size. Of ``n`` clips, ``n % batch_size`` are therefore
left out of an epoch; all others are shown exactly once. Which ones are left out *rotates*: no clip
is left out of two epochs in a row, and after any number of epochs no clip has been shown more than
once more than any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.seeds import generator
from mien_models.contract import StreamSpec

IndexArray = npt.NDArray[np.int64]


class StreamError(ValueError):
    """A stream that cannot give what was asked of it."""


class ClipOrder:
    """The global batches of a training stream.

    Raises:
        StreamError: fewer clips than a batch, or columns that the sampler needs are not filled.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        labels: Sequence[int] | IndexArray,
        subjects: Sequence[int] | IndexArray,
        sources: Sequence[int] | IndexArray | None = None,
        seed: int,
    ) -> None:
        """``labels``, ``subjects`` and ``sources`` hold a number for each clip, -1: unknown.

        Of the spec its batch size and the rules of sampling count.
        """
        self._spec = spec
        self._labels = np.asarray(labels, dtype=np.int64)
        self._subjects = np.asarray(subjects, dtype=np.int64)
        self._sources = np.asarray([] if sources is None else sources, dtype=np.int64)
        self._seed = seed
        self._epochs: dict[int, IndexArray] = {}
        self._check_columns()
        clips_per_epoch = self._clips_per_epoch()
        if clips_per_epoch < spec.batch_size:
            raise StreamError(
                f"the stream has {clips_per_epoch} clips an epoch, fewer than one batch of "
                f"{spec.batch_size}; use a smaller batch size or more clips"
            )
        self.steps_per_epoch = clips_per_epoch // spec.batch_size
        """Whole global batches in an epoch."""

    def _check_columns(self) -> None:
        if self._spec.sampler == "class_uniform" and (self._labels < 0).any():
            raise StreamError(
                "sampler='class_uniform' needs a label on every clip of the stream; "
                "set labelled=True or use sampler='plain'"
            )
        if self._spec.clips_per_source > 1:
            _check_sources(self._sources, len(self._labels), self._spec.clips_per_source)

    def _clips_per_epoch(self) -> int:
        if self._spec.clips_per_source > 1:
            return self._groups(generator(self._seed, "groups", 0)).size
        if self._spec.subject_cap is None:
            return len(self._labels)
        return len(_capped(np.arange(len(self._labels)), self._subjects, self._spec.subject_cap))

    def __getstate__(self) -> dict[str, Any]:
        """Without the epochs at hand: they are made again faster than they are sent."""
        return self.__dict__ | {"_epochs": {}}

    def batch(self, step: int) -> tuple[int, IndexArray]:
        """The epoch that a step lies in, and the ``batch_size`` clip numbers of its batch.

        Clips of one source stand side by side where the rule asks for several of each.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self._spec.batch_size
        return epoch, self._epoch(epoch)[start : start + self._spec.batch_size]

    def substitute(self, epoch: int, clip: int, attempt: int) -> int:
        """The clip that takes the place of one that can't be decoded, for the given attempt.

        It has the same label where another clip with that label exists; where batches hold several
        clips of a source, it is of the same source.
        """
        kinds = self._sources if self._spec.clips_per_source > 1 else self._labels
        candidates = np.flatnonzero(kinds == kinds[clip])
        candidates = candidates[candidates != clip]
        if len(candidates) == 0:
            candidates = np.arange(len(self._labels))
        rng = generator(self._seed, "substitute", epoch, clip, attempt)
        return int(candidates[rng.integers(len(candidates))])

    def _epoch(self, epoch: int) -> IndexArray:
        if epoch not in self._epochs:
            # Two neighbouring epochs are all that a stream ever needs at a time.
            self._epochs = {key: self._epochs[key] for key in self._epochs if key == epoch - 1}
            self._epochs[epoch] = self._draw(epoch)
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> IndexArray:
        rng = generator(self._seed, "order", epoch)
        if self._spec.sampler == "class_uniform":
            return _class_uniform(self._labels, rng)
        if self._spec.subject_cap is not None:
            permutation = rng.permutation(len(self._labels))
            return _capped(permutation, self._subjects, self._spec.subject_cap)
        if self._spec.clips_per_source > 1:
            groups = self._groups(generator(self._seed, "groups", epoch))
            return groups[self._permutation(len(groups), epoch, rng)].reshape(-1)
        return self._permutation(len(self._labels), epoch, rng)

    def _groups(self, rng: np.random.Generator) -> IndexArray:
        return _groups_of_sources(self._sources, self._spec.clips_per_source, rng)

    def _permutation(self, number: int, epoch: int, rng: np.random.Generator) -> IndexArray:
        """The units of an epoch in their order; those that it leaves out are missing."""
        units_per_batch = self._spec.batch_size // self._spec.clips_per_source
        permutation = rng.permutation(number)
        num_left_out = number % units_per_batch
        if num_left_out == 0:
            return permutation
        turn = generator(self._seed, "left out").permutation(number)
        first = epoch * num_left_out
        left_out = turn[np.arange(first, first + num_left_out) % number]
        is_shown = np.ones(number, dtype=np.bool_)
        is_shown[left_out] = False
        return permutation[is_shown[permutation]]


def _check_sources(sources: IndexArray, number: int, clips_per_source: int) -> None:
    unknown = number if len(sources) < number else int((sources < 0).sum())
    if unknown:
        raise StreamError(
            f"clips_per_source={clips_per_source} needs the manifest's column `source` (what a "
            f"clip was cut from), but {unknown} of the stream's {number} clips have none; fill it "
            "in or use clips_per_source=1"
        )
    counts = np.unique(sources, return_counts=True)[1]
    too_few = int((counts < clips_per_source).sum())
    if too_few:
        raise StreamError(
            f"{too_few} of {len(counts)} sources have fewer than clips_per_source="
            f"{clips_per_source} clips in the stream; leave their clips out of the manifest or use "
            "a smaller clips_per_source"
        )


def _class_uniform(labels: IndexArray, rng: np.random.Generator) -> IndexArray:
    """A class uniformly, then a clip of it uniformly, with replacement."""
    by_label = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    starts = np.cumsum(counts) - counts
    chosen = rng.integers(len(counts), size=len(labels))
    position = (rng.random(len(labels)) * counts[chosen]).astype(np.int64)
    return np.asarray(by_label[starts[chosen] + position], dtype=np.int64)


def _capped(clips: IndexArray, subjects: IndexArray, cap: int) -> IndexArray:
    """The clips in their order, at most ``cap`` of each known subject."""
    owners = subjects[clips]
    place = np.empty(len(clips), dtype=np.int64)
    by_owner = np.argsort(owners, kind="stable")
    place[by_owner] = _position_in_run(owners[by_owner])
    return clips[(owners < 0) | (place < cap)]


def _groups_of_sources(
    sources: IndexArray, clips_per_source: int, rng: np.random.Generator
) -> IndexArray:
    """Clips of each source in random groups [G, M]; what does not fill a group waits."""
    by_source = np.lexsort((rng.random(len(sources)), sources))
    grouped = sources[by_source]
    counts = np.unique(grouped, return_counts=True)[1]
    usable = np.repeat(counts - counts % clips_per_source, counts)
    kept = by_source[_position_in_run(grouped) < usable]
    return kept.reshape(-1, clips_per_source)


def _position_in_run(values: IndexArray) -> IndexArray:
    """0, 1, 2, ... within each run of equal values."""
    counts = np.unique(values, return_counts=True)[1]
    return np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
