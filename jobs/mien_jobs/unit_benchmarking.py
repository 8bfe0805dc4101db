"""Action units under a published protocol: folds trained, their sampled frames scored."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mien.evaluate.action_units import ActionUnitScores, score_action_units
from mien.evaluate.protocols import Protocol
from mien.evaluate.report import Report, Table
from mien.media.storage import exists, join, read_bytes
from mien.train.validate import UNIT_METRIC
from mien_jobs.benchmark_folds import Say, fold_name, is_finished, mark_finished
from mien_jobs.evaluation_results import frames_file
from mien_jobs.overrides import OverrideError, apply_overrides
from mien_jobs.recipe import Recipe
from mien_jobs.split_predictions import NothingToScoreError
from mien_jobs.training import PreparedRun, run_training
from mien_jobs.unit_scores import read_and_coded


@dataclass(frozen=True, kw_only=True)
class UnitBenchmarkResult:
    """Our F1 of action units under a protocol; folds in the order in which they were run."""

    protocol: Protocol
    recipe: Recipe
    scores: ActionUnitScores

    def report(self) -> Report:
        """Ours beside the published ones unit by unit, the folds, and what differs."""
        mean = 100 * self.scores.fold_mean_f1
        over = "folds and units" if self.protocol.num_folds else "units, fixed split"
        lead = [f"AU F1 {mean:.2f} % (mean of {over}; {self.recipe.method})."]
        deviations = [[line] for line in self.protocol.deviations({})]
        title = "Deviations from the published protocol"
        tables = [self._comparison(), self._folds(), self.scores.table()]
        tables.append(Table(title=title, head=[""], rows=deviations or [["none is known"]]))
        return Report(title=f"{self.protocol.name}: {self.recipe.name}", lead=lead, tables=tables)

    def to_metrics(self) -> dict[str, float]:
        """Flat names for a tracker."""
        of_units = {name: self.scores.fold_mean_of(name) for name in self.protocol.units}
        return {
            "benchmark/au_f1_fold_mean": self.scores.fold_mean_f1,
            "benchmark/au_f1_pooled": self.scores.pooled_f1,
            **{f"benchmark/au_f1/{name}": f1 for name, f1 in of_units.items() if f1 is not None},
        }

    def _comparison(self) -> Table:
        units = self.protocol.units
        ours = f"{self.recipe.name} (ours)"
        by_fold = [self.scores.fold_mean_of(name) for name in units]
        pooled = [unit.f1 for unit in self.scores.pooled]
        rows = [[ours, *_shown([*pooled, self.scores.pooled_f1]), "this run, pooled"]]
        if self.protocol.num_folds:
            folds = _shown([*by_fold, self.scores.fold_mean_f1])
            rows.insert(0, [ours, *folds, "this run, mean of folds"])
        for row in self.protocol.published:
            known = [f"{row.by_unit[n]:.1f}" if n in row.by_unit else "-" for n in units]
            rows.append([row.method, *known, f"{row.scores['au_f1']:.1f}", row.source])
        note = (
            "F1 of the positive class in per cent, at a probability of 0.5. Published figures were "
            "read where their source says, not run by us."
        )
        head = ["method", *units, "mean", "source"]
        return Table(title="Beside published results", head=head, rows=rows, note=note)

    def _folds(self) -> Table:
        rows = []
        for name, units in self.scores.by_fold.items():
            frames = max(unit.num_coded for unit in units)
            rows.append([name, str(frames), *_shown([self.scores.fold_f1(name)])])
        return Table(title="Folds", head=["fold", "coded frames", "F1, mean of units"], rows=rows)


def recipe_for_units(protocol: Protocol, recipe: Recipe, say: Say) -> Recipe:
    """The recipe with the units, their threshold and the choice of the epoch that belong to it.

    Raises:
        ValueError: the method reads out no action units.
    """
    settings = [
        f"config.units.names={','.join(protocol.units)}",
        f"config.units.present_from={protocol.present_from}",
        f"train.select={UNIT_METRIC}",
    ]
    try:
        changed = apply_overrides(recipe, settings)
    except OverrideError as error:
        raise ValueError(
            f"protocol {protocol.name} scores action units, which {recipe.method} does not read "
            f"out ({error}); take clp"
        ) from error
    say(f"set by the protocol: {' '.join(settings)}")
    return changed


def score_unit_folds(
    protocol: Protocol, recipe: Recipe, runs: Mapping[int | None, PreparedRun], say: Say
) -> UnitBenchmarkResult:
    """Trains and scores every fold that is not finished, then all of them together.

    Raises:
        NothingToScoreError: the test part of a fold has no coded frame.
    """
    frames = {fold_name(fold): _frames(protocol, run, fold, say) for fold, run in runs.items()}
    arrays = {
        name: read_and_coded(table, protocol.units, protocol.present_from)
        for name, table in frames.items()
    }
    scores = score_action_units(arrays, protocol.units)
    return UnitBenchmarkResult(protocol=protocol, recipe=recipe, scores=scores)


def _frames(protocol: Protocol, run: PreparedRun, fold: int | None, say: Say) -> pa.Table:
    """Every sampled frame of a fold's test clips, read and coded."""
    location = join(run.job.folder, frames_file("test"))
    if not is_finished(run, fold, say):
        run_training(run, say)
        if not exists(location):
            raise NothingToScoreError(
                f"no frame of the test part of {fold_name(fold)} is coded for "
                f"{', '.join(protocol.units)}; fill the manifest's column action_units"
            )
        mark_finished(run)
    return pq.read_table(io.BytesIO(read_bytes(location)))


def _shown(shares: list[float | None]) -> list[str]:
    return ["-" if share is None else f"{100 * share:.2f}" for share in shares]
