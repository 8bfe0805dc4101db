"""Runs a search from its first trial, or from wherever it was killed, to its report."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mien.cache.view import CachedClips
from mien.media.storage import (
    exists,
    is_remote,
    join,
    local_path,
    read_bytes,
    write_bytes_atomically,
)
from mien.search.on_tune import run_search
from mien.search.plan import SearchError, SearchPlan
from mien.search.report import figures_of, importance_of, summary, write_html
from mien.search.space import Space, Value, shown
from mien.search.study import SearchStudy, TrialRecord
from mien.stream.source import ClipSource
from mien.track.registry import RegisteredModel
from mien.track.tracker import NoTracker, RunStatus, Tracker, TrackerSpec
from mien.train.local_ray import ray_session
from mien.train.on_ray import wants_gpu
from mien_jobs import overrides
from mien_jobs.caching import complete_cache, streams_of
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import Recipe
from mien_jobs.search_table import SearchTable, settings_line
from mien_jobs.searching import RunTrial, Search, read_result, trial_name
from mien_jobs.space_options import misfit
from mien_jobs.training import PreparedRun, prepare, run_training, score_and_register

Say = Callable[[str], None]
SEARCH_FILE, REPORT_FILE = "search.json", "report.html"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search leaves behind."""

    best: list[TrialRecord]
    """The best trial; of two objectives, those that no other one beats."""
    report: str
    """Location of the HTML."""
    registered: RegisteredModel | None


def run_whole_search(
    search: Search,
    *,
    first: list[dict[str, Value]] | None = None,
    model: str | None = None,
    say: Say = print,
) -> SearchResult:
    """Runs, or goes on with, a search, and writes its report.

    Args:
        search: what is searched and how.
        first: settings to try before anything is drawn.
        model: registry name for the best trial's model; None: nothing is registered.
        say: prints a line.

    Raises:
        SearchError: another search has this name, or is being run; too many trials failed; no one
            model to register.
        ValueError: the recipe's data don't fit.
    """
    check_registration(search, model)
    base = _checked(search)
    with _only_one_runs(search.folder):
        write_search(search)
        study = open_study(search)
        if first:
            study.enqueue(first, label="given_first")
        parent = _open_parent(search)
        status: RunStatus = "FAILED"
        try:
            with _ray_for(search):
                here = wants_gpu(search.recipe.train, search.recipe.cluster.train)
                same = on_one_device(search, study, has_gpu=here)
                registered = _run(same, base, study, parent, model, say)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            say(f"go on with: mien tune --resume {search.recipe.name}")
            raise
        finally:
            _settle_runs(search, study)
            report = _report(search, study, parent)
            parent.finish(status)
        return SearchResult(best=study.best(), report=report, registered=registered)


def on_one_device(search: Search, study: SearchStudy, *, has_gpu: bool) -> Search:
    """The search with ``device=auto`` decided as at its start: scores of trials are compared.

    Raises:
        SearchError: trials so far had GPUs, and there is none.
    """
    train = search.recipe.train
    if train.device != "auto":
        return search
    device: Literal["cpu", "cuda"] = "cpu"
    if study.decide("device", "cuda" if has_gpu else "cpu") == "cuda":
        device = "cuda"
    if device == "cuda" and not has_gpu:
        raise SearchError(
            f"the trials of search {search.recipe.name!r} have trained on GPUs so far, and there "
            "is none here: go on where there is one. To search on the CPU: another --name and "
            "--set train.device=cpu"
        )
    return replace(search, recipe=replace(search.recipe, train=replace(train, device=device)))


