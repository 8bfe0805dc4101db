"""What a search shows while it runs: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mien.search.plan import SearchPlan
from mien.search.space import shown
from mien.search.study import SearchStudy, TrialRecord

_ROWS = 14
"""Trials that the live table shows: running ones, the best, the newest."""
_BETWEEN = 3
"""Blanks between two columns, and before the first."""
_STATES = {"complete": "done", "pruned": "stopped", "failed": "FAILED", "running": "running"}


class SearchTable:
    """A :class:`mien.search.on_tune.Watcher` for people."""

    def __init__(self, study: SearchStudy, console: Console | None = None) -> None:
        self._study, self._plan = study, study.plan
        self._console = console or Console()
        self._latest: dict[int, str] = {}
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> SearchTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def print_once(self) -> None:
        """Prints the table as it is now."""
        self._console.print(self._table())

    def started(self, trial: TrialRecord) -> None:
        """See :class:`mien.search.on_tune.Watcher`."""
        again = ", goes on" if trial.curve else ""
        self._say(f"trial {trial.number}: {settings_line(trial)}{again}")

    def reported(self, number: int, metrics: Mapping[str, float]) -> None:
        """See :class:`mien.search.on_tune.Watcher`."""
        value = metrics.get(self._plan.objectives[0].metric)
        if value is not None:
            self._latest[number] = f"{value:.3f}"
        self._refresh()

    def ended(self, trial: TrialRecord) -> None:
        """See :class:`mien.search.on_tune.Watcher`."""
        line = f"trial {trial.number}: {ending(trial, self._plan)}; {self._outlook()}"
        self._say(line, stays=trial.state == "failed")

    def _say(self, line: str, *, stays: bool = False) -> None:
        """A line of a log; on a terminal, where the table tells it, only if it has to stay."""
        if not self._console.is_terminal:
            print(line, flush=True)
            return
        if stays:
            self._console.print(Text(line))
        self._refresh()

    def _refresh(self) -> None:
        if self._console.is_terminal:
            self._live.update(self._table())

    def _outlook(self) -> str:
        """Best so far, how many are done, and the time left at the pace so far."""
        records = self._study.records()
        done = [t for t in records if t.state not in ("running", "waiting")]
        best = self._study.best()
        text = f"{len(done)}/{self._plan.trials} done"
        if best and best[0].scores is not None and len(self._plan.objectives) == 1:
            text += f", best {best[0].scores[0]:.4f} (trial {best[0].number})"
        elif best:
            text += f", {len(best)} on the front"
        if done and len(done) < self._plan.trials:
            left_s = (self._plan.trials - len(done)) * self._study.searched_s / len(done)
            text += f", about {duration(left_s)} left"
        return text

    def _table(self) -> Table:
        records = self._study.records()
        best = {trial.number for trial in self._study.best()}
        running = [t for t in records if t.state == "running"]
        rest = [t for t in records if t.state != "running" and t.number not in best]
        chosen = {t.number for t in [*running, *rest[-(_ROWS - len(running) - len(best)) :]]} | best
        shown_trials = [trial for trial in records if trial.number in chosen]
        table = Table(box=box.SIMPLE_HEAD, title=self._outlook(), title_justify="left")
        for name in ("trial", "state", *(o.metric for o in self._plan.objectives), "epochs"):
            table.add_column(Text(name), no_wrap=True, min_width=len(name))
        settings = self._settings_columns(shown_trials)
        for name in settings:
            table.add_column(Text(name), overflow="fold")
        for row, trial in enumerate(shown_trials):
            is_best = trial.number in best
            cells = [
                *self._result_cells(trial, is_best),
                *(cells[row] for cells in settings.values()),
            ]
            table.add_row(*map(Text, cells), style="bold green" if is_best else "")
        return table

    def _result_cells(self, trial: TrialRecord, is_best: bool) -> list[str]:
        state = "best" if is_best else _STATES.get(trial.state, trial.state)
        scores = [f"{s:.4f}" for s in trial.scores or ()] or [self._latest.get(trial.number, "")]
        scores += [""] * (len(self._plan.objectives) - len(scores))
        return [str(trial.number), state, *scores, str(len(trial.curve) or "")]

    def _settings_columns(self, trials: Sequence[TrialRecord]) -> dict[str, list[str]]:
        """A column a setting; where they don't fit beside each other, one column for all."""
        names = self._study.space.names
        columns = {
            heading: [shown(t.values[name]) if name in t.values else "" for t in trials]
            for heading, name in zip(short_names(names), names, strict=True)
        }
        results = ("trial", "running", "epochs", *(o.metric for o in self._plan.objectives))
        widths = [max(map(len, (heading, *cells))) for heading, cells in columns.items()]
        widths += map(len, results)
        if sum(widths) + _BETWEEN * len(widths) <= self._console.width:
            return columns
        lines = [
            " ".join(f"{heading}={cells[row]}" for heading, cells in columns.items() if cells[row])
            for row in range(len(trials))
        ]
        return {"settings": lines}


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names, if they still tell them apart."""
    last = [name.rpartition(".")[2] for name in names]
    return last if len(set(last)) == len(last) else list(names)


def ending(trial: TrialRecord, plan: SearchPlan) -> str:
    """How a trial ended."""
    if trial.scores is not None:
        figures = [
            f"{o.metric} {score:.4f}"
            for o, score in zip(plan.objectives, trial.scores, strict=True)
        ]
        return f"{', '.join(figures)} ({duration(trial.seconds)})"
    if trial.state == "pruned":
        last = f" at {trial.curve[-1]:.4f}" if trial.curve else ""
        return f"stopped early after {len(trial.curve)} reports{last}"
    return f"FAILED: {trial.reason}"


def settings_line(trial: TrialRecord) -> str:
    """A trial's settings on a line."""
    return " ".join(f"{name}={shown(value)}" for name, value in trial.values.items())


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
