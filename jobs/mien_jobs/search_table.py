"""What a search shows while it runs: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

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
_STATES = {"complete": "done", "pruned": "stopped", "failed": "FAILED", "running": "running"}


class SearchTable:
    """A :class:`mien.search.on_tune.Watcher` for people."""

    def __init__(self, study: SearchStudy) -> None:
        self._study, self._plan = study, study.plan
        self._console = Console()
        self._latest: dict[int, str] = {}
        self._began = time.monotonic()
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> SearchTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

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
        self._say(f"trial {trial.number}: {ending(trial, self._plan)}; {self._outlook()}")

    def _say(self, line: str) -> None:
        if self._console.is_terminal:
            self._refresh()
        else:
            print(line, flush=True)

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
        table = Table(box=box.SIMPLE_HEAD, title=self._outlook(), title_justify="left")
        columns = ("trial", "state", *(o.metric for o in self._plan.objectives), "epochs")
        for name in (*columns, *self._study.space.names):
            table.add_column(Text(name), no_wrap=True)
        for trial in (t for t in records if t.number in chosen):
            scores = [f"{s:.4f}" for s in trial.scores or ()] or [
                self._latest.get(trial.number, "")
            ]
            scores += [""] * (len(self._plan.objectives) - len(scores))
            cells = [str(trial.number), _STATES.get(trial.state, trial.state), *scores]
            cells.append(str(len(trial.curve) or ""))
            cells += [
                shown(trial.values[n]) if n in trial.values else "" for n in self._study.space.names
            ]
            style = "bold green" if trial.number in best else ""
            table.add_row(*(Text(cell) for cell in cells), style=style)
        return table


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
