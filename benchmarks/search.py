"""What a search costs, and what is left of it when it is killed.

* trial overhead: seconds from a trial's start to its first training step inside a search, against a
  bare process that does the same run from its own start: on the clock (with the load of the machine
  beside it) and in CPU time, which the target is about;
* shared decode: the CPU time of eight trials that read one clip cache, its making included, against
  the same trials each decoding, taking turns in one process; films of 320 px and 2 s, a network of
  64 px (what it gains depends on what a step costs beside decoding its clips);
* SIGKILL of the driver at random moments, then going on: trials lost, trials run again although
  they had ended, and whether the draws are those of a search that was not killed.

Run with ``--quick`` for a short version.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from report import finish

from mien.search.on_tune import TrialCall, TrialOutcome, run_search
from mien.search.plan import Objective, SearchPlan
from mien.search.space import Dimension, Space
from mien.search.study import SearchStudy, TrialRecord
from mien.synth import SynthSpec, write_dataset
from mien.train.local_ray import ray_session
from mien.train.plan import TrainPlan
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import DataPlan, Recipe, TrackPlan
from mien_jobs.searching import RunTrial, Search, with_absolute_paths

SCORE = (Objective(metric="val/uar"),)
RATES = Space((Dimension(name="optim.lr", kind="log_uniform", low=1e-4, high=1e-2),))


def small_recipe(
    folder: Path, *, epochs: int, size_px: int = 64, duration_s: float = 1.0
) -> Recipe:
    """A training of seconds: dtm's tiny profile on a few clips."""
    spec = SynthSpec(
        num_subjects=6, size_px=size_px, duration_s=duration_s, supersample=False, seed=1
    )
    manifest = folder / "clips" / "manifest.parquet"
    if not manifest.exists():
        write_dataset(spec, folder / "clips", num_workers=0)
    recipe = make_recipe("dtm", "tiny")
    config = replace(
        recipe.config, epochs=epochs, steps_per_epoch=2, batch_size=8, unlabelled_clips="all"
    )
    plan = replace(recipe.train, workers=1, threads_per_worker=1, log_every_steps=1)
    return with_absolute_paths(
        replace(
            recipe,
            name="bench",
            config=config,
            storage=str(folder / "runs"),
            train=plan,
            data=DataPlan(manifest=str(manifest), val_fraction=0.3, test_fraction=0.2),
            track=TrackPlan(uri="off"),
        )
    )


class Times:
    """A watcher that notes when trials were drawn."""

    def __init__(self) -> None:
        self.drawn_at: dict[int, float] = {}

    def started(self, trial: TrialRecord) -> None:
        self.drawn_at[trial.number] = time.time()

    def reported(self, number: int, metrics: Mapping[str, float]) -> None:
        pass

    def ended(self, trial: TrialRecord) -> None:
        pass


