"""A method under a published protocol: every fold one run, then one table beside published ones.

The folds are children of one MLflow run. A finished fold is not run again; a fold that was
interrupted goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mien.clips.manifest import Manifest
from mien.evaluate.folds import FoldScores, score_folds
from mien.evaluate.predictions import Predictions, read_predictions
from mien.evaluate.protocols import Protocol
from mien.evaluate.report import Report, Table
from mien.media.storage import absolute, join
from mien_jobs.benchmark_folds import (
    Say,
    fold_name,
    is_finished,
    mark_finished,
    open_tracker,
    prepare_fold,
    write_result,
)
from mien_jobs.recipe import Recipe
from mien_jobs.training import PreparedRun, run_training
from mien_jobs.unit_benchmarking import UnitBenchmarkResult, recipe_for_units, score_unit_folds


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


def run_benchmark(
    protocol: Protocol, recipe: Recipe, say: Say = print
) -> BenchmarkResult | UnitBenchmarkResult:
    """Runs every fold that is not finished, then scores all of them together.

    Args:
        protocol: the folds and scores.
        recipe: of one fold; its name gets the fold's number.
        say: where progress goes.

    Raises:
        ValueError: the manifest lacks the protocol's folds, a fold was started with other
            settings, or the method does not tell what the protocol scores.
    """
    if protocol.units:
        recipe = recipe_for_units(protocol, recipe, say)
    folds = protocol.folds_of(Manifest.read(recipe.data.manifest))
    folder = join(absolute(recipe.storage), recipe.name)
    tracker = open_tracker(protocol, recipe, folder)
    try:
        runs = {fold: prepare_fold(protocol, recipe, fold, tracker.run_id) for fold in folds}
        score = score_unit_folds if protocol.units else _score_class_folds
        result = score(protocol, recipe, runs, say)
        write_result(result, folder, tracker)
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish()
    return result


def _score_class_folds(
    protocol: Protocol, recipe: Recipe, runs: Mapping[int | None, PreparedRun], say: Say
) -> BenchmarkResult:
    found = {fold: _fold_predictions(run, fold, say) for fold, run in runs.items()}
    return BenchmarkResult(
        protocol=protocol,
        recipe=recipe,
        scores=score_folds({fold_name(fold): one for fold, one in found.items()}),
        modality=next(iter(found.values())).modalities[0],
        test_sizes={fold: _num_clips(one) for fold, one in found.items()},
    )


def _fold_predictions(run: PreparedRun, fold: int | None, say: Say) -> Predictions:
    """A fold's test predictions; runs it unless it has finished."""
    location = join(run.job.folder, "predictions-test.parquet")
    if not is_finished(run, fold, say):
        run_training(run, say)
        mark_finished(run)
    return read_predictions(location)


def _num_clips(predictions: Predictions) -> int:
    return len(predictions.labelled().of_modality(predictions.modalities[0]))
