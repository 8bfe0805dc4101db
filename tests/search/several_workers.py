"""A search whose trials have two workers each; a worker is killed, or trials are stopped early.

A program of its own: Ray gives the workers of a stopped trial back only where it has a dashboard,
which the Ray of the other tests has not. Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil

from mien.search.plan import Objective, SearchPlan
from mien.search.space import Dimension, Space
from mien_jobs import overrides
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import DataPlan
from mien_jobs.search_driver import open_study, run_whole_search
from mien_jobs.searching import Search, trial_name, with_absolute_paths

RATES = Space((Dimension(name="optim.lr", kind="log_uniform", low=1e-4, high=1e-2),))
SMALL = [
    "config.image_size_px=32",
    "config.border_px=4",
    "config.num_frames=2",
    "config.align_faces=false",
    "config.trunk.widths=[8, 12]",
    "config.trunk.grid=2",
    "config.trunk.dim=16",
    "config.unlabelled_clips=all",
    "config.batch_size=4",
    "config.epochs=8",
    "config.steps_per_epoch=4",
    "train.workers=2",
    "train.log_every_steps=1",
    "train.select=val/uar",
]


def make_search(folder: Path, manifest: str) -> Search:
    """A search of one trial in seconds."""
    recipe = overrides.apply_overrides(make_recipe("dtm", "tiny"), SMALL)
    data = DataPlan(manifest=manifest, val_fraction=0.3, test_fraction=0.2, cache=f"{folder}/cache")
    recipe = replace(recipe, name="pairs", storage=str(folder), data=data)
    plan = SearchPlan(
        objectives=(Objective(metric="val/uar"),), trials=1, sampler="random", grace=1, concurrent=1
    )
    return Search(recipe=with_absolute_paths(recipe), space=RATES, plan=plan)


def kill_a_worker_after_the_first_step(log: Path) -> None:
    while not (log.exists() and " step 1/" in log.read_text()):
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if any("RayTrainWorker" in word for word in process.cmdline()):
            process.kill()
            return


def with_a_killed_worker(search: Search) -> None:
    """One trial."""
    log = Path(search.folder) / "trials" / trial_name("pairs", 0) / "log.txt"
    threading.Thread(target=kill_a_worker_after_the_first_step, args=[log], daemon=True).start()
    run_whole_search(search)


def stopped_early(search: Search) -> None:
    """Two trials behind a made-up one that nobody reaches: a recall of 2."""
    study = open_study(search)
    better = study.next_trial()
    assert better is not None
    study.report(better.number, (0.0, 0.0, 1.0), 2.0)
    study.complete(better.number, [2.0], {})
    run_whole_search(replace(search, plan=replace(search.plan, trials=3)))


def main(folder: Path, manifest: str, case: str) -> None:
    search = make_search(folder, manifest)
    Path(search.folder).mkdir(parents=True)
    with_a_killed_worker(search) if case == "killed" else stopped_early(search)
    records = open_study(search).records()
    log = Path(search.folder) / "trials" / trial_name("pairs", records[-1].number) / "log.txt"
    found = {
        "states": [trial.state for trial in records],
        "curves": [len(trial.curve) for trial in records],
        "steps": records[0].facts.get("steps"),
        "deaths": log.read_text().count("the workers died"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
