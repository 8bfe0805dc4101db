"""Doing something now and then from a loop that turns often."""

from __future__ import annotations

import time


class Pace:
    """Says when it is time again; the first time after one interval.

    Args:
        every_s: seconds between two times.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether the interval has passed since it last was due."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True
