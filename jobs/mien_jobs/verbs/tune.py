"""``mien tune METHOD``: searches for the settings that score best on people held out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

from mien.media.storage import absolute, join
from mien.search.from_mlflow import settings_of_best_runs
from mien.search.plan import Goal, Objective, PrunerName, SamplerName, SearchError, SearchPlan
from mien.search.space import Value
from mien_jobs import overrides
from mien_jobs.methods import find_method, make_recipe
from mien_jobs.recipe import Recipe
from mien_jobs.search_driver import best_settings, read_search, run_whole_search
from mien_jobs.search_table import settings_line
from mien_jobs.searching import LATENCY, METRICS, Search, with_absolute_paths
from mien_jobs.space_options import build_space
from mien_jobs.training import with_data
from mien_jobs.verbs.train import add_override_option
from mien_models.contract import Method

SPACES: Mapping[str, tuple[str, ...]] = {
    "clp": ("pretrain.temporal.*",),
    "complex_fer": ("distillation.*", "memory.*"),
    "dtm": ("threshold.*",),
    "mma_dfer": ("prompts.*", "temporal.depth"),
    "rdfer": ("agreement.*",),
}
"""What is searched of a method unless --space says otherwise; of others, all that they name."""
_TRIALS = 20
_WARM_TRIALS = 5
_MAX_FAILED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("method", nargs="?", help="name of a method (`mien list`)")
    parser.add_argument("--name", help="name of the search; the same name goes on with it")
    parser.add_argument(
        "--resume", metavar="NAME", help="go on with a search (in runs/, or a path)"
    )
    parser.add_argument("--profile", help="the method's profile (`mien list`)")
    parser.add_argument("--data", metavar="MANIFEST", help="manifest of the clips (path or URI)")
    add_override_option(parser)
    parser.add_argument(
        "--space",
        metavar="SETTING[=RANGE]",
        nargs="+",
        action="extend",
        default=[],
        help="what is searched: a setting or pattern that the method has ranges for "
        "('threshold.*', '*' for all), or a range: 'optim.lr=loguniform(1e-5,1e-3)' "
        "'prompts.per_stage=choice(1,3,5)' 'temporal.depth=int(1,4)' "
        "'drop_audio=uniform(0,0.3)', each with a condition if wanted: "
        "'threshold.rho=uniform(0.9,1) if threshold.evidence=running'",
    )
    parser.add_argument(
        "--objective",
        metavar="METRIC",
        nargs="+",
        help=f"one or two of {', '.join(METRICS)} (default: what the recipe selects by)",
    )
    parser.add_argument("--trials", type=int, help=f"how many (default {_TRIALS}; a grid: all)")
    parser.add_argument("--sampler", choices=get_args(SamplerName), default="tpe")
    parser.add_argument(
        "--prune", choices=get_args(PrunerName), help="who stops bad trials early (default asha)"
    )
    parser.add_argument("--grace", type=int, default=2, help="epochs before that (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the search, not of the trainings")
    parser.add_argument(
        "--folds", type=int, default=1, help="a trial's score is the mean over so many divisions"
    )
    _add_running_options(parser)


def _add_running_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrent", type=int, help="trials at once (default: what fits)")
    parser.add_argument("--cpus", type=float, default=1.0, help="Ray CPUs of a trial (default 1)")
    parser.add_argument(
        "--gpus", type=float, default=0.0, help="GPUs of a trial, or a share of one, such as 0.5"
    )
    parser.add_argument("--hours", type=float, help="no new trials after so many hours of search")
    parser.add_argument("--gpu-hours", type=float, help="no new trials after so many GPU-hours")
    parser.add_argument(
        "--max-failed", type=int, help=f"more failed trials end the search (default {_MAX_FAILED})"
    )
    parser.add_argument(
        "--study",
        default="",
        metavar="URL",
        help="data base of the study: postgresql://USER@HOST/NAME (default: SQLite)",
    )
    parser.add_argument(
        "--warm-start",
        metavar="SEARCH",
        help=f"try the {_WARM_TRIALS} best settings of another search first, or of the runs that "
        "MLflow has: mlflow:EXPERIMENT",
    )
    parser.add_argument(
        "--register", metavar="MODEL", help="registry name for the best trial's model"
    )


def run(args: argparse.Namespace) -> int:
    """Searches and reports; exit code 1 where no trial is complete."""
    search = resumed_search(args) if args.resume else new_search(args)
    print(f"search {search.recipe.name!r} of {search.recipe.method}, in {search.folder}")
    for dimension in search.space.dimensions:
        print(f"  {dimension.name}: {dimension}")
    first: list[dict[str, Value]] = _warm(args.warm_start, search) if args.warm_start else []
    result = run_whole_search(search, first=first, model=args.register)
    for trial in result.best:
        scores = ", ".join(
            f"{objective.metric} {score:.4f}"
            for objective, score in zip(search.plan.objectives, trial.scores or (), strict=True)
        )
        print(f"best: trial {trial.number}, {scores}: {settings_line(trial)}")
    if not result.best:
        print("no trial is complete; the report says why")
    print(f"report: {result.report}")
    print(f"look closer: optuna-dashboard {search.study_url}")
    return 0 if result.best else 1


def resumed_search(args: argparse.Namespace) -> Search:
    """A search as it was started, with more trials, hours or room if that is asked for.

    Raises:
        SearchError: there is none, or the options would make another one of it.
    """
    if args.method or args.overrides or args.space or args.objective or args.data:
        raise SearchError(
            "--resume goes on with a search as it was started: leave METHOD, --data, --set, "
            "--space and --objective out (--trials, --hours, --concurrent, --max-failed may change)"
        )
    search = read_search(
        join(absolute("runs"), args.resume) if "/" not in args.resume else absolute(args.resume)
    )
    changed = {
        name: getattr(args, name)
        for name in ("trials", "hours", "gpu_hours", "concurrent", "max_failed")
        if getattr(args, name) is not None
    }
    return replace(search, plan=replace(search.plan, **changed))


def new_search(args: argparse.Namespace) -> Search:
    """The search that was asked for.

    Raises:
        ValueError: an unknown method, a bad setting or range, options that don't fit.
    """
    if not args.method:
        raise SearchError("name a method to search (`mien list`), or a search with --resume NAME")
    default = make_recipe(args.method, args.profile)
    recipe = overrides.apply_overrides(
        with_data(default, args.data, args.name or f"{args.method}-search"), args.overrides
    )
    recipe = _for_trials(recipe, args)
    objectives = _objectives(args.objective or [recipe.train.select])
    recipe = _selecting_by(recipe, objectives)
    own = cast(type[Method], find_method(args.method).method).search_space()
    space, notes = build_space(recipe, own, args.space or SPACES.get(args.method, ("*",)))
    for note in notes:
        print(note)
    trials = args.trials or (_TRIALS if args.sampler != "grid" else len(list(space.grid())))
    plan = SearchPlan(
        objectives=objectives,
        trials=trials,
        sampler=args.sampler,
        pruner=args.prune or ("asha" if len(objectives) == 1 else "none"),
        grace=args.grace,
        seed=args.seed,
        max_failed=_MAX_FAILED if args.max_failed is None else args.max_failed,
        concurrent=args.concurrent,
        cpus=args.cpus,
        gpus=args.gpus,
        hours=args.hours,
        gpu_hours=args.gpu_hours,
    )
    plan.check_space(space)
    if ":" in args.study.partition("://")[2].rpartition("@")[0]:
        raise SearchError(
            "--study: leave the password out, it would be written down with the search; "
            "PostgreSQL takes it from PGPASSWORD or ~/.pgpass"
        )
    if args.folds < 1:
        raise SearchError(f"--folds must be at least 1, got {args.folds}")
    return Search(recipe=recipe, space=space, plan=plan, folds=args.folds, study=args.study)


def _for_trials(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """One worker a trial and a cache for all of them, unless --set says otherwise."""
    given = {override.partition("=")[0] for override in args.overrides}
    if "train.workers" not in given:
        recipe = replace(recipe, train=replace(recipe.train, workers=1))
    if "train.threads_per_worker" not in given:
        threads = max(1, int(args.cpus))
        recipe = replace(recipe, train=replace(recipe.train, threads_per_worker=threads))
    if "data.cache" not in given:
        cache = join(absolute(recipe.storage), "clip-cache")
        recipe = replace(recipe, data=replace(recipe.data, cache=cache))
    return with_absolute_paths(recipe)


def _objectives(names: list[str]) -> tuple[Objective, ...]:
    for name in names:
        if name not in METRICS:
            raise SearchError(
                f"--objective {name} is not measured on people held out; one or two of "
                f"{', '.join(METRICS)}"
            )
    goals: dict[str, Goal] = {LATENCY: "minimize"}
    return tuple(Objective(metric=name, goal=goals.get(name, "maximize")) for name in names)


def _selecting_by(recipe: Recipe, objectives: tuple[Objective, ...]) -> Recipe:
    """The best epoch of a trial is chosen by what the search wants."""
    scores = [objective.metric for objective in objectives if objective.metric != LATENCY]
    if not scores:
        raise SearchError(f"{LATENCY} alone would find the smallest network: add val/uar")
    return replace(recipe, train=replace(recipe.train, select=scores[0]))


def _warm(source: str, search: Search) -> list[dict[str, Value]]:
    """The best settings of another search, or of MLflow's runs, that this one could draw too."""
    kind, _, experiment = source.partition(":")
    if kind == "mlflow" and experiment:
        uri, objective = search.recipe.track.uri, search.plan.objectives[0]
        if uri == "off":
            raise SearchError(f"--warm-start {source}: this search has no MLflow (track.uri=off)")
        kept = settings_of_best_runs(uri, experiment, search.space, objective, _WARM_TRIALS)
        print(f"warm start: {len(kept)} settings of the best runs in {source} are tried first")
        return kept
    folder = absolute(source) if "/" in source else join(search.recipe.storage, source)
    found = [dict(values) for values in best_settings(folder, _WARM_TRIALS)]
    fitting = [values for values in found if search.space.misfit(values) is None]
    kept = [{key: values[key] for key in search.space.names if key in values} for values in fitting]
    print(f"warm start: {len(kept)} of the {len(found)} best settings of {folder} are tried first")
    return kept
