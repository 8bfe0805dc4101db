"""What a method says of an epoch reaches the curves and whoever watches."""

from __future__ import annotations

from pathlib import Path

from mien.track.tracker import NoTracker
from mien.train.checkpoint import CheckpointStore
from mien.train.loop import fit
from mien.train.plan import TrainPlan
from mien.train.world import World
from mien_models.contract import EpochNotes, OptimPlan


class CurveTracker(NoTracker):
    def __init__(self) -> None:
        self.curves: dict[tuple[str, int], float] = {}

    def log_metrics(self, metrics, step):
        self.curves |= {(name, step): value for name, value in metrics.items()}


def train(method, clips, folder: Path, world: World) -> tuple[CurveTracker, list[str]]:
    tracker, lines = CurveTracker(), []
    fit(
        method,
        clips=clips,
        plan=TrainPlan(workers=0),
        world=world,
        store=CheckpointStore(str(folder)),
        tracker=tracker,
        say=lines.append,
    )
    return tracker, lines


def test_notes_become_curves_and_warnings(tiny_method, memory_clips, tmp_path: Path) -> None:
    method = tiny_method(OptimPlan(), epochs=2)
    notes = iter([EpochNotes(logs={"kept": 0.25}, warnings=("nothing for awe",)), None] * 2)
    method.end_epoch = lambda scan: next(notes)
    clips = memory_clips()

    tracker, lines = train(method, clips, tmp_path, World())

    steps = clips.steps_per_epoch(method.stage(0).streams["train"])
    kept = {key: value for key, value in tracker.curves.items() if key[0].endswith("/kept")}
    # The first epoch of both stages; the second stage starts after two epochs.
    assert kept == {("train/warm/kept", steps): 0.25, ("train/adapt/kept", 3 * steps): 0.25}
    warned = [line for line in lines if "warning" in line]
    assert warned == [
        "warm epoch 1: warning: nothing for awe",
        "adapt epoch 1: warning: nothing for awe",
    ]
