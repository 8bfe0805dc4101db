"""A run keeps its kind of device, whatever there is when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from mien.media.storage import local_path
from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.kept_device import with_kept_device
from mien.train.loop import fit
from mien.train.plan import TrainPlan
from mien.train.world import World
from mien_models.contract import OptimPlan


def trained(tiny_method, memory_clips, folder: Path) -> CheckpointStore:
    store = CheckpointStore(str(folder))
    fit(
        tiny_method(OptimPlan(lr=1e-2), epochs=1),
        clips=memory_clips(),
        plan=TrainPlan(workers=0),
        world=World(),
        store=store,
        tracker=NoTracker(),
        say=lambda line: None,
    )
    return store


def pretend_it_was_on(device: str, store: CheckpointStore) -> None:
    state = Path(local_path(store.folder)) / "checkpoints" / store.names()[-1] / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"device": device}))


def test_a_run_without_checkpoints_takes_what_there_is(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    assert with_kept_device(TrainPlan(), store, has_gpu=True).device == "cuda"
    assert with_kept_device(TrainPlan(), store, has_gpu=False).device == "cpu"


def test_a_run_goes_on_where_it_was(tiny_method, memory_clips, tmp_path: Path) -> None:
    store = trained(tiny_method, memory_clips, tmp_path)
    assert with_kept_device(TrainPlan(), store, has_gpu=True).device == "cpu"
    pretend_it_was_on("cuda", store)
    assert with_kept_device(TrainPlan(), store, has_gpu=False).device == "cuda"
    assert with_kept_device(TrainPlan(device="cpu"), store, has_gpu=True).device == "cpu"
