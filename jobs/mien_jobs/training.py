"""One training from recipe to tracked, scored and registered model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.labels import NOTHING_LABELLED, UNITS_ONLY
from mien.clips.splits import PARTS
from mien.evaluate.scorecard import Scorecard
from mien.infer.package import PackageInfo
from mien.media.storage import (
    absolute,
    exists,
    is_remote,
    join,
    local_path,
    read_bytes,
    write_bytes_atomically,
)
from mien.track.environment import PACKAGE_FACT, describe_environment
from mien.track.export import ExportSpec
from mien.track.promotion import version_of
from mien.track.references import fetch_remote
from mien.track.registry import STARTED_FROM_TAG, WEIGHTS_TAG, RegisteredModel, register
from mien.track.tracker import Tracker, TrackerSpec
from mien.train.elastic import refuse_uneven_batches
from mien.train.launch import TrainJob, train
from mien.train.local_ray import ray_session
from mien.train.loop import FitResult
from mien.train.validate import CLASS_METRICS, UNIT_METRIC
from mien_jobs import overrides
from mien_jobs.caching import complete_cache, streams_of
from mien_jobs.continual import track_stages
from mien_jobs.data import RunData, open_data
from mien_jobs.evaluation import Evaluation, evaluate_model
from mien_jobs.evaluation_results import complete_package, track_evaluation
from mien_jobs.methods import MethodBuilder, load_method
from mien_jobs.model_clips import ModelClips
from mien_jobs.pseudo_labels import track_pseudo_labels
from mien_jobs.recipe import Recipe
from mien_jobs.run_note import RUN_NOTE, describe_run
from mien_jobs.split_predictions import NothingToScoreError
from mien_jobs.tracking import tracking_uri
from mien_models.contract import Method, StreamSpec

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A recipe with its data opened and its job made."""

    recipe: Recipe
    data: RunData
    job: TrainJob
    streams: tuple[StreamSpec, ...]
    """Every stream that the run will open, where a cache needs to know."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What a training leaves behind."""

    package: Path
    """A local folder; a temporary copy where the run lies in a bucket."""
    location: str
    """Where the package lies."""
    fit: FitResult
    scorecard: Scorecard | None
    """Scores of the test split; None where nobody was left for a test."""
    registered: RegisteredModel | None
    run_id: str
    features_only: bool
    """It was only pretrained, and tells nothing yet."""


def prepare(recipe: Recipe) -> PreparedRun:
    """Opens the data of a recipe and makes its job.

    Raises:
        ValueError: the data don't fit, or a run of this name has other settings.
    """
    if recipe.data.cache:
        recipe = replace(recipe, data=replace(recipe.data, cache=absolute(recipe.data.cache)))
    data = open_data(recipe.data)
    folder = join(absolute(recipe.storage), recipe.name)
    refuse_other_run(recipe, data, folder)
    builder = MethodBuilder(
        name=recipe.method, config=recipe.config, classes=data.label_set.classes
    )
    method = _first_method(recipe, data, builder)
    _refuse_to_register_features(recipe, method)
    refuse_unscored_choice(recipe, data, method)
    if recipe.train.is_elastic:
        *trained_on, _, _ = streams_of(builder())  # the last two are those of evaluation
        refuse_uneven_batches(recipe.train, trained_on)
    resolved = json.loads(overrides.to_json(recipe))
    uri = tracking_uri(recipe.track.uri, recipe.storage)
    job = TrainJob(
        name=recipe.name,
        folder=folder,
        build_method=builder,
        manifest=data.manifest,
        split=data.split,
        label_set=data.label_set,
        plan=recipe.train,
        loading=data.loading,
        package=PackageInfo(
            method=recipe.method,
            config=resolved["config"],
            label_set=data.label_set,
            prediction_stream=method.prediction_stream(),
            stages_begun=0,
            recipe=resolved,
            split_hash=data.split.content_hash,
            manifest_hash=data.manifest_hash,
            git_sha=describe_environment()["mien.git_sha"],
        ),
        pretrained=given_weights(recipe, method.pretrained_parts()),
        cluster=recipe.cluster,
        tracker=TrackerSpec(
            uri=uri,
            experiment=recipe.track.experiment,
            run_name=recipe.name,
            run_key=folder,
        ),
    )
    streams = tuple(streams_of(method)) if recipe.data.cache else ()
    return PreparedRun(recipe=recipe, data=data, job=job, streams=streams)