def trial_overhead(folder: Path, trials: int) -> dict[str, float]:
    """Seconds to the first step, in a search (trials after the first) and in a bare process."""
    recipe = small_recipe(folder, epochs=1)
    plan = SearchPlan(
        objectives=SCORE, trials=trials, sampler="random", pruner="none", concurrent=1
    )
    search = Search(recipe=recipe, space=RATES, plan=plan)
    Path(search.folder).mkdir(parents=True)
    study, times = SearchStudy(search.study_url, "bench", plan, RATES), Times()
    with ray_session(TrainPlan(workers=1)):
        run_search(
            study,
            RunTrial(search=search),
            folder=search.folder,
            resources={"CPU": 1},
            watcher=times,
        )
    records = study.records()
    if failed := [trial.reason for trial in records if trial.state != "complete"]:
        raise RuntimeError(f"{len(failed)} of {trials} trials failed: {failed[0]}")
    # One trial at a time: each is drawn when the one before has ended.
    waits = [t.facts["first_step_at"] - times.drawn_at[t.number] for t in records]
    inside = [t.facts["first_step_at"] - t.facts["begun_at"] for t in records]
    inside_cpu = [t.facts["cpu_s_to_first_step"] for t in records]
    command = [sys.executable, __file__, "--bare-run", str(folder)]
    bare, bare_cpu = [], []
    for _ in range(max(1, trials // 3)):
        start = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first_step_at, cpu_s = map(float, done.stdout.split()[-2:])
        bare.append(first_step_at - start)
        bare_cpu.append(cpu_s)
    return {
        "first_trial_s_to_first_step": waits[0],
        "trial_s_to_first_step": statistics.median(waits[1:]),
        "trial_s_of_it_in_the_trial": statistics.median(inside[1:]),
        "trial_cpu_s_to_first_step": statistics.median(inside_cpu[1:]),
        "bare_process_s_to_first_step": statistics.median(bare),
        "bare_process_cpu_s_to_first_step": statistics.median(bare_cpu),
        "load_of_the_machine": os.getloadavg()[0],
    }


def bare_run(folder: Path) -> None:
    """The same run in a process of its own; prints when it made its first step, and its CPU time.

    That of the interpreter and its imports counts: a process that is kept does not pay it again.
    """
    begun_cpu_s = time.process_time()
    recipe = replace(small_recipe(folder, epochs=1), name=f"bare-{os.getpid()}")
    search = Search(
        recipe=recipe, space=RATES, plan=SearchPlan(objectives=SCORE, trials=1, pruner="none")
    )
    outcome = RunTrial(search=search)(
        TrialCall(number=0, values={"optim.lr": 1e-3}, report=lambda metrics: None)
    )
    print(outcome.facts["first_step_at"], begun_cpu_s + outcome.facts["cpu_s_to_first_step"])


def shared_decode(folder: Path, trials: int) -> dict[str, float]:
    """CPU seconds of a sweep whose trials share a cache, and of the same trials without one."""
    recipe = small_recipe(folder, epochs=4, size_px=320, duration_s=2.0)
    plan = SearchPlan(objectives=SCORE, trials=trials, sampler="random", pruner="none")
    spent = {"shared": 0.0, "apart": 0.0}
    searches = {}
    for name, cache in (("shared", str(folder / "cache")), ("apart", "")):
        data = replace(recipe.data, cache=cache)
        searches[name] = Search(
            recipe=replace(recipe, name=name, data=data), space=RATES, plan=plan
        )
    for number in range(trials):
        for name, search in searches.items():
            call = TrialCall(
                number=number, values={"optim.lr": 1e-3 * (number + 1)}, report=lambda metrics: None
            )
            start = time.process_time()
            RunTrial(search=search)(call)
            spent[name] += time.process_time() - start
    return {
        "shared_cache_cpu_s": spent["shared"],
        "each_decoding_cpu_s": spent["apart"],
        "shared_decode_speedup": spent["apart"] / spent["shared"],
    }


def cheap_trial(call: TrialCall) -> TrialOutcome:
    """Writes that it ran, takes a moment, and scores."""
    rate = float(call.values["optim.lr"] or 0)
    for epoch in range(1, 4):
        time.sleep(0.1)
        call.report({"stage": 0.0, "epoch": float(epoch), "val/uar": rate})
    return TrialOutcome(scores=(rate,))


def kill_plan(trials: int) -> SearchPlan:
    """One trial at a time, so that a search in pieces has to draw what one in one piece draws."""
    return SearchPlan(objectives=SCORE, trials=trials, pruner="none", concurrent=1)


def drive(folder: Path, trials: int) -> None:
    """What is killed: a driver with its Ray."""
    study = SearchStudy(f"sqlite:///{folder}/study.db", "kill", kill_plan(trials), RATES)
    with ray_session(TrainPlan(workers=1)):
        print("searching", flush=True)
        run_search(study, cheap_trial, folder=str(folder), resources={"CPU": 1}, watcher=Printing())
    print("over", flush=True)


class Printing:
    """Says when trials end."""

    def started(self, trial: TrialRecord) -> None:
        pass

    def reported(self, number: int, metrics: Mapping[str, float]) -> None:
        pass

    def ended(self, trial: TrialRecord) -> None:
        print("ended", trial.number, flush=True)


def kills(folder: Path, trials: int, count: int) -> dict[str, int]:
    """Kills a driver at random moments and lets it end at last."""
    chance = random.Random(0)
    ended: Counter[int] = Counter()
    is_over, killed = False, 0
    while not is_over:
        command = [sys.executable, __file__, "--drive", str(folder), "--trials", str(trials)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            patience = chance.randint(1, max(1, trials // (count + 1))) if killed < count else -1
            for line in driver.stdout:
                if line.startswith("ended"):
                    ended[int(line.split()[1])] += 1
                    patience -= 1
                is_over = is_over or line.startswith("over")
                if patience == 0:
                    time.sleep(chance.uniform(0, 0.5))
                    driver.send_signal(signal.SIGKILL)
                    killed += 1
                    break
            ended.update(int(x.split()[1]) for x in driver.stdout if x.startswith("ended"))
    study = SearchStudy(f"sqlite:///{folder}/study.db", "kill", kill_plan(trials), RATES)
    records = study.records()
    whole = SearchStudy(None, "whole", kill_plan(trials), RATES)
    while (trial := whole.next_trial()) is not None:
        whole.complete(trial.number, [float(trial.values["optim.lr"] or 0)], {})
    return {
        "kills": killed,
        "trials_lost": trials - sum(trial.state == "complete" for trial in records),
        "trials_ended_twice": sum(times > 1 for times in ended.values()),
        "draws_unlike_an_unkilled_search": sum(
            a.values != b.values for a, b in zip(records, whole.records(), strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bare-run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # As urgent as this process: beside other work Ray's own, lower priority would be measured.
    os.environ |= {"RAY_worker_niceness": "0"}
    if args.bare_run is not None:
        bare_run(args.bare_run)
        return
    if args.drive is not None:
        drive(args.drive, args.trials)
        return
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures |= shared_decode(folder / "decode", trials=2 if args.quick else 8)
        print(json.dumps(figures), flush=True)
        figures |= trial_overhead(folder / "overhead", trials=3 if args.quick else 6)
        print(json.dumps(figures), flush=True)
        (folder / "kills").mkdir()
        figures |= kills(folder / "kills", *((4, 1) if args.quick else (16, 3)))
    targets = {
        "start": ("trial_cpu_s_to_first_step", "<=", 3.0),
        "decode": ("shared_decode_speedup", ">=", 2.0),
        "lost": ("trials_lost", "<=", 0),
        "twice": ("trials_ended_twice", "<=", 0),
    }
    finish("search", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