def _run(
    search: Search,
    base: PreparedRun,
    study: SearchStudy,
    parent: Tracker,
    model: str | None,
    say: Say,
) -> RegisteredModel | None:
    cached = _complete_cache(search, base, say)
    run_trial = RunTrial(search=search, parent_run_id=parent.run_id or None, cached=cached)
    has_workers = search.recipe.train.workers > 1
    with SearchTable(study) as table:
        over = run_search(
            study,
            run_trial,
            folder=search.folder,
            resources=_resources(search),
            watcher=table,
            # A trial of several workers only waits for them: the group's nodes are for those.
            nodes=search.recipe.cluster.train.selector if not has_workers else None,
            keep_processes=not has_workers,
        )
    say(f"search over: {over}; {summary(study)}")
    return _register_best(search, run_trial, study, model, say)


def _ray_for(search: Search) -> AbstractContextManager[None]:
    """A Ray for the trials; where one is started here, it has CPUs on paper for all of them."""
    train, cpus = search.recipe.train, 1
    if train.workers > 1:
        each = train.cpus_per_worker + train.decode_tasks * train.cpus_per_decode_task
        cpus = math.ceil(train.workers * each * (search.plan.concurrent or 1))
    return ray_session(train, num_cpus=cpus, dashboard=train.workers > 1)


def open_study(search: Search) -> SearchStudy:
    """The search's study."""
    return SearchStudy(
        search.study_url,
        search.recipe.name,
        search.plan,
        search.space,
        lambda values: misfit(search.recipe, values),
    )


def read_search(folder: str) -> Search:
    """The search that a folder holds.

    Raises:
        SearchError: there is none.
    """
    location = join(folder, SEARCH_FILE)
    if not exists(location):
        raise SearchError(
            f"there is no search in {folder}; name one that was started with `mien tune METHOD "
            "--name NAME` (searches lie in the folder of the runs, --set storage=FOLDER)"
        )
    plain = json.loads(read_bytes(location))
    default = make_recipe(plain["recipe"]["method"], None)
    return Search(
        recipe=overrides.from_json(default, json.dumps(plain["recipe"]), complete=False),
        space=Space.from_json(plain["space"]),
        plan=SearchPlan.from_json(plain["plan"]),
        folds=plain["folds"],
        study=plain["study"],
    )


def write_search(search: Search) -> None:
    """Writes a search into its folder.

    Raises:
        SearchError: another search lies there; only how long and how it is run may change.
    """
    location = join(search.folder, SEARCH_FILE)
    now = json.loads(json.dumps(search.to_json()))
    if exists(location):
        then = json.loads(read_bytes(location))
        for key in ("recipe", "space", "folds", "study"):
            if then[key] != now[key]:
                raise SearchError(
                    f"search {search.recipe.name!r} exists in {search.folder} with another {key}"
                    f"{_difference(then[key], now[key])}: take another --name, go on with it as "
                    f"it is (mien tune --resume {search.recipe.name}), or delete that folder"
                )
        for key in ("objectives", "sampler", "seed"):
            if then["plan"][key] != now["plan"][key]:
                raise SearchError(
                    f"search {search.recipe.name!r} exists in {search.folder} with {key} "
                    f"{then['plan'][key]}, not {now['plan'][key]}: take another --name"
                )
    write_bytes_atomically(location, json.dumps(now, indent=2).encode())


def _difference(then: Any, now: Any, where: str = "") -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            if then.get(key) != now.get(key):
                return _difference(then.get(key), now.get(key), f"{where}.{key}")
    return f" ({where.removeprefix('.')}: {then!r} then, {now!r} now)" if where else ""


def _checked(search: Search) -> PreparedRun:
    """The recipe's own run, with its data opened.

    Raises:
        SearchError: nobody to select on.
        ValueError: the clips don't fill a batch; every trial would fail of it.
    """
    name = f"{search.recipe.name}-base"
    base = prepare(replace(search.recipe, name=name, storage=join(search.folder, "trials")))
    if not base.data.split.val:
        raise SearchError(
            "nobody is held out to score trials on (the test split is not for that): give "
            "data.val_fraction a share of the people, as in --set data.val_fraction=0.15"
        )
    data = base.data
    source = ClipSource(data.manifest, data.split, data.label_set, seed=0, plan=data.loading)
    *trained_on, _, _ = streams_of(base.job.build_method())  # the last two are those of evaluation
    for spec in trained_on:
        source.steps_per_epoch(spec)
    return base


