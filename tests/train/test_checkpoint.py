"""Checkpoints: whole or absent, frozen weights under their hash, on any storage."""

from __future__ import annotations

import resource
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from mien.train.checkpoint import Checkpoint, CheckpointError, CheckpointStore


def make(value: float, size: int = 8) -> Checkpoint:
    return Checkpoint(
        model={"weight": torch.full((size,), value)},
        optimizer={"exp_avg//weight": torch.zeros(size)},
        state={"position": {"step": int(value)}},
    )


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Makes writing of larger files fail in the middle, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_the_newest_complete_checkpoint_wins_and_old_ones_go(tmp_path: Path, scheme):
    folder = f"{scheme}{uuid.uuid4().hex}" if scheme else str(tmp_path)
    store = CheckpointStore(folder, keep=2)
    assert store.load_newest() is None
    for stage, step in ((0, 9), (0, 10), (1, 0)):
        store.save(stage, step, make(100 * stage + step))
    assert store.names() == ["stage-00-step-00000010", "stage-01-step-00000000"]
    newest = store.load_newest()
    assert newest is not None
    assert newest.state["position"] == {"step": 100}
    assert torch.equal(newest.model["weight"], torch.full((8,), 100.0))


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_of_the_new_one(tmp_path: Path):
    store = CheckpointStore(str(tmp_path))
    store.save(0, 1, make(1))
    with files_of_at_most(4096), pytest.raises(CheckpointError, match="Older checkpoints are inta"):
        store.save(0, 2, make(2, size=10_000))
    assert store.names() == ["stage-00-step-00000001"]
    assert not (tmp_path / "checkpoints" / "stage-00-step-00000002").exists()
    assert not list(tmp_path.rglob("*.part"))
    store.save(0, 2, make(2, size=10_000))
    assert store.load_newest().state["position"] == {"step": 2}


def test_a_checkpoint_that_was_cut_short_is_not_seen(tmp_path: Path):
    store = CheckpointStore(str(tmp_path))
    store.save(0, 1, make(1))
    store.save(0, 2, make(2))
    (tmp_path / "checkpoints" / "stage-00-step-00000002" / "state.json").unlink()
    assert store.load_newest().state["position"] == {"step": 1}


def test_a_damaged_file_says_which(tmp_path: Path):
    store = CheckpointStore(str(tmp_path))
    store.save(0, 1, make(1))
    model = tmp_path / "checkpoints" / "stage-00-step-00000001" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged"):
        store.load_newest()


def test_frozen_weights_are_stored_once_and_checked(tmp_path: Path):
    store = CheckpointStore(str(tmp_path))
    frozen = {"encoder": torch.arange(6.0).view(2, 3).T}
    digest = store.save_frozen(frozen)
    assert store.save_frozen(frozen) == digest
    files = list((tmp_path / "frozen").iterdir())
    assert len(files) == 1
    assert torch.equal(store.load_frozen(digest)["encoder"], frozen["encoder"])
    assert store.save_frozen({}) is None
    other = CheckpointStore(str(tmp_path / "other"))
    wrong = other.save_frozen({"encoder": torch.zeros(3, 2)})
    files[0].write_bytes((tmp_path / "other" / "frozen" / f"{wrong}.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="holds other weights"):
        store.load_frozen(digest)
