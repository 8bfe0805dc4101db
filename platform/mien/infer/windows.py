"""How a film is cut into the pieces that are predicted one by one, while its frames come in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

WHOLE_UP_TO_S = 10.0
"""Files up to this long are one clip unless a window is asked for."""
DEFAULT_WINDOW_S = 3.0
"""About as long as the clips of the benchmarks (DFEW, MAFW)."""
_MIN_REST = 1 / 3
"""A last piece that is a smaller share of a step is added to the window before."""
_SLACK_S = 5e-4
"""Containers round times: a frame so little before a window's start belongs to it."""


class Timed(Protocol):
    """Anything that happens at a time of a film."""

    @property
    def time_s(self) -> float:
        """Seconds since the film's first frame."""
        ...


TimedFrame = TypeVar("TimedFrame", bound=Timed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A piece [start_s, end_s) of a file, in seconds since its first frame."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowing:
    """How long windows are, and how far apart they begin."""

    window_s: float | None = None
    """None: files up to 10 s are one window, longer ones are cut into windows of 3 s."""
    step_s: float | None = None
    """From the start of one window to the next; None: a window's length, so that none overlap."""

    def __post_init__(self) -> None:
        for name in ("window_s", "step_s"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} must be greater than 0, for example 3")
        if self.step_s is not None and self.step_s > (self.window_s or DEFAULT_WINDOW_S):
            raise ValueError(
                f"step_s={self.step_s} is longer than a window of "
                f"{self.window_s or DEFAULT_WINDOW_S} s: frames between would be left out"
            )

    @property
    def longest_s(self) -> float:
        """The longest window that there can be."""
        if self.window_s is None:
            return WHOLE_UP_TO_S
        return self.window_s + _MIN_REST * (self.step_s or self.window_s)

    def lengths_s(self, duration_s: float) -> tuple[float, float]:
        """Window and step of a film."""
        window_s = self.window_s
        if window_s is None:
            window_s = duration_s if duration_s <= WHOLE_UP_TO_S else DEFAULT_WINDOW_S
        return window_s, min(self.step_s or window_s, window_s)

    def count(self, duration_s: float) -> int:
        """How many windows a film has.

        Raises:
            ValueError: a film without length.
        """
        if not (duration_s > 0 and math.isfinite(duration_s)):
            raise ValueError(f"expected a file with a length, got duration_s={duration_s}")
        window_s, step_s = self.lengths_s(duration_s)
        return max(1, math.floor((duration_s - window_s) / step_s + 2 - _MIN_REST))

    def of(self, duration_s: float) -> list[Window]:
        """The windows of a film; the last one goes on to its end.

        Raises:
            ValueError: a film without length.
        """
        window_s, step_s = self.lengths_s(duration_s)
        starts = [number * step_s for number in range(self.count(duration_s))]
        ends = [min(start + window_s, duration_s) for start in starts[:-1]]
        return [
            Window(start_s=start, end_s=end)
            for start, end in zip(starts, [*ends, duration_s], strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Generic[TimedFrame]):
    """A window and its frames."""

    window: Window
    frames: tuple[TimedFrame, ...]
    is_last: bool
    next_start_s: float
    """Where the next window begins: frames before it are in no further window."""


class WindowCutter(Generic[TimedFrame]):
    """Cuts frames that come in order into the windows of :meth:`Windowing.of`.

    Windows without a frame are left out. No more frames are kept than a window and the third of a
    step hold.
    """

    def __init__(self, windowing: Windowing) -> None:
        self._window_s = windowing.window_s
        self._step_s = windowing.step_s
        self._windowing = windowing
        self._frames: deque[TimedFrame] = deque()
        self._number = 0

    def push(self, frame: TimedFrame) -> Iterator[Cut[TimedFrame]]:
        """Takes a frame and gives the windows that are complete."""
        self._frames.append(frame)
        if self._window_s is None:
            if frame.time_s < WHOLE_UP_TO_S + _SLACK_S:
                return
            self._window_s = DEFAULT_WINDOW_S
        step_s = self._step_s or self._window_s
        while True:
            end_s = self._number * step_s + self._window_s
            if frame.time_s < end_s + _MIN_REST * step_s:
                return
            yield from self._cut(end_s, is_last=False)

    def finish(self, duration_s: float) -> Iterator[Cut[TimedFrame]]:
        """Gives the windows that are left when the film is over."""
        self._window_s, step_s = self._windowing.lengths_s(duration_s)
        count = self._windowing.count(duration_s)
        while self._number < count:
            is_last = self._number == count - 1
            end_s = min(self._number * step_s + self._window_s, duration_s)
            yield from self._cut(duration_s if is_last else end_s, is_last=is_last)

    def _cut(self, end_s: float, *, is_last: bool) -> Iterator[Cut[TimedFrame]]:
        assert self._window_s is not None
        step_s = self._step_s or self._window_s
        start_s = self._number * step_s
        next_start_s = math.inf if is_last else start_s + step_s
        limit_s = math.inf if is_last else end_s - _SLACK_S
        inside = tuple(frame for frame in self._frames if frame.time_s < limit_s)
        if inside:
            yield Cut(
                window=Window(start_s=start_s, end_s=end_s),
                frames=inside,
                is_last=is_last,
                next_start_s=next_start_s,
            )
        self._number += 1
        while self._frames and self._frames[0].time_s < next_start_s - _SLACK_S:
            self._frames.popleft()
        if self._frames and not inside and not is_last:
            # Times may jump by years in damaged films: windows in between are not gone through.
            first_s = self._frames[0].time_s
            self._number = max(self._number, math.floor((first_s - self._window_s) / step_s))
