"""What can be wrong with a clip, as short codes that quarantine lists and run summaries count."""

from __future__ import annotations

from typing import Any

REASONS = (
    "missing_file",
    "empty_file",
    "no_permission",
    "storage_unreadable",
    "not_a_video",
    "no_video_stream",
    "truncated",
    "too_few_frames",
    "bad_audio",
    "bad_file_name",
)
"""Every reason that this package gives."""


class ClipError(ValueError):
    """A clip that cannot be used: what was wrong, what was expected, what to do.

    It survives pickling, so a Ray worker can raise it.
    """

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, reason
        super().__init__(message)
        self.reason = reason
        """One of `REASONS`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))
