"""A challenger against the champion of the registry: both predict the same clips, then one wins."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from mien.clips.splits import Split
from mien.evaluate.compare import PromotionRules, Verdict, compare, judge_first
from mien.evaluate.latency import measure_latency_ms
from mien.evaluate.predictions import Predictions, write_predictions
from mien.evaluate.slices import slice_values
from mien.infer.package import PackageInfo
from mien.media.storage import join, write_bytes_atomically
from mien.track.export import ExportSpec
from mien.track.mlflow_tracker import RUN_KEY_TAG, open_client
from mien.track.promotion import (
    Move,
    describe_version,
    find_run,
    find_version,
    move_alias,
    version_of,
    write_verdict,
)
from mien.track.references import resolve
from mien.track.registry import WEIGHTS_TAG, RegistryError, register
from mien.track.tracker import TrackerSpec
from mien.train.local_ray import ray_session
from mien.train.plan import TrainPlan
from mien.train.world import choose_device
from mien_jobs.data import RunData, split_clips, trained_on
from mien_jobs.evaluation import Evaluation, evaluate_model
from mien_jobs.evaluation_results import complete_package, save_evaluation
from mien_jobs.methods import load_method
from mien_jobs.model_clips import ModelClips, open_package_clips
from mien_jobs.run_note import RUN_NOTE, with_verdict
from mien_jobs.split_predictions import (
    NothingToScoreError,
    SplitName,
    open_source,
    predict_split,
)
from mien_models.contract import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionRequest:
    """Who wants to become what, and on which clips it is decided."""

    uri: str
    """Of the registry."""
    challenger: str
    """A reference as `mien.track.references.resolve` takes it."""
    name: str
    alias: str = "champion"
    data: str | None = None
    split: SplitName | None = None
    slice_by: tuple[str, ...] | None = None
    rules: PromotionRules


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What was decided."""

    verdict: Verdict
    version: int
    """Of the challenger."""
    champion: int | None
    """Version of the champion before."""
    move: Move | None
    """None: refused."""


def promote(request: PromotionRequest, plan: TrainPlan, out: str) -> Promotion:
    """Compares, registers the challenger, writes why, and moves the alias if every check passed.

    A refused challenger is registered too, without an alias, with the reason in its tags.

    Raises:
        RegistryError: the challenger is the champion already, or is not to be found.
        ValueError: clips that can't be had, or that the champion was trained on.
    """
    package = resolve(request.uri, request.challenger)
    model = open_package_clips(package, request.data, request.split)
    before = version_of(request.uri, request.name, request.alias)
    champion = None
    if before is not None:
        champion = load_method(resolve(request.uri, f"{request.name}/{before}"))
        if champion[0].weights_sha256 == model.info.weights_sha256:
            raise RegistryError(
                f"{request.challenger} is {request.name}@{request.alias} (version {before}) already"
            )
    with tempfile.TemporaryDirectory() as folder:
        with ray_session(plan) if plan.workers else nullcontext():
            found, verdict = _decide(request, model, champion, plan, folder)
        complete_package(package, found)
        version = _register(request, model, package)
        _keep_results(request, version, folder, out)
    describe_version(request.uri, request.name, version, found.model_card)
    why = verdict.why if before is None else f"against version {before}: {verdict.why}"
    write_verdict(request.uri, request.name, version, passed=verdict.passed, why=why)
    _note_verdict(request, version, passed=verdict.passed, why=why)
    move = None
    if verdict.passed:
        move = move_alias(request.uri, request.name, request.alias, version, expected=before)
    return Promotion(verdict=verdict, version=version, champion=before, move=move)


def _decide(
    request: PromotionRequest,
    model: ModelClips,
    champion: tuple[PackageInfo, Method] | None,
    plan: TrainPlan,
    folder: str,
) -> tuple[Evaluation, Verdict]:
    notes: list[str] = []
    data = model.data
    if champion is not None:
        data, notes = without_seen(data, model.which, champion[0])
    found = evaluate_model(replace(model, data=data), plan, slice_by=request.slice_by)
    if found.classes is None:
        raise NothingToScoreError(
            f"no clip of the {model.which} split has a label, and models are compared by their "
            "classes; name labelled clips with --data or --split"
        )
    save_evaluation(found, folder)
    device = choose_device(plan.device)
    if champion is None:
        latency_ms = measure_latency_ms([model.method.to(device)], device)[0]
        verdict = judge_first(found.classes.predictions, request.rules, latency_ms)
    else:
        theirs = _champion_predictions(champion, data, model.which, plan)
        write_predictions(join(folder, "predictions-champion.parquet"), theirs)
        old_ms, new_ms = measure_latency_ms([champion[1], model.method], device)
        verdict = compare(
            theirs,
            found.classes.predictions,
            request.rules,
            latencies_ms=(old_ms, new_ms),
            slice_by=slice_values(data.manifest, request.slice_by),
        )
    verdict = replace(verdict, notes=(*verdict.notes, *notes))
    _save_verdict(request, verdict, folder)
    return found, verdict


