"""How a file is cut into the pieces that are predicted one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

WHOLE_UP_TO_S = 10.0
"""Files up to this long are one clip unless a window is asked for."""
DEFAULT_WINDOW_S = 3.0
"""About as long as the clips of the benchmarks (DFEW, MAFW)."""
_MIN_REST = 1 / 3
"""A last piece that is a smaller share of a window is added to the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A piece [start_s, end_s) of a file, in seconds since its first frame."""

    start_s: float
    end_s: float


def cut_windows(duration_s: float, window_s: float | None) -> list[Window]:
    """Windows that cover a file without gap or overlap.

    Args:
        duration_s: of the file.
        window_s: length of a window; None: the whole file up to 10 s, windows of 3 s beyond.

    Raises:
        ValueError: a window or file without length.
    """
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise ValueError(f"expected a file with a length, got duration_s={duration_s}")
    if window_s is None:
        window_s = duration_s if duration_s <= WHOLE_UP_TO_S else DEFAULT_WINDOW_S
    if not window_s > 0:
        raise ValueError(f"window_s={window_s} must be greater than 0, for example 3")
    count = max(1, math.floor(duration_s / window_s + 1 - _MIN_REST))
    starts = [index * window_s for index in range(count)]
    ends = [*starts[1:], duration_s]
    return [Window(start_s=start, end_s=end) for start, end in zip(starts, ends, strict=True)]
