"""A method under a published protocol: every fold one run, then one table beside published ones.

The folds are children of one MLflow run. A finished fold is not run again; a fold that was
interrupted goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mien.clips.manifest import Manifest
from mien.evaluate.folds import FoldScores, score_folds
from mien.evaluate.predictions import Predictions, read_predictions
from mien.evaluate.protocols import Protocol
from mien.evaluate.report import Report, Table
from mien.media.storage import absolute, exists, join, read_bytes, write_bytes_atomically
from mien.track.tracker import NoTracker, Tracker, TrackerSpec
from mien_jobs.recipe import Recipe
from mien_jobs.tracking import tracking_uri
from mien_jobs.training import PreparedRun, prepare, run_training

FINISHED_FILE = "finished.json"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Our scores under a protocol."""

    protocol: Protocol
    recipe: Recipe
    scores: FoldScores
    modality: str
    test_sizes: Mapping[int | None, int]

    def report(self) -> Report:
        """Ours beside the published ones, the folds, and what differs."""
        convention = "mean of folds" if self.protocol.num_folds else "fixed split"
        lead = [f"{self._headline()} ({convention}; {self.recipe.method}, {self.modality})."]
        deviations = self.protocol.deviations(self.test_sizes)
        tables = [self._comparison(convention)]
        tables += [self._folds()] if self.protocol.num_folds else []
        rows = [[line] for line in deviations] or [["none is known"]]
        tables.append(Table(title="Deviations from the published protocol", head=[""], rows=rows))
        title = f"{self.protocol.name}: {self.recipe.name}"
        return Report(title=title, lead=lead, tables=tables)

    def to_metrics(self) -> dict[str, float]:
        """Flat names for a tracker."""
        return {
            f"benchmark/{score}{suffix}": value
            for score in ("uar", "war", "macro_f1")
            for suffix, value in (
                ("_fold_mean", self.scores.mean(score)),
                ("_fold_sd", self.scores.deviation(score)),
                ("_pooled", getattr(self.scores.pooled, score)),
            )
        }

    def _headline(self) -> str:
        name = self.protocol.scores[0]
        spread = f" (sd {100 * self.scores.deviation(name):.2f})" * bool(self.protocol.num_folds)
        return f"{name.upper()} {100 * self.scores.mean(name):.2f} %{spread}"

    def _comparison(self, convention: str) -> Table:
        names = self.protocol.scores
        ours = [
            [f"{100 * self.scores.mean(name):.2f}" for name in names],
            [f"{100 * getattr(self.scores.pooled, name):.2f}" for name in names],
        ]
        rows = [[f"{self.recipe.name} (ours)", self.modality, *ours[0], f"this run, {convention}"]]
        if self.protocol.num_folds:
            rows.append([f"{self.recipe.name} (ours)", self.modality, *ours[1], "this run, pooled"])
        for row in self.protocol.published:
            shown = [f"{row.scores[n]:.2f}" if n in row.scores else "-" for n in names]
            rows.append([row.method, row.inputs, *shown, row.source])
        head = ["method", "input", *(name.upper() for name in names), "source"]
        note = "Per cent. Published figures were read where their source says, not run by us."
        return Table(title="Beside published results", head=head, rows=rows, note=note)

    def _folds(self) -> Table:
        rows = [
            [name, str(one.num_clips), *(f"{100 * getattr(one, s):.2f}" for s in ("uar", "war"))]
            for name, one in self.scores.by_fold.items()
        ]
        return Table(title="Folds", head=["fold", "clips", "UAR", "WAR"], rows=rows)


def run_benchmark(protocol: Protocol, recipe: Recipe, say: Say = print) -> BenchmarkResult:
    """Runs every fold that is not finished, then scores all of them together.

    Args:
        protocol: the folds and scores.
        recipe: of one fold; its name gets the fold's number.
        say: where progress goes.

    Raises:
        ValueError: the manifest lacks the protocol's folds, or a fold was started with other
            settings.
    """
    if protocol.label_set is None:
        raise ValueError(
            f"protocol {protocol.name} scores action units, which `mien benchmark` can't run yet; "
            "train fold by fold (data.fold=1 ...) and score with mien.evaluate.action_units"
        )
    folds = protocol.folds_of(Manifest.read(recipe.data.manifest))
    folder = join(absolute(recipe.storage), recipe.name)
    tracker = _open_tracker(protocol, recipe, folder)
    try:
        found: dict[str, Predictions] = {}
        for fold in folds:
            run = _prepare_fold(protocol, recipe, fold, tracker.run_id)
            found[_fold_name(fold)] = _fold_predictions(run, fold, say)
        result = BenchmarkResult(
            protocol=protocol,
            recipe=recipe,
            scores=score_folds(found),
            modality=next(iter(found.values())).modalities[0],
            test_sizes={fold: _num_clips(found[_fold_name(fold)]) for fold in folds},
        )
        _write(result, folder, tracker)
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish()
    return result


def _open_tracker(protocol: Protocol, recipe: Recipe, folder: str) -> Tracker:
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


def _prepare_fold(
    protocol: Protocol, recipe: Recipe, fold: int | None, parent_run_id: str
) -> PreparedRun:
    """The run of one fold, as a child of the benchmark's run."""
    settings: dict[str, Any] = {"label_set": protocol.label_set}
    settings |= {"split_by": "columns"} if fold is None else {"fold": fold}
    data = replace(recipe.data, **settings)
    run = prepare(replace(recipe, name=f"{recipe.name}-{_fold_name(fold)}", data=data))
    tracker = run.job.tracker
    if tracker is None or not parent_run_id:
        return run
    child = replace(tracker, parent_run_id=parent_run_id)
    return replace(run, job=replace(run.job, tracker=child))


def _fold_predictions(run: PreparedRun, fold: int | None, say: Say) -> Predictions:
    """A fold's test predictions; runs it unless it has finished."""
    marker = join(run.job.folder, FINISHED_FILE)
    location = join(run.job.folder, "predictions-test.parquet")
    if exists(marker):
        recorded = json.loads(read_bytes(marker))["split_hash"]
        if recorded == run.data.split.content_hash:
            say(f"{_fold_name(fold)}: finished already, {run.job.folder}")
            return read_predictions(location)
    say(f"{_fold_name(fold)}: {len(run.data.split.test)} test clips")
    run_training(run, say)
    write_bytes_atomically(marker, json.dumps({"split_hash": run.data.split.content_hash}).encode())
    return read_predictions(location)


def _fold_name(fold: int | None) -> str:
    return "fixed" if fold is None else f"fold{fold}"


def _num_clips(predictions: Predictions) -> int:
    return len(predictions.labelled().of_modality(predictions.modalities[0]))


def _write(result: BenchmarkResult, folder: str, tracker: Tracker) -> None:
    report = result.report()
    for suffix, text in (("md", report.to_markdown()), ("html", report.to_html())):
        write_bytes_atomically(join(folder, f"benchmark.{suffix}"), text.encode())
    tracker.log_metrics(result.to_metrics(), 0)
    tracker.log_json("benchmark", {"metrics": result.to_metrics(), "report": report.to_markdown()})
    for table in report.tables:
        rows = [dict(zip(table.head, row, strict=False)) for row in table.rows]
        tracker.log_table(f"benchmark/{table.title}", rows)
