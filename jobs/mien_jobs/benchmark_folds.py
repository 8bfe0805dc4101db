"""What all benchmarks share: a run for each fold, done once, below one run in MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from mien.evaluate import protocols
from mien.evaluate.report import Report
from mien.media.storage import exists, join, read_bytes, write_bytes_atomically
from mien.track.tracker import NoTracker, Tracker, TrackerSpec
from mien_jobs.recipe import Recipe
from mien_jobs.tracking import tracking_uri
from mien_jobs.training import PreparedRun, prepare

FINISHED_FILE = "finished.json"
Say = Callable[[str], None]


class Result(Protocol):
    """Our scores under a protocol."""

    def report(self) -> Report:
        """Ours beside the published ones, the folds, and what differs."""

    def to_metrics(self) -> Mapping[str, float]:
        """Flat names for a tracker."""


def open_tracker(protocol: protocols.Protocol, recipe: Recipe, folder: str) -> Tracker:
    """The run of the whole benchmark, continued if there is one."""
    uri = tracking_uri(recipe.track.uri, recipe.storage)
    if uri is None:
        return NoTracker()
    tracker = TrackerSpec(
        uri=uri,
        experiment=recipe.track.experiment,
        run_name=recipe.name,
        run_key=f"benchmark {folder}",
    ).open()
    tracker.set_tags({"mien.protocol": protocol.name, "mien.method": recipe.method})
    return tracker


def prepare_fold(
    protocol: protocols.Protocol, recipe: Recipe, fold: int | None, parent_run_id: str
) -> PreparedRun:
    """The run of one fold, as a child of the benchmark's run."""
    settings: dict[str, Any] = {"split_by": "columns"} if fold is None else {"fold": fold}
    if protocol.label_set is not None:
        settings["label_set"] = protocol.label_set
    data = replace(recipe.data, **settings)
    run = prepare(replace(recipe, name=f"{recipe.name}-{fold_name(fold)}", data=data))
    tracker = run.job.tracker
    if tracker is None or not parent_run_id:
        return run
    child = replace(tracker, parent_run_id=parent_run_id)
    return replace(run, job=replace(run.job, tracker=child))


def fold_name(fold: int | None) -> str:
    """What a fold is called in tables and names of runs."""
    return "fixed" if fold is None else f"fold{fold}"


def is_finished(run: PreparedRun, fold: int | None, say: Say) -> bool:
    """Whether a fold was run and scored on the clips that it has now; tells which it is."""
    marker = join(run.job.folder, FINISHED_FILE)
    if exists(marker):
        recorded = json.loads(read_bytes(marker))["split_hash"]
        if recorded == run.data.split.content_hash:
            say(f"{fold_name(fold)}: finished already, {run.job.folder}")
            return True
    say(f"{fold_name(fold)}: {len(run.data.split.test)} test clips")
    return False


def mark_finished(run: PreparedRun) -> None:
    """Keeps a fold from being run again."""
    marker = json.dumps({"split_hash": run.data.split.content_hash}).encode()
    write_bytes_atomically(join(run.job.folder, FINISHED_FILE), marker)


def write_result(result: Result, folder: str, tracker: Tracker) -> None:
    """Report as Markdown and as a page, into the benchmark's folder and into its run."""
    report = result.report()
    for suffix, text in (("md", report.to_markdown()), ("html", report.to_html())):
        write_bytes_atomically(join(folder, f"benchmark.{suffix}"), text.encode())
    metrics = dict(result.to_metrics())
    tracker.log_metrics(metrics, 0)
    tracker.log_json("benchmark", {"metrics": metrics, "report": report.to_markdown()})
    for table in report.tables:
        rows = [dict(zip(table.head, row, strict=False)) for row in table.rows]
        tracker.log_table(f"benchmark/{table.title}", rows)
