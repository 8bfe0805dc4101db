"""The study: every trial of a search, in an SQL data base, through Optuna.

It is the one truth about a search. What was drawn is in it before a trial starts, what a trial
reports is in it before the trial goes on, and how a trial ended is in it before the next is drawn;
so whatever is killed, opening the study again tells which trials ended, which were under way (they
are handed out again, first, under their old numbers) and what the sampler and pruner had seen.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mien.search.plan import SearchError, SearchPlan
from mien.search.samplers import make_pruner, make_sampler
from mien.search.space import Space, Value

State = Literal["waiting", "running", "complete", "pruned", "failed"]
Check = Callable[[Mapping[str, Value]], str | None]
"""Why a trial can't be run with these values; None: it can."""

MAX_REDRAWS = 60
"""Draws in a row that are refused before the search is said to be over."""
_REFUSED, _REASON, _LAST, _SECONDS, _SEARCHED = "refused", "reason", "last", "seconds", "searched_s"
_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """What is known of a trial."""

    number: int
    state: State
    values: Mapping[str, Value]
    """The searched settings that were drawn for it."""
    scores: tuple[float, ...] | None
    """One for each objective; None until it is complete."""
    curve: tuple[float, ...]
    """What it reported, in order."""
    reason: str = ""
    """Why it failed."""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the trial itself said of its result."""


class SearchStudy:
    """A search's trials. Only one process may hold a study open for searching.

    Args:
        url: of the data base, as SQLAlchemy reads it (``sqlite:////folder/study.db``,
            ``postgresql://user@host/name``); None: kept in memory only.
        name: of the study; several may share a data base.
        plan: how the space is searched.
        space: what is searched.
        check: looks at every draw before it becomes a trial.

    Raises:
        SearchError: the data base can't be reached, or its driver is not installed.
    """

    def __init__(
        self,
        url: str | None,
        name: str,
        plan: SearchPlan,
        space: Space,
        check: Check = lambda _: None,
    ) -> None:
        self.plan, self.space, self._check = plan, space, check
        plan.check_space(space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A dozen lines about new tables.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            self.optuna_study = optuna.create_study(
                storage=None if url is None else optuna.storages.RDBStorage(url),
                study_name=name,
                directions=[objective.goal for objective in plan.objectives],
                pruner=make_pruner(plan),
                load_if_exists=True,
            )
        except ImportError as error:
            raise SearchError(f"{_shown(url)}: {error}; pip install 'mien[search]'") from error
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError, ValueError) as error:
            raise SearchError(
                f"the study's data base {_shown(url)} can't be used: {str(error).splitlines()[0]}"
            ) from error
        with warnings.catch_warnings():
            # What other tools that open the study call its objectives.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna_study.set_metric_names([item.metric for item in plan.objectives])
        self._stale = [t.number for t in self._trials() if t.state == TrialState.RUNNING]
        self._searched_s = float(self.optuna_study.user_attrs.get(_SEARCHED, 0.0))
        if plan.sampler == "grid":
            self.enqueue(space.grid(), label="grid")

    def enqueue(self, rows: Any, *, label: str) -> int:
        """Puts settings before everything that the sampler would draw, each once per label.

        Returns:
            How many there are with this label.

        Raises:
            SearchError: settings that are not of the space.
        """
        known = {t.user_attrs.get(label) for t in self._trials()}
        count = 0
        for index, row in enumerate(rows):
            count += 1
            wrong = self.space.misfit(row)
            if wrong:
                raise SearchError(f"settings to try first ({label}) don't fit the space: {wrong}")
            if index not in known:
                self.optuna_study.enqueue_trial(dict(row), user_attrs={label: index})
        return count

    def next_trial(self) -> TrialRecord | None:
        """A trial to run now; None when the search is over or its budget is spent.

        Trials that were under way when the study was opened come first.
        """
        if self._stale:
            return self._draw(self._stale.pop(0))
        for _ in range(MAX_REDRAWS):
            if self.why_over():
                return None
            self.optuna_study.sampler = make_sampler(self.plan, self._count_all())
            drawn = self._draw(self.optuna_study.ask().number)
            wrong = self._repeated(drawn) or self._check(drawn.values)
            if wrong is None:
                return drawn
            self._set(drawn.number, _REFUSED, wrong)
            self._tell(drawn.number, state=TrialState.FAIL)
        return None

    def why_over(self) -> str | None:
        """Why no more trials are drawn; None while there are some to draw."""
        plan, counted = self.plan, self.records()
        failed = [trial for trial in counted if trial.state == "failed"]
        if len(failed) > plan.max_failed:
            return f"{len(failed)} trials failed (limit {plan.max_failed})"
        started = [trial for trial in counted if trial.state != "waiting"]
        if len(started) >= plan.trials:
            return f"{plan.trials} trials"
        if plan.sampler == "grid" and len(started) == len(counted):
            return "the grid is complete"
        if plan.hours is not None and self._searched_s >= plan.hours * 3600:
            return f"{plan.hours:g} hours are over"
        held = sum(trial.seconds for trial in counted) * plan.gpus / 3600
        if plan.gpu_hours is not None and held >= plan.gpu_hours:
            return f"{plan.gpu_hours:g} GPU-hours are spent"
        return None

    def report(self, number: int, place: Sequence[float], value: float) -> bool:
        """A value of a running trial; returns whether the trial should be stopped early.

        Args:
            number: of the trial.
            place: where in its work it stands; a place that is not behind the last one was
                reported before the trial was started again, and is ignored.
            value: of the only objective.
        """
        trial = self._live(number)
        known = trial._cached_frozen_trial
        if list(place) <= list(known.user_attrs.get(_LAST, [])):
            return False
        trial.report(value, len(known.intermediate_values) + 1)
        trial.set_user_attr(_LAST, list(place))
        return bool(self._live(number).should_prune())

    def complete(self, number: int, scores: Sequence[float], facts: Mapping[str, Any]) -> None:
        """A trial came to its end."""
        for name, value in facts.items():
            self._set(number, name, value)
        self._tell(number, values=list(scores), state=TrialState.COMPLETE)

    def prune(self, number: int) -> None:
        """A trial was stopped early."""
        self._tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """A trial failed for good."""
        self._set(number, _REASON, reason)
        self._tell(number, state=TrialState.FAIL)

    def decide(self, what: str, now: str) -> str:
        """A choice that holds for the whole search: what was chosen at its start, else this."""
        name = f"decided:{what}"
        if name not in self.optuna_study.user_attrs:
            self.optuna_study.set_user_attr(name, now)
        return str(self.optuna_study.user_attrs[name])

    def spend(self, number: int, seconds: float) -> None:
        """Adds to the time that a trial ran for."""
        before = self._frozen(number).user_attrs.get(_SECONDS, 0.0)
        self._set(number, _SECONDS, before + seconds)

    def spend_search(self, seconds: float) -> None:
        """Adds to the time that was searched for."""
        self._searched_s += seconds
        self.optuna_study.set_user_attr(_SEARCHED, self._searched_s)

    @property
    def searched_s(self) -> float:
        """Seconds of search over all restarts."""
        return self._searched_s

    def refused(self) -> list[str]:
        """Why draws did not become trials."""
        return [t.user_attrs[_REFUSED] for t in self._trials() if _REFUSED in t.user_attrs]

    def records(self) -> list[TrialRecord]:
        """All trials by number, without draws that were refused."""
        return [_record(t) for t in self._trials() if _REFUSED not in t.user_attrs]

    def best(self) -> list[TrialRecord]:
        """The best complete trial; of two objectives, every trial that no other one beats."""
        numbers = {trial.number for trial in self.optuna_study.best_trials}
        found = [trial for trial in self.records() if trial.number in numbers]
        return found if len(self.plan.objectives) > 1 else found[:1]

    def _draw(self, number: int) -> TrialRecord:
        self.space.suggest(self._live(number))
        return _record(self._frozen(number))

    def _repeated(self, drawn: TrialRecord) -> str | None:
        """A trial is a function of its settings, so the same settings would give the same again."""
        for other in self.records():
            if other.number < drawn.number and other.values == drawn.values:
                return f"the same settings as trial {other.number}"
        return None

    def _live(self, number: int) -> optuna.trial.Trial:
        self.optuna_study.sampler = make_sampler(self.plan, number)
        return optuna.trial.Trial(self.optuna_study, self._frozen(number)._trial_id)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._trials()[number]

    def _trials(self) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self.optuna_study.get_trials(deepcopy=False)
        return trials

    def _count_all(self) -> int:
        return len(self._trials())

    def _set(self, number: int, name: str, value: Any) -> None:
        storage = self.optuna_study._storage
        storage.set_trial_user_attr(self._frozen(number)._trial_id, name, value)

    def _tell(
        self, number: int, *, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        self.optuna_study.tell(number, values=values, state=state, skip_if_finished=True)


def _shown(url: str | None) -> str:
    """A data base without its user and password."""
    return str(url).rpartition("@")[2]


def _record(trial: FrozenTrial) -> TrialRecord:
    own = {_REASON, _SECONDS, _LAST, _REFUSED}
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        values=trial.params,
        scores=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        curve=tuple(value for _, value in sorted(trial.intermediate_values.items())),
        reason=str(trial.user_attrs.get(_REASON, "")),
        seconds=float(trial.user_attrs.get(_SECONDS, 0.0)),
        facts={name: value for name, value in trial.user_attrs.items() if name not in own},
    )