def _resources(search: Search) -> dict[str, float]:
    """What a trial's own process reserves; a trial of several workers only waits for them."""
    plan = search.plan
    if search.recipe.train.workers > 1:
        # Ray refuses a trial that reserves nothing, and a CPU each would starve the workers.
        return {"memory": float(64 << 20)}
    asks_gpu = plan.gpus or float(wants_gpu(search.recipe.train, search.recipe.cluster.train))
    return {"CPU": plan.cpus} | ({"GPU": asks_gpu} if asks_gpu else {})


def _complete_cache(search: Search, base: PreparedRun, say: Say) -> CachedClips | None:
    """Decodes what the recipe's own settings need, once for all trials."""
    if not search.recipe.data.cache:
        say("no clip cache: every trial decodes its clips anew")
        return None
    group = search.recipe.cluster.decode
    data = complete_cache(base.data, search.recipe.data, base.streams, decode_on=group, say=say)
    return data.loading.cache


@contextmanager
def _only_one_runs(folder: str) -> Iterator[None]:
    """Two drivers of one search would run the same trials.

    Raises:
        SearchError: another one is at work (only noticed where the folder is local).
    """
    if is_remote(folder):
        yield
        return
    path = Path(local_path(folder))
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchError(f"the search in {folder} is being run by another process") from None
        yield


def _open_parent(search: Search) -> Tracker:
    """The MLflow run that the trials' runs are nested in."""
    track = search.recipe.track
    if track.uri == "off":
        return NoTracker()
    tracker = TrackerSpec(
        uri=track.uri,
        experiment=track.experiment,
        run_name=search.recipe.name,
        run_key=search.folder,
    ).open()
    plan = search.plan
    tracker.log_params(
        {
            "method": search.recipe.method,
            "sampler": plan.sampler,
            "pruner": plan.pruner,
            "trials": plan.trials,
            "folds": search.folds,
            "objective": ", ".join(f"{o.goal} {o.metric}" for o in plan.objectives),
        }
    )
    tracker.set_tags(
        {"mien.search": search.recipe.name, "mien.study": search.study_url.split("@")[-1]}
    )
    tracker.log_json("search.json", search.to_json())
    return tracker


def _settle_runs(search: Search, study: SearchStudy) -> None:
    """Ends the MLflow runs of trials whose process could not do so itself."""
    track = search.recipe.track
    if track.uri == "off":
        return
    from mien.track.children import end_children

    trials = join(search.folder, "trials")
    ended = {"pruned": "KILLED", "failed": "FAILED", "complete": "FINISHED"}
    end_children(
        track.uri,
        track.experiment,
        {
            join(trials, trial_name(search.recipe.name, trial.number)): ended.get(
                trial.state, "KILLED"
            )
            for trial in study.records()
        },
    )


def _report(search: Search, study: SearchStudy, parent: Tracker) -> str:
    figures = figures_of(study)
    page = write_html(
        study,
        figures,
        title=f"Search {search.recipe.name}",
        facts=_facts(search),
        notes=[f"Best: {settings_line(t)} (trial {t.number})" for t in study.best()],
    )
    location = join(search.folder, REPORT_FILE)
    write_bytes_atomically(location, page.encode())
    for name, figure in figures.items():
        parent.log_figure(f"search/{name}.png", figure)
    if parent.run_id and not is_remote(location):
        parent.log_file(local_path(location), "search")
    parent.log_table("search/trials.csv", [_row(trial, search) for trial in study.records()])
    parent.log_json("search/importance.json", importance_of(study))
    best = study.best()
    if best and best[0].scores is not None:
        parent.log_metrics({"best_score": best[0].scores[0]}, step=len(study.records()))
        parent.set_tags({"mien.best_trial": trial_name(search.recipe.name, best[0].number)})
    return location


