"""When the frames of a clip are shown, and which of them are wanted. T frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.media.errors import ClipError
from mien.media.packets import ClipPackets, has_format

Ticks = npt.NDArray[np.int64]
ChooseFrames = Callable[[int], Sequence[int]]

# AVI and raw streams store no presentation times, and FFmpeg's guesses are wrong with B-frames.
_FORMATS_WITHOUT_TIMES = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo", "obu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """Presentation times of a clip's frames."""

    ticks: Ticks
    """[T], strictly increasing."""
    time_base: Fraction
    """Seconds a tick."""
    zero: int
    """The first presentable frame of the file."""
    end: int
    """Where the last frame that was read ends."""

    def seconds(self, ticks: Ticks) -> npt.NDArray[np.float64]:
        """Seconds since the file's first frame."""
        return np.asarray((ticks - self.zero) * float(self.time_base), dtype=np.float64)

    @property
    def zero_s(self) -> float:
        """The file's first frame on the container's clock."""
        return float(self.zero * self.time_base)

    @property
    def end_s(self) -> float:
        """Where the last frame ends, in seconds since the file's first frame."""
        return float((self.end - self.zero) * self.time_base)

    def window(self, start_s: float | None, end_s: float | None) -> FrameTimes:
        """The frames that begin in [start_s, end_s); `zero` and `end` remain the file's."""
        # Containers round times to ticks: 50/29.97 s is stored as 1.668 in Matroska.
        slack_s = min(0.5 * float(self.time_base), 1e-3) + 1e-6
        seconds = self.seconds(self.ticks)
        keep = np.ones(len(seconds), dtype=np.bool_)
        if start_s is not None:
            keep &= seconds >= start_s - slack_s
        if end_s is not None:
            keep &= seconds < end_s - slack_s
        return replace(self, ticks=self.ticks[keep])


def has_times(container: Any) -> bool:
    """Whether the container stores when frames are shown."""
    return not has_format(container, _FORMATS_WITHOUT_TIMES)


def stated_times(container: Any, stream: Any, packets: ClipPackets) -> FrameTimes | None:
    """The frames' times as the packets tell them, or None where they cannot be trusted.

    Not trusted are containers without times, packets without or with equal times, and files that
    begin in the middle of a group of pictures: decoders differ in what they show of such a start.
    """
    stamps = packets.stamps
    if not stamps or not has_times(container) or not stamps[0].is_keyframe:
        return None
    shown = [stamp.pts for stamp in stamps if stamp.is_shown]
    ticks = sorted(tick for tick in shown if tick is not None)
    if not ticks or len(set(ticks)) != len(shown) or any(stamp.pts is None for stamp in stamps):
        return None
    first_shown = next(stamp for stamp in stamps if stamp.is_shown)
    if first_shown is stamps[0] and ticks[0] != first_shown.pts:
        return None
    durations = {stamp.pts: stamp.duration for stamp in stamps}
    return times_of(stream, ticks, last_duration=durations[ticks[-1]], zero=packets.zero)


def times_of(
    stream: Any, ticks: Sequence[int], *, last_duration: int = 0, zero: int | None = None
) -> FrameTimes:
    """Frame times from sorted ticks; a last frame without a duration lasts as long as the mean."""
    if last_duration <= 0 and len(ticks) > 1:
        last_duration = round((ticks[-1] - ticks[0]) / (len(ticks) - 1))
    if last_duration <= 0:
        rate = stream.average_rate or stream.guessed_rate or 25
        last_duration = round(1 / (rate * stream.time_base))
    return FrameTimes(
        ticks=np.asarray(ticks, dtype=np.int64),
        time_base=stream.time_base,
        zero=ticks[0] if zero is None else zero,
        end=ticks[-1] + max(1, last_duration),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `decode_clip` was asked for, of the pictures."""

    choose_frames: ChooseFrames
    start_s: float | None
    end_s: float | None
    max_side_px: int | None
    min_decoded_fraction: float

    def choose(self, num_source: int, location: str) -> Ticks:
        """The wanted frame numbers.

        Raises:
            ClipError: the clip has no frame.
            ValueError: the choice is not among the clip's frames.
        """
        if num_source == 0:
            raise ClipError(
                "too_few_frames",
                f"{location} shows no frame from {self.start_s or 0} s to "
                f"{'its end' if self.end_s is None else f'{self.end_s} s'}. Check start_s and "
                "end_s in the manifest against the file's length.",
            )
        chosen = self.choose_frames(num_source)
        indices = np.asarray(chosen)
        is_list = indices.ndim == 1 and len(indices) > 0 and indices.dtype.kind in "iu"
        if (
            not is_list
            or indices[0] < 0
            or indices[-1] >= num_source
            or np.any(np.diff(indices.astype(np.int64)) < 0)
        ):
            raise ValueError(
                f"choose_frames({num_source}) returned {chosen}; expected at least one whole "
                f"number, non-decreasing, from 0 to {num_source - 1}"
            )
        return indices.astype(np.int64)

    def check_decodable(self, num_decoded: int, num_source: int, location: str) -> None:
        """Raise if too little of a clip can be decoded."""
        if num_source and num_decoded < max(1, self.min_decoded_fraction * num_source):
            raise ClipError(
                "truncated",
                f"only {num_decoded} of {num_source} frames of {location} can be decoded; "
                f"expected at least {self.min_decoded_fraction:.0%}. The file is damaged: copy or "
                "download it again.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedVideo:
    """The wanted pictures of one clip."""

    times: FrameTimes
    """Of all frames of the clip."""
    indices: Ticks
    """[T] the numbers that were asked for."""
    shown: Ticks
    """[T] numbers of the frames that stand in for them; the same in undamaged clips."""
    frames_THWC: npt.NDArray[np.uint8]
    """RGB, upright."""
    refused: int
    """Damaged packets or pictures."""
