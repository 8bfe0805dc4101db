"""A search on Ray Tune: trials on whatever the cluster has free, the study asked at every turn.

Tune places trials, starts a trial again whose process died, and stops those that the study says
are not worth going on with. It remembers nothing for us: a search that goes on is a new Tune run
over the same study, so nothing of Tune's files is ever read back.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from mien.media.storage import join
from mien.search.plan import SearchError
from mien.search.space import Value
from mien.search.study import SearchStudy, TrialRecord

Report = Callable[[Mapping[str, float]], None]
RunTrial = Callable[["TrialCall"], "TrialOutcome"]

_QUIET_TUNE = {
    # Our own files and our own table.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Nothing is read back from Tune's snapshots.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # One trial is drawn ahead at most: a later draw knows more.
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    # An interrupt ends the search at once; trials under way are handed out again by the study.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
_OUTCOME, _FAILED = "mien_outcome", "mien_failed"


@dataclass(frozen=True, kw_only=True)
class TrialCall:
    """What a trial is asked to do."""

    number: int
    values: Mapping[str, Value]
    report: Report
    """Takes the metrics of every epoch, with ``stage`` and ``epoch``; may end the process."""


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """What came out of a trial."""

    scores: tuple[float, ...]
    """One for each objective."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values to keep with the trial."""


class Watcher(Protocol):
    """Somebody who watches a search."""

    def started(self, trial: TrialRecord) -> None:
        """A trial was drawn, or goes on after a restart, and starts as soon as there is room."""

    def reported(self, number: int, metrics: Mapping[str, float]) -> None:
        """A trial finished an epoch."""

    def ended(self, trial: TrialRecord) -> None:
        """A trial is complete, was stopped early, or failed."""


def run_search(
    study: SearchStudy,
    run_trial: RunTrial,
    *,
    folder: str,
    resources: Mapping[str, float],
    watcher: Watcher,
    nodes: Mapping[str, str] | None = None,
    keep_processes: bool = True,
) -> str:
    """Runs trials until the study hands out no more; Ray must be running.

    Args:
        study: says which trials to run, and keeps what comes of them.
        run_trial: one trial, in a process of its own; must be picklable. An exception of its is a
            failed trial and does not end the search.
        folder: where Tune may write.
        resources: what a trial's process reserves.
        watcher: told of everything.
        nodes: labels that the trials' nodes must have; None: any node.
        keep_processes: whether a process goes on to the next trial, which saves its start. One
            that waits for workers of its own has to end for them to end with it.

    Returns:
        Why the search is over.

    Raises:
        SearchError: more trials failed than may.
    """
    os.environ.update(_QUIET_TUNE)
    # It writes tracebacks of trials that died, which the study reports in a line each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    plan = study.plan
    ledger = _Ledger(study, plan.objectives[0].metric, watcher)
    place = tune.PlacementGroupFactory(
        [dict(resources)], bundle_label_selector=[dict(nodes)] if nodes else None
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_tune_trial, run_trial=run_trial), place),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=_StudySearcher(ledger),
            scheduler=_StudyScheduler(ledger),
            max_concurrent_trials=plan.concurrent,
            reuse_actors=keep_processes,
        ),
        run_config=tune.RunConfig(
            name=str(time.time_ns()),
            storage_path=join(folder, "ray"),
            failure_config=tune.FailureConfig(max_failures=plan.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[_Deaths(ledger)],
            verbose=0,
        ),
    )
    tuner.fit()
    ledger.count_time()
    _refuse_too_many_failures(study)
    return study.why_over() or "nothing new to try: every combination was drawn or refused"


def _refuse_too_many_failures(study: SearchStudy) -> None:
    failed = [trial for trial in study.records() if trial.state == "failed"]
    limit = study.plan.max_failed
    if len(failed) > limit:
        reasons = "; ".join(f"trial {trial.number}: {trial.reason}" for trial in failed[:3])
        raise SearchError(
            f"{len(failed)} trials failed (limit {limit}): {reasons}. Correct the cause and go on "
            f"with `mien tune --resume NAME --max-failed {limit + len(failed)}`"
        )


