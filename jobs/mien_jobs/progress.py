"""A progress bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """Shows how many of something are done; call it with ``(done, total)``.

    On a terminal it is a bar with the time left; elsewhere a line for every tenth. Both go to
    stderr, so that a verb's output can be piped.

    Args:
        what: what is counted, as in ``clips``.
    """

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._what = what
        self._is_terminal = console.is_terminal
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_terminal,
        )
        self._task = self._bar.add_task(what, total=None)
        self._tenth = 0

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar to ``done`` of ``total``."""
        self._bar.update(self._task, completed=done, total=total)
        tenth = 10 * done // max(1, total)
        if not self._is_terminal and tenth > self._tenth:
            self._tenth = tenth
            print(f"{self._what} {done}/{total}", file=sys.stderr, flush=True)