def _first_method(recipe: Recipe, data: RunData, builder: MethodBuilder) -> Method:
    """A method that is asked what it needs, and is not trained.

    Raises:
        ValueError: its settings don't fit, or it learns nothing from clips without classes.
    """
    if data.label_set not in (UNITS_ONLY, NOTHING_LABELLED):
        return builder()
    method: Method | None = None
    why = "with these settings it tells no action units"
    try:
        method = builder()
    except ValueError as error:
        why = str(error)
    if method is not None and method.features_only:
        return method
    if data.label_set == NOTHING_LABELLED:
        raise ValueError(
            "no clip of the manifest has a label or coded action units; fill its column `label` or "
            "`action_units`, or pretrain on it alone: mien train clp --set config.probe=none "
            "config.finetune=none"
        )
    if method is None or not method.action_units:
        raise ValueError(
            f"no clip of the manifest has a label, and {recipe.method} can't do without: {why}; "
            "fill the manifest's column `label`, or take a method that tells action units"
        )
    return method


def _refuse_to_register_features(recipe: Recipe, method: Method) -> None:
    if method.features_only and recipe.track.model is not None:
        raise ValueError(
            f"track.model={recipe.track.model}: with these settings {recipe.method} tells nothing "
            "that a registered model could be asked for; train without --register"
        )


def refuse_unscored_choice(recipe: Recipe, data: RunData, method: Method) -> None:
    """Refuses to choose the best epoch by action units that nobody tells or nobody coded.

    Raises:
        ValueError: says which, and what to choose by.
    """
    if recipe.train.select != UNIT_METRIC:
        return
    other = f"choose by classes: --set train.select={CLASS_METRICS[0]}"
    if not method.action_units:
        raise ValueError(
            f"train.select={UNIT_METRIC}: {recipe.method} with these settings tells no action "
            f"units; {other}"
        )
    codes = data.manifest.by_ids(data.split.val).table["action_units"]
    names = pa.array(method.action_units, pa.string())
    if not any(pc.any(pc.is_in(part.keys, value_set=names)).as_py() for part in codes.chunks):
        raise ValueError(
            f"train.select={UNIT_METRIC}: none of the {len(data.split.val)} validation clips is "
            f"coded for {', '.join(method.action_units)} (the manifest's column action_units); "
            f"let the method tell units that are, or {other}"
        )


def given_weights(recipe: Recipe, parts: tuple[str, ...]) -> dict[str, str]:
    """Absolute locations of the weights for the parts that a method takes as given.

    Raises:
        ValueError: a part without weights, or weights for a part that there is not.
    """
    for part in recipe.weights:
        if part not in parts:
            raise ValueError(
                f"weights.{part}: {recipe.method} with these settings takes no such weights "
                f"(it takes {', '.join(parts) or 'none: it learns everything'})"
            )
    missing = [part for part in parts if part not in recipe.weights]
    if missing:
        wanted = " ".join(f"weights.{part}=FILE" for part in missing)
        raise ValueError(
            f"{recipe.method} with these settings does not learn its {' and '.join(missing)} but "
            "takes published weights: make files of them with `mien weights import` and add "
            f"--set {wanted} (or =random to train on an untrained one, on purpose)"
        )
    located = {part: where for part, where in recipe.weights.items() if where != "random"}
    return {part: absolute(where) for part, where in located.items()}


