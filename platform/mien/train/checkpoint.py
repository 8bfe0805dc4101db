"""Checkpoints on any storage: safetensors + JSON, whole or absent.

Layout below a run's folder (a path or any fsspec URI)::

    checkpoints/stage-00-step-00000120/model.safetensors      trained parameters, all buffers
    checkpoints/stage-00-step-00000120/optimizer.safetensors  moments, averaged weights
    checkpoints/stage-00-step-00000120/state.json             written last: means "complete"
    checkpoints/best/...                                      best epoch of the current stage
    frozen/<sha256>.safetensors                               what this stage does not train

A frozen encoder is written once, under the hash of its contents; checkpoints name the hash, and
loading refuses other contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mien.media.storage import exists, join, list_files, read_bytes, remove, write_bytes_atomically

Tensors = dict[str, Tensor]
_COMPLETE = "state.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read."""


@dataclass(kw_only=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had not stopped."""

    model: Tensors
    """Trained parameters and all buffers."""
    optimizer: Tensors
    state: dict[str, Any] = field(default_factory=dict)
    """JSON: position, hash of the frozen weights, best metric, running means, the method's own."""


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: str, *, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def save(self, stage: int, step: int, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint of a stage's step, then removes all but the newest ones.

        Raises:
            CheckpointError: the storage is full or unreachable; older checkpoints are untouched and
                nothing of this one is left.
        """
        self._write(f"stage-{stage:02d}-step-{step:08d}", checkpoint)
        for old in self.names()[: -self._keep]:
            self._remove(old)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Keeps this checkpoint as the best one so far (without the optimiser)."""
        self._write("best", checkpoint)

    def load_best(self) -> Checkpoint:
        """The checkpoint kept by :meth:`save_best`."""
        return self._read("best")

    def save_frozen(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Writes parameters that a stage does not train, once; returns their hash.

        None where there are none.
        """
        if not tensors:
            return None
        data = save_tensors(_writable(tensors))
        digest = hashlib.sha256(data).hexdigest()
        location = join(self.folder, f"frozen/{digest}.safetensors")
        if not exists(location):
            write_bytes_atomically(location, data)
        return digest

    def load_frozen(self, digest: str | None) -> Tensors:
        """The parameters with this hash.

        Raises:
            CheckpointError: the stored file holds other weights.
        """
        if digest is None:
            return {}
        location = join(self.folder, f"frozen/{digest}.safetensors")
        data = read_bytes(location)
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise CheckpointError(
                f"{location} holds other weights than the checkpoint was trained with "
                f"(sha256 {found}); restore the file, or delete the run's folder and start again"
            )
        return load_tensors(data)

    def load_newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; None where a run has none yet.

        Raises:
            CheckpointError: it is damaged.
        """
        names = self.names()
        return self._read(names[-1]) if names else None

    def newest_state(self) -> dict[str, Any] | None:
        """The JSON state of the newest complete checkpoint, without its tensors."""
        names = self.names()
        return json.loads(read_bytes(self._path(names[-1], _COMPLETE))) if names else None

    def names(self) -> list[str]:
        """Complete checkpoints, oldest first."""
        files = [file.split("/") for file in list_files(join(self.folder, "checkpoints"))]
        return [
            parts[0]
            for parts in files
            if parts[0].startswith("stage-") and parts[1:] == [_COMPLETE]
        ]

    def _path(self, name: str, file: str) -> str:
        return join(self.folder, f"checkpoints/{name}/{file}")

    def _remove(self, name: str) -> None:
        """Removes a checkpoint, the mark of completeness first."""
        remove(self._path(name, _COMPLETE))
        remove(join(self.folder, f"checkpoints/{name}"))

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        state = json.dumps(checkpoint.state, sort_keys=True).encode()
        files = {
            "model.safetensors": save_tensors(_writable(checkpoint.model)),
            "optimizer.safetensors": save_tensors(_writable(checkpoint.optimizer)),
            _COMPLETE: state,
        }
        try:
            for file, data in files.items():
                write_bytes_atomically(self._path(name, file), data)
        except Exception as error:
            with contextlib.suppress(Exception):  # the first failure is the one to tell of
                self._remove(name)
            raise CheckpointError(
                f"could not write checkpoint {name} under {self.folder}: {error}. Older "
                "checkpoints are intact; free some space or fix the storage, then start the run "
                "again: it goes on from the newest checkpoint."
            ) from error

    def _read(self, name: str) -> Checkpoint:
        return Checkpoint(
            model=self._tensors(self._path(name, "model.safetensors")),
            optimizer=self._tensors(self._path(name, "optimizer.safetensors")),
            state=json.loads(read_bytes(self._path(name, _COMPLETE))),
        )

    def _tensors(self, location: str) -> Tensors:
        try:
            return load_tensors(read_bytes(location))
        except SafetensorError as error:
            raise CheckpointError(
                f"{location} is damaged ({error}); delete its folder to go on from the checkpoint "
                "before it"
            ) from error


def _writable(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies on the CPU that safetensors can write (no shared or strided storage)."""
    return {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