def _tune_trial(config: dict[str, Any], run_trial: RunTrial) -> None:
    """What Tune runs in a trial's process."""

    def report(metrics: Mapping[str, float]) -> None:
        tune.report(dict(metrics))

    try:
        outcome = run_trial(
            TrialCall(number=config["number"], values=config["values"], report=report)
        )
    except Exception as error:  # said to the study; Tune would start the trial again
        tune.report({_FAILED: f"{type(error).__name__}: {error}"})
        return
    # As one text: Tune takes nested values apart.
    tune.report({_OUTCOME: json.dumps({"scores": outcome.scores, "facts": dict(outcome.facts)})})


class _Ledger:
    """Writes into the study what Tune says, each trial's end once."""

    def __init__(self, study: SearchStudy, metric: str, watcher: Watcher) -> None:
        self.study, self._metric, self._watcher = study, metric, watcher
        self._started: dict[int, float] = {}
        self._counted = time.monotonic()

    def draw(self) -> TrialRecord | None:
        self.count_time()
        drawn = self.study.next_trial()
        if drawn is not None:
            self._watcher.started(drawn)
        return drawn

    def count_time(self) -> None:
        """Adds the time since the last call to the time of the search."""
        now = time.monotonic()
        self.study.spend_search(now - self._counted)
        self._counted = now

    def result(self, number: int, result: Mapping[str, Any]) -> bool:
        """Takes a report; returns whether the trial should stop."""
        self._started.setdefault(number, time.monotonic())
        if _OUTCOME in result:
            outcome = json.loads(result[_OUTCOME])
            self._spend(number)
            self.study.complete(number, outcome["scores"], outcome["facts"])
            self._tell(number)
        elif _FAILED in result:
            self.failed(number, str(result[_FAILED]))
        elif self._metric in result:
            self._watcher.reported(number, _metrics(result))
            if len(self.study.plan.objectives) > 1:
                return False
            place = (result.get("fold", 0.0), result.get("stage", 0.0), result.get("epoch", 0.0))
            if self.study.report(number, place, float(result[self._metric])):
                self._spend(number)
                self.study.prune(number)
                self._tell(number)
                return True
        return False

    def failed(self, number: int, reason: str) -> None:
        self._spend(number)
        self.study.fail(number, reason)
        self._tell(number)

    def _spend(self, number: int) -> None:
        began = self._started.pop(number, None)
        if began is not None:
            self.study.spend(number, time.monotonic() - began)

    def check_ended(self, number: int) -> None:
        """A trial that ended without saying how would otherwise be forgotten."""
        if self._record(number).state == "running":
            self.failed(number, "it ended without a result")

    def begin(self, number: int) -> None:
        """A trial's process starts with it."""
        self._started[number] = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles all that it holds; nothing of it is read back.
        return {}

    def _tell(self, number: int) -> None:
        self.count_time()
        self._watcher.ended(self._record(number))

    def _record(self, number: int) -> TrialRecord:
        return next(trial for trial in self.study.records() if trial.number == number)


class _StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's question for the next trial, passed on to the study."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def suggest(self, trial_id: str) -> Any:
        drawn = self._ledger.draw()
        if drawn is None:
            return Searcher.FINISHED
        return {"number": drawn.number, "values": dict(drawn.values)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The scheduler has told the study."""

    def save(self, checkpoint_path: str) -> None:
        """The study is in its data base."""

    def restore(self, checkpoint_path: str) -> None:
        """The study is in its data base."""

    def get_state(self) -> dict[str, Any]:
        return {}


class _StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in order, and stops those that the study gives up."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        chosen = super().choose_trial_to_run(tune_controller)
        if chosen is not None:
            self._ledger.begin(chosen.config["number"])
        return chosen

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        should_stop = self._ledger.result(trial.config["number"], result)
        return str(TrialScheduler.STOP if should_stop else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._ledger.check_ended(trial.config["number"])

    def save(self, checkpoint_path: str) -> None:
        """The study is in its data base."""


class _Deaths(tune.Callback):  # type: ignore[misc]
    """Hears of trials whose process died more often than it may (the scheduler hears of each)."""

    def __init__(self, ledger: _Ledger) -> None:
        self._ledger = ledger

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        died = trial.num_failures
        self._ledger.failed(trial.config["number"], f"its process died {died} times: {_why(trial)}")


def _why(trial: Trial) -> str:
    lines = str(trial.get_error() or "").splitlines()
    found = [line for line in lines if line.strip() and not line[0].isspace()]
    return (found[-1] if found else "unknown")[:300]


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """What the trial reported, without what Tune adds."""
    return {
        name: float(value)
        for name, value in result.items()
        if "/" in name and not name.startswith("config/") and isinstance(value, int | float)
    }