def refuse_other_run(recipe: Recipe, data: RunData, folder: str) -> None:
    """Refuses to go on with a run under settings, clips or a split that it was not started with.

    Raises:
        ValueError: says what differs.
    """
    location = join(folder, "recipe.json")
    if not exists(location):
        return
    started = json.loads(read_bytes(location))
    now = _recipe_file(recipe, data)
    for one in (started, now):
        # Where a cache lies changes no result; whether there is one may (JPEG).
        one["data"]["cache"] = bool(one["data"].get("cache"))
    for key in ("method", "config", "weights", "data", "train", "split_hash", "manifest_hash"):
        if started.get(key) != now[key]:
            detail = _first_difference(started.get(key), now[key], key)
            raise ValueError(
                f"run {recipe.name!r} exists in {folder} and was started with other settings "
                f"({detail}). Use another --name, or delete that folder to start anew."
            )


def _recipe_file(recipe: Recipe, data: RunData) -> dict[str, Any]:
    return {
        **json.loads(overrides.to_json(recipe)),
        "split_hash": data.split.content_hash,
        "manifest_hash": data.manifest_hash,
    }


def _first_difference(old: Any, new: Any, where: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}")
    return f"{where}: {old!r} then, {new!r} now"


def run_training(run: PreparedRun, say: Say = print) -> TrainedModel:
    """Trains, evaluates on the test split, tracks and registers.

    A run that was interrupted, at whatever point, goes on; a finished one is only scored again.
    """
    recipe, job = run.recipe, run.job
    write_run_files(run)
    assert job.tracker is not None
    tracker = job.tracker.open()
    _track_settings(tracker, run)
    started = time.monotonic()
    if run.data.left_out:
        say(run.data.left_out)
    try:
        use_ray = recipe.train.workers > 0
        with ray_session(recipe.train) if use_ray else nullcontext():
            if recipe.data.cache:
                group = recipe.cluster.decode if use_ray else None
                data = complete_cache(run.data, recipe.data, run.streams, decode_on=group, say=say)
                run = replace(run, data=data, job=replace(job, loading=data.loading))
            fit = train(run.job)
            say(f"trained {fit.steps} steps in {time.monotonic() - started:.0f} s")
            model = score_and_register(run, fit, tracker, say)
    except BaseException as error:
        tracker.set_tags({"mien.error": f"{type(error).__name__}: {error}"[:4000]})
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED")
    return model


def write_run_files(run: PreparedRun) -> None:
    """Writes a run's recipe and split into its folder: what a restart is compared with."""
    recipe = json.dumps(_recipe_file(run.recipe, run.data), indent=2, sort_keys=True)
    write_bytes_atomically(join(run.job.folder, "recipe.json"), recipe.encode())
    write_bytes_atomically(join(run.job.folder, "split.json"), run.data.split.to_json().encode())


def score_and_register(
    run: PreparedRun, fit: FitResult, tracker: Tracker, say: Say
) -> TrainedModel:
    """Scores a trained model on the test split, tracks that, and registers it if its recipe says.

    Ray must be running if the recipe has workers.
    """
    package = fetch_package(run.job)
    info, method = load_method(package, features_only=True)
    model = ModelClips(
        package=package, info=info, method=method, data=run.data, is_own=True, which="test"
    )
    found = _evaluate(model, run, say)
    if found is not None:
        track_evaluation(tracker, found, folder=run.job.folder, step=fit.steps)
        complete_package(package, found, run.job.package_location)
    started_from = sorted({facts["source_sha256"] for facts in info.pretrained.values()})
    tracker.set_tags({WEIGHTS_TAG: info.weights_sha256, STARTED_FROM_TAG: ",".join(started_from)})
    tracker.set_tags({RUN_NOTE: describe_run(run.recipe, run.data, found, fit)})
    track_stages(tracker, method.stage_reports(), folder=run.job.folder, step=fit.steps, say=say)
    track_pseudo_labels(tracker, method, folder=run.job.folder)
    tracker.log_metrics({"best_epoch": float(fit.best_epoch or 0)}, fit.steps)
    registered = None
    if run.recipe.track.model and run.job.tracker is not None and run.job.tracker.uri is not None:
        registered = _register(run.job.tracker.uri, tracker.run_id, package, run, method, say)
    return TrainedModel(
        package=package,
        location=run.job.package_location,
        fit=fit,
        scorecard=None if found is None else found.scorecard,
        registered=registered,
        run_id=tracker.run_id,
        features_only=method.features_only,
    )


