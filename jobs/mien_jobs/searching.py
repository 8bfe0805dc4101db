"""One search: a recipe, a space, and trials that are runs of the recipe with other settings."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.tune.integration.ray_train import TuneReportCallback

from mien.cache.settings import CacheSettings
from mien.cache.view import CachedClips
from mien.clips.splits import carve_validation
from mien.evaluate.latency import measure_latency_ms
from mien.media.storage import (
    absolute,
    exists,
    is_remote,
    join,
    local_path,
    read_bytes,
    write_bytes_atomically,
)
from mien.search.on_tune import TrialCall, TrialOutcome
from mien.search.plan import SearchError, SearchPlan
from mien.search.space import Space, Value
from mien.stream.quarantine import Quarantine
from mien.stream.source import in_process
from mien.track.tracker import NoTracker, Tracker, TrackerSpec
from mien.train.launch import run_worker
from mien.train.loop import FitResult
from mien.train.on_ray import train_on_ray
from mien.train.validate import CLASS_METRICS, UNIT_METRIC
from mien.train.world import World, choose_device
from mien_jobs import overrides
from mien_jobs.caching import clips_of, complete_cache
from mien_jobs.methods import load_method
from mien_jobs.recipe import Recipe
from mien_jobs.space_options import settings
from mien_jobs.tracking import tracking_uri
from mien_jobs.training import PreparedRun, fetch_package, prepare, write_run_files

Say = Callable[[str], None]
LATENCY = "latency_ms"
VALIDATION_METRICS = (*CLASS_METRICS, UNIT_METRIC)
METRICS = (*VALIDATION_METRICS, LATENCY)
"""What may be searched for; nothing of it is measured on the test split."""
RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, as data: it is written to a file and sent to workers."""

    recipe: Recipe
    """Its name is the search's; all its paths are absolute."""
    space: Space
    plan: SearchPlan
    folds: int = 1
    """Divisions of the people into those trained on and those selected on; a trial's score is the
    mean over them. The test split is the same in all, and looked at in none."""
    study: str = ""
    """URL of the study's data base; empty: SQLite in the search's folder."""

    @property
    def folder(self) -> str:
        """Where all of the search lies."""
        return join(self.recipe.storage, self.recipe.name)

    @property
    def study_url(self) -> str:
        """The study's data base.

        Raises:
            SearchError: SQLite can't live in a bucket.
        """
        if self.study:
            return self.study
        if is_remote(self.folder):
            raise SearchError(
                f"the search lies in {self.folder}, where SQLite can't live: name a data base "
                "with --study postgresql://USER@HOST/NAME"
            )
        return f"sqlite:///{local_path(self.folder)}/study.db"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "recipe": json.loads(overrides.to_json(self.recipe)),
            "space": self.space.to_json(),
            "plan": self.plan.to_json(),
            "folds": self.folds,
            "study": self.study,
        }

    def trial_recipe(self, number: int, values: Mapping[str, Value]) -> Recipe:
        """The run that a trial is."""
        changed = overrides.apply_overrides(self.recipe, settings(values))
        name = trial_name(self.recipe.name, number)
        return replace(changed, name=name, storage=join(self.folder, "trials"))