def _facts(search: Search) -> dict[str, str]:
    plan = search.plan
    space = "; ".join(f"{d.name}: {d}" for d in search.space.dimensions)
    return {
        "method": search.recipe.method,
        "clips": search.recipe.data.manifest,
        "wanted": ", ".join(f"{o.goal} {o.metric}" for o in plan.objectives),
        "sampler, early stopping": f"{plan.sampler}, {plan.pruner}; seed {plan.seed}",
        "space": space,
        "folds": str(search.folds),
        "study": search.study_url.split("@")[-1],
    }


def _row(trial: TrialRecord, search: Search) -> dict[str, Any]:
    scores = dict(
        zip(
            (objective.metric for objective in search.plan.objectives),
            trial.scores or (),
            strict=False,
        )
    )
    values = {name: shown(value) for name, value in trial.values.items()}
    return {
        "trial": trial.number,
        "state": trial.state,
        **scores,
        "seconds": round(trial.seconds, 1),
        **values,
        "reason": trial.reason,
    }


def _register_best(
    search: Search, run_trial: RunTrial, study: SearchStudy, model: str | None, say: Say
) -> RegisteredModel | None:
    """Scores the best trial's model on the test split, for the first time, and registers it."""
    best = study.best()
    if model is None or not best:
        return None
    recipe = search.trial_recipe(best[0].number, best[0].values)
    recipe = replace(recipe, track=replace(recipe.track, model=model))
    if search.folds > 1:
        return _train_best(search, recipe, best[0], say)
    run = run_trial.prepare_fold(0, recipe)
    found = read_result(run.job.folder)
    if found is None or run.job.tracker is None:
        raise SearchError(f"the model of trial {best[0].number} is gone from {run.job.folder}")
    say(f"test split, trial {best[0].number} ({settings_line(best[0])}):")
    tracker = run.job.tracker.open()
    tracker.set_tags(_evidence(search))
    registered = score_and_register(run, found.as_fit(), tracker, say).registered
    tracker.finish("FINISHED")
    return registered


def _train_best(
    search: Search, recipe: Recipe, best: TrialRecord, say: Say
) -> RegisteredModel | None:
    """One model with the best settings, on the recipe's own division: the folds left several."""
    run = prepare(replace(recipe, name=f"{search.recipe.name}-best"))
    say(f"training {run.job.name} with the settings of trial {best.number}: {settings_line(best)}")
    registered = run_training(run, say).registered
    assert run.job.tracker is not None
    tracker = run.job.tracker.open()
    tracker.set_tags(_evidence(search))
    tracker.finish("FINISHED")
    return registered


def _evidence(search: Search) -> dict[str, str]:
    """Tags of a registered model's run: where its settings come from."""
    return {"mien.search": search.recipe.name, "mien.search_report": search.folder}


def check_registration(search: Search, model: str | None) -> None:
    """Before anything starts.

    Raises:
        SearchError: nothing says which of several best trials is to be registered, or there is no
            MLflow to register it with.
    """
    if model is None:
        return
    if len(search.plan.objectives) > 1:
        raise SearchError(
            "--register: of two objectives several trials are the best. Leave it out, choose one "
            "from the report, and train its settings with `mien train METHOD --set ... "
            f"track.model={model}`"
        )
    if search.recipe.track.uri == "off":
        raise SearchError(f"--register {model}: this search has no MLflow (track.uri=off)")


def best_settings(folder: str, count: int) -> list[Mapping[str, Value]]:
    """The settings of the best complete trials of a search, the best first.

    Raises:
        SearchError: no search lies there, or none of its trials is complete.
    """
    search = read_search(folder)
    study = open_study(search)
    sign = -1 if search.plan.objectives[0].goal == "maximize" else 1
    done = [trial for trial in study.records() if trial.scores is not None]
    if not done:
        raise SearchError(f"no trial of the search in {folder} is complete")
    ordered = sorted(done, key=lambda trial: sign * (trial.scores or (0.0,))[0])
    return [trial.values for trial in ordered[:count]]