def _evaluate(model: ModelClips, run: PreparedRun, say: Say) -> Evaluation | None:
    """The scores on the test split; None where it holds nothing to score."""
    if model.method.features_only:
        say(
            "no scores: nothing was read out of the features. What they tell of identity: "
            f"`mien probe identity {model.package}`; to train a readout on them: "
            f"`mien weights extract {model.package} --part trunk --out FILE`"
        )
        return None
    try:
        found = evaluate_model(
            model,
            run.recipe.train,
            probes=run.recipe.track.probes,
            decode_group=run.recipe.cluster.decode,
        )
    except NothingToScoreError as error:
        say(f"no scores: {error}")
        return None
    say(found.quarantine.summary())
    say(found.report.to_markdown())
    return found


def _register(
    uri: str, run_id: str, package: Path, run: PreparedRun, method: Method, say: Say
) -> RegisteredModel:
    """Registers a model; an alias that an older version has stays with that one."""
    name, alias = run.recipe.track.model or "", run.recipe.track.alias
    holder = None if alias is None else version_of(uri, name, alias)
    registered = register(
        uri,
        run_id,
        package,
        name=name,
        alias=alias if holder is None else None,
        export=ExportSpec(method=method),
    )
    line = f"registered {name} version {registered.version}"
    if holder is not None:
        line += f"; {name}@{alias} stays version {holder} until `mien promote {name}/"
        line += f"{registered.version} --name {name}` finds this one better"
    elif alias is not None:
        line += f", alias {alias}"
    say(line)
    return registered


def fetch_package(job: TrainJob) -> Path:
    """A local folder with the trained model's package; a copy where the run lies in a bucket."""
    if not is_remote(job.package_location):
        return Path(local_path(job.package_location))
    return fetch_remote(job.package_location)


def _track_settings(tracker: Tracker, run: PreparedRun) -> None:
    data, recipe = run.data, run.recipe
    settings = json.loads(overrides.to_json(recipe))
    del settings["name"]  # the run's own: comparing runs would show it as a setting that differs
    parts = {part: len(getattr(data.split, part)) for part in PARTS}
    facts = {
        "clips": len(data.manifest),
        "left_out": data.left_out or "none",
        **parts,
        "classes": ", ".join(data.label_set.classes),
        "manifest_hash": data.manifest_hash,
        "split_hash": data.split.content_hash,
    }
    tracker.log_params(settings)
    tracker.log_params({"data_facts": facts})
    tracker.log_dataset(
        "/".join(recipe.data.manifest.removesuffix(".parquet").split("/")[-2:]),
        digest=data.manifest_hash[:12],
        source=recipe.data.manifest,
        facts=facts,
    )
    environment = describe_environment()
    # Packages would push everything else off the run's page; environment.json has them.
    shown = {name: fact for name, fact in environment.items() if not name.startswith(PACKAGE_FACT)}
    source = {"mlflow.source.name": f"mien {recipe.method}", "mlflow.source.type": "LOCAL"}
    tracker.set_tags(shown | source | {"mlflow.source.git.commit": environment["mien.git_sha"]})
    tracker.log_json("environment.json", environment)
    tracker.log_json("split.json", json.loads(data.split.to_json()))


def with_data(recipe: Recipe, manifest: str | None, name: str | None) -> Recipe:
    """The recipe with the manifest and name that were given on the command line."""
    if manifest is not None:
        recipe = replace(recipe, data=replace(recipe.data, manifest=absolute(manifest)))
    return recipe if name is None else replace(recipe, name=name)
