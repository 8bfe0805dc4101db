"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    found: str
    """What was seen, in a few words."""
    advice: str = ""
    """What to do or type; only for ``warn`` and ``fail``."""

    def __post_init__(self) -> None:
        if (self.status == "ok") == bool(self.advice):
            raise ValueError(
                f"{self.name}: advice belongs to warnings and failures, and only there"
            )


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name=name, status="ok", found=found)


def warn(name: str, found: str, advice: str) -> Check:
    """It works, but something will be slow, small or missing."""
    return Check(name=name, status="warn", found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Mien can't do its work like this."""
    return Check(name=name, status="fail", found=found, advice=advice)


def gib(size_bytes: float) -> str:
    """A size in GiB, with one decimal below ten."""
    size = size_bytes / GIB
    return f"{size:.1f} GiB" if size < 10 else f"{size:.0f} GiB"
