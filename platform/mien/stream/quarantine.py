"""Clips that could not be used, with their reasons: counted, listed, never silently replaced."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from mien.media.storage import write_bytes_atomically


@dataclass(frozen=True, slots=True, order=True)
class QuarantinedClip:
    """One clip that could not be decoded."""

    clip_id: str
    uri: str
    reason: str
    """Short code: ``missing_file``, ``truncated``, ``no_video_stream`` ..."""
    message: str


class Quarantine:
    """The clips that failed so far; a clip that fails in every epoch counts once."""

    def __init__(self, clips: Iterable[QuarantinedClip] = ()) -> None:
        self._by_id: dict[str, QuarantinedClip] = {}
        self.update(clips)

    def update(self, clips: Iterable[QuarantinedClip]) -> None:
        """Adds clips."""
        self._by_id.update((clip.clip_id, clip) for clip in clips)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def clips(self) -> list[QuarantinedClip]:
        """All clips, sorted by id."""
        return sorted(self._by_id.values())

    def summary(self) -> str:
        """One line for the end of a run: how many, and why."""
        if not self._by_id:
            return "quarantine: 0 clips"
        reasons = Counter(clip.reason for clip in self._by_id.values())
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"quarantine: {len(self)} clips ({listed})"

    def write(self, uri: str) -> None:
        """Writes the list as CSV to a path or object-store URI, whole or not at all."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(QuarantinedClip))
        writer.writerows(astuple(clip) for clip in self.clips)
        write_bytes_atomically(uri, text.getvalue().encode("utf-8", "backslashreplace"))