def without_seen(
    data: RunData, which: SplitName, champion: PackageInfo
) -> tuple[RunData, list[str]]:
    """The data without the clips that the champion was trained or selected on.

    Returns:
        The data, and what a reader of the verdict should know.

    Raises:
        ValueError: nothing is left, or nobody can say what the champion was trained on.
    """
    if champion.manifest_hash != data.manifest_hash:
        return data, [
            "The champion was trained on another manifest; whether it has seen these people is not "
            "known."
        ]
    theirs = split_clips(trained_on(champion), data.manifest)
    if theirs.content_hash != champion.split_hash:
        raise ValueError(
            "the champion's split can't be drawn again, so nobody can say which of these clips it "
            f"was trained on; use the version of Mien that trained it ({champion.mien_version}), "
            "or compare on another manifest with --data"
        )
    seen = {*theirs.train, *theirs.val}
    split = data.split
    ids = tuple(data.manifest.column("clip_id")) if which == "all" else getattr(split, which)
    kept = tuple(clip for clip in ids if clip not in seen)
    if not kept:
        raise ValueError(
            f"the champion was trained on every clip of the {which} split; name other clips with "
            "--data, or train the challenger with the champion's data.split_seed and folds"
        )
    if len(kept) == len(ids):
        return data, []
    parts = {part: getattr(split, part) for part in ("train", "val", "test")}
    parts = {part: () if which == "all" else clips for part, clips in parts.items()}
    left = Split(name=f"{split.name}-unseen", **{**parts, _part(which): kept})
    note = f"{len(ids) - len(kept)} of {len(ids)} clips are left out: the champion has seen them."
    manifest = data.manifest.by_ids([clip for part in parts for clip in getattr(left, part)])
    return replace(data, split=left, manifest=manifest), [note]


def _part(which: SplitName) -> str:
    return "test" if which == "all" else which


def _champion_predictions(
    champion: tuple[PackageInfo, Method], data: RunData, which: SplitName, plan: TrainPlan
) -> Predictions:
    info, method = champion
    source = open_source(data, info, plan, use_ray=plan.workers > 0)
    return predict_split(method, info, data, source, which=which, plan=plan)


def _save_verdict(request: PromotionRequest, verdict: Verdict, folder: str) -> None:
    report = verdict.report(f"{request.challenger} as {request.name}@{request.alias}")
    write_bytes_atomically(join(folder, "promotion.md"), report.to_markdown().encode())
    write_bytes_atomically(join(folder, "promotion.html"), report.to_html().encode())


def _register(request: PromotionRequest, model: ModelClips, package: Path) -> int:
    """The version of the challenger; made if the registry has none with its weights."""
    known = find_version(request.uri, request.name, model.info.weights_sha256)
    if known is not None:
        return known
    export = ExportSpec(method=model.method.cpu())
    run_id = _run_of(request, package, model.info)
    made = register(request.uri, run_id, package, name=request.name, alias=None, export=export)
    return made.version


def _run_of(request: PromotionRequest, package: Path, info: PackageInfo) -> str:
    """The run that trained a package, or a new one for a package of unknown origin."""
    # A package that was fetched from a registry does not lie in the folder of its run.
    for tag, value in ((RUN_KEY_TAG, str(package.parent)), (WEIGHTS_TAG, info.weights_sha256)):
        trained_in = find_run(request.uri, tag, value)
        if trained_in is not None:
            return trained_in
    short = info.weights_sha256[:12]
    spec = TrackerSpec(
        uri=request.uri,
        experiment="promotions",
        run_name=f"package {short}",
        run_key=f"package {short}",
    )
    tracker = spec.open()
    tracker.log_params({"package": str(package), "method": info.method})
    tracker.set_tags({WEIGHTS_TAG: info.weights_sha256})
    tracker.finish()
    return tracker.run_id


def _keep_results(request: PromotionRequest, version: int, folder: str, out: str) -> None:
    """Puts verdict, scorecard and predictions into the challenger's run, and into ``out``."""
    client = open_client(request.uri)
    run_id = client.get_model_version(request.name, str(version)).run_id
    client.log_artifacts(run_id, folder, f"promotion/{request.name}-v{version}")
    for path in sorted(Path(folder).iterdir()):
        write_bytes_atomically(join(out, path.name), path.read_bytes())


def _note_verdict(request: PromotionRequest, version: int, *, passed: bool, why: str) -> None:
    """Puts the verdict on top of the challenger's run page."""
    client = open_client(request.uri)
    run = client.get_run(client.get_model_version(request.name, str(version)).run_id)
    note = run.data.tags.get(RUN_NOTE, "")
    text = with_verdict(note, request.name, version, passed=passed, why=why)
    client.set_tag(run.info.run_id, RUN_NOTE, text)