def trial_name(search: str, number: int) -> str:
    """The name of a trial's run, folder and MLflow run."""
    return f"{search}-{number:04d}"


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe as it means the same in every process: trials run in other working folders."""
    data = recipe.data
    located = {part: at if at == "random" else absolute(at) for part, at in recipe.weights.items()}
    storage = absolute(recipe.storage)
    return replace(
        recipe,
        storage=storage,
        weights=located,
        data=replace(
            data,
            manifest=absolute(data.manifest) if data.manifest else "",
            cache=absolute(data.cache) if data.cache else "",
        ),
        track=replace(recipe.track, uri=tracking_uri(recipe.track.uri, storage) or "off"),
    )


@dataclass(frozen=True, kw_only=True)
class RunTrial:
    """What a trial's process does; sent to it once."""

    search: Search
    parent_run_id: str | None = None
    cached: CachedClips | None = None
    """The clips that the search's driver found or put in the cache."""

    def __call__(self, call: TrialCall) -> TrialOutcome:
        """Trains under a trial's settings; goes on where an earlier process of it was killed."""
        begun_s, begun_cpu_s = time.time(), time.process_time()
        recipe = self.search.trial_recipe(call.number, call.values)
        tracker = _open_tracker(recipe, self.parent_run_id)
        tracker.log_params(dict(call.values))
        tracker.log_json("recipe.json", json.loads(overrides.to_json(recipe)))
        try:
            log = _LogFile(join(recipe.storage, recipe.name))
            results: list[FoldResult] = []
            for fold in range(self.search.folds):
                results.append(self._fold(fold, recipe, call, log))
                if self.search.folds > 1:
                    call.report({"fold": float(fold), **_means(results)})
        except BaseException as error:
            # A trial that is stopped early leaves by SystemExit.
            is_stopped = isinstance(error, SystemExit)
            if not is_stopped:
                tracker.set_tags({"mien.error": f"{type(error).__name__}: {error}"[:4000]})
            tracker.finish("KILLED" if is_stopped else "FAILED")
            raise
        means = _means(results)
        scores = tuple(means[objective.metric] for objective in self.search.plan.objectives)
        tracker.log_metrics({"score": scores[0]}, step=max(r.steps for r in results))
        tracker.finish("FINISHED")
        facts = {
            "metrics": means,
            "steps": sum(result.steps for result in results),
            "best_epoch": results[0].best_epoch,
            "begun_at": begun_s,
            "first_step_at": log.first_step_s,
            "cpu_s_to_first_step": log.first_step_cpu_s and log.first_step_cpu_s - begun_cpu_s,
            "run_id": tracker.run_id,
        }
        return TrialOutcome(scores=scores, facts=facts)

    def _fold(self, fold: int, recipe: Recipe, call: TrialCall, log: Say) -> FoldResult:
        run = self.prepare_fold(fold, recipe)
        found = read_result(run.job.folder)
        if found is None:
            found = self._train(run, call, log)
            write_result(run.job.folder, found)
        return found

    def prepare_fold(self, fold: int, recipe: Recipe) -> PreparedRun:
        """The run of one fold: a trial's only one, or one below the trial's folder."""
        if self.search.folds == 1:
            run = prepare(recipe)
        else:
            below = join(recipe.storage, recipe.name)
            run = prepare(replace(recipe, name=f"fold-{fold}", storage=below))
        # Before the people are divided anew: a restart compares what the recipe itself says.
        write_run_files(run)
        if self.search.folds > 1:
            run = _with_fold(run, fold)
        assert run.job.tracker is not None
        tracked = replace(run.job.tracker, parent_run_id=self.parent_run_id)
        # The folds' curves would be drawn over each other in the trial's run.
        return replace(
            run, job=replace(run.job, tracker=tracked if self.search.folds == 1 else None)
        )

    def _train(self, run: PreparedRun, call: TrialCall, log: Say) -> FoldResult:
        run = self._with_cache(run, log)
        is_only_fold = self.search.folds == 1

        def report(metrics: Mapping[str, float]) -> None:
            if is_only_fold:
                call.report(metrics)

        plan = run.job.plan
        if plan.workers <= 1:
            world = World(device=choose_device(plan.device))
            fit = run_worker(run.job, world, in_process, say=log, report=report)
        else:
            _name_the_cluster_to_ray_train()
            callbacks = (TuneReportCallback(),) if is_only_fold else ()
            fit = train_on_ray(run.job, log, callbacks)
        metrics = dict(fit.metrics)
        if any(objective.metric == LATENCY for objective in self.search.plan.objectives):
            metrics[LATENCY] = _latency_ms(run)
        return FoldResult(metrics=metrics, best_epoch=fit.best_epoch, steps=fit.steps)

    def _with_cache(self, run: PreparedRun, log: Say) -> PreparedRun:
        """The run reading the search's cache; what its settings alone need is added to it."""
        if not run.recipe.data.cache:
            return run
        wanted = clips_of(run.data, run.recipe.data, run.streams)
        if self.cached is not None and all(
            _holds(self.cached, kind, [ref.clip_id for ref in refs])
            for kind, refs in wanted.items()
        ):
            data = replace(run.data, loading=replace(run.data.loading, cache=self.cached))
        else:
            data = complete_cache(run.data, run.recipe.data, run.streams, decode_on=None, say=log)
        return replace(run, data=data, job=replace(run.job, loading=data.loading))


def _name_the_cluster_to_ray_train() -> None:
    """Ray Train's cleaner gives the workers of a stopped trial back. Where several Rays run on a
    host it guesses which is its own, dies of it, and the next trial would wait for ever."""
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    # Only the variables in here reach Ray Train's own processes.
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldResult:
    """What one training of a trial came to."""

    metrics: Mapping[str, float]
    best_epoch: int | None
    steps: int

    def as_fit(self) -> FitResult:
        """As the training itself returned it, as far as it is kept."""
        return FitResult(
            metrics=dict(self.metrics),
            best_epoch=self.best_epoch,
            steps=self.steps,
            stages_begun=0,
            seconds=0.0,
            quarantine=Quarantine(),
        )


def _means(results: Sequence[FoldResult]) -> dict[str, float]:
    names = results[0].metrics
    return {name: sum(r.metrics[name] for r in results) / len(results) for name in names}


def read_result(folder: str) -> FoldResult | None:
    """The result of a training that is done; None: it isn't."""
    location = join(folder, RESULT_FILE)
    return FoldResult(**json.loads(read_bytes(location))) if exists(location) else None


def write_result(folder: str, result: FoldResult) -> None:
    """Says that a training is done."""
    plain = {
        "metrics": dict(result.metrics),
        "best_epoch": result.best_epoch,
        "steps": result.steps,
    }
    write_bytes_atomically(join(folder, RESULT_FILE), json.dumps(plain, indent=2).encode())


class _LogFile:
    """Keeps the lines of a trial in its folder, and notes when the first step was made."""

    def __init__(self, folder: str) -> None:
        # A bucket has no files that grow.
        self._path = None if is_remote(folder) else Path(local_path(folder)) / "log.txt"
        self.first_step_s: float | None = None
        self.first_step_cpu_s: float | None = None

    def __call__(self, line: str) -> None:
        if " step " in line and self.first_step_s is None:
            self.first_step_s, self.first_step_cpu_s = time.time(), time.process_time()
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def _open_tracker(recipe: Recipe, parent_run_id: str | None) -> Tracker:
    if recipe.track.uri == "off":
        return NoTracker()
    return TrackerSpec(
        uri=recipe.track.uri,
        experiment=recipe.track.experiment,
        run_name=recipe.name,
        run_key=join(recipe.storage, recipe.name),
        parent_run_id=parent_run_id,
    ).open()


def _holds(cached: CachedClips, settings: CacheSettings, clip_ids: list[str]) -> bool:
    held = cached.held.get(settings)
    return held is not None and all(
        clip_id in held.places or clip_id in held.failures for clip_id in clip_ids
    )


def _with_fold(run: PreparedRun, fold: int) -> PreparedRun:
    """The run with other people to select on, as many as before; those to test on stay."""
    base, data = run.data.split, run.data
    both = (*base.train, *base.val)
    share = len(base.val) / len(both)
    train, val = carve_validation(data.manifest, both, fraction=share, seed=fold)
    split = replace(base, name=f"{base.name}-val{fold}", train=train, val=val)
    split.assert_subject_exclusive(data.manifest)
    write_bytes_atomically(join(run.job.folder, "split.json"), split.to_json().encode())
    data = replace(data, split=split)
    package = replace(run.job.package, split_hash=split.content_hash)
    return replace(run, data=data, job=replace(run.job, split=split, package=package))


def _latency_ms(run: PreparedRun) -> float:
    """Of the trained network for one decoded clip, on this process's device."""
    device = choose_device("auto")
    _, method = load_method(fetch_package(run.job))
    return measure_latency_ms([method.eval().to(device)], device)[0]
