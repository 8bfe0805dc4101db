"""Makes the entries that a cache lacks: decode, follow the face, compress, write shard by shard.

An interrupted build loses the shards at work (`SHARD_SECONDS` of it) and goes on with the rest.
Programs that build the same cache at once share the work: each begins at another clip, and looks
before every part at what the others have written.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import pyarrow as pa

from mien.cache.identity import clip_digest
from mien.cache.index import Entry
from mien.cache.pieces import prepare_pieces
from mien.cache.settings import CacheSettings
from mien.cache.shards import SCHEMA, size_bytes, to_row
from mien.cache.store import ClipCache, Coverage
from mien.clips.manifest import ClipRef
from mien.media.errors import ClipError
from mien.media.sampling import uniform_segments

SHARD_BYTES = 64 << 20
SHARD_SECONDS = 30.0
"""A shard is closed after that much work, so that an interruption costs no more."""
FEWEST_CLIPS, MOST_CLIPS = 8, 64
"""Clips of a task: few enough to share the work, many enough for shards worth a file."""

PASSING_REASONS = ("missing_file", "no_permission", "storage_unreadable")
"""Failures that may be over next time: not kept, so that these clips are tried again."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Clips for one task."""

    uri: str
    settings: CacheSettings
    clips: tuple[tuple[ClipRef, str], ...]
    """References and content stamps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of some clips."""

    cached: int = 0
    failures: tuple[tuple[str, str, str], ...] = ()
    """Clip id, reason and message; `PASSING_REASONS` are not kept in the cache."""


class RunParts(Protocol):
    """Runs parts, in whatever order; asks for the next one when somebody is free."""

    def __call__(self, parts: Iterator[Part]) -> Iterator[tuple[Part, Made]]:
        """Each part when it is done."""


def run_here(parts: Iterator[Part]) -> Iterator[tuple[Part, Made]]:
    """Makes the parts in the calling process."""
    for part in parts:
        yield part, make_part(part)


@dataclass(kw_only=True)
class BuildReport:
    """What a build did."""

    present: int
    """Clips that had an entry."""
    stale: int
    """Clips made anew because their source had changed."""
    absent: list[str]
    """Ids of clips without a source."""
    coverage: Coverage
    """What the cache holds now."""
    cached: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    by_others: int = 0
    """Clips that another program made in the meantime."""

    def summary(self) -> str:
        """One line."""
        parts = [f"{self.cached} clips cached", f"{self.present} were there already"]
        if self.stale:
            parts.append(f"{self.stale} of them anew because their source had changed")
        if self.by_others:
            parts.append(f"{self.by_others} made by another program meanwhile")
        if self.failures:
            parts.append(f"{len(self.failures)} cannot be decoded")
        if self.coverage.outlived:
            parts.append(f"{len(self.coverage.outlived)} outlive their source file")
        if self.absent:
            parts.append(f"{len(self.absent)} have no source file")
        return ", ".join(parts)


def build(
    cache: ClipCache,
    refs: Sequence[ClipRef],
    settings: CacheSettings,
    *,
    run_parts: RunParts = run_here,
    tasks: int = 1,
    retry_failed: bool = False,
    progress: Progress = lambda done, total: None,
) -> BuildReport:
    """Makes every entry that is missing.

    Args:
        cache: where to.
        refs: clips whose people consent.
        settings: what the entries are made with.
        run_parts: where the work is done.
        tasks: parts that `run_parts` does at once.
        retry_failed: also tries clips again that could not be decoded the last time.
        progress: is called with the numbers of clips done and to do.

    Raises:
        StorageError: sources or cache cannot be reached.
        OSError: the disk is full.
    """
    if retry_failed:
        wanted = {clip_digest(ref, settings) for ref in refs}
        cache.remove(lambda at: at.entry.reason is not None and at.entry.clip in wanted)
    coverage = cache.cover(refs, settings)
    report = BuildReport(
        present=len(coverage.found),
        stale=coverage.stale,
        absent=coverage.absent,
        coverage=coverage,
    )
    total = len(coverage.missing)
    done = 0
    for part, made in run_parts(_parts(cache, coverage, settings, report, tasks)):
        report.cached += made.cached
        report.failures += made.failures
        done += len(part.clips)
        progress(done + report.by_others, total)
    cache.refresh()
    report.coverage = cache.cover(refs, settings, coverage.stamps)
    return report


def _parts(
    cache: ClipCache, coverage: Coverage, settings: CacheSettings, report: BuildReport, tasks: int
) -> Iterator[Part]:
    """The missing clips in parts, without those that others have made by the time of asking."""
    todo = coverage.missing
    # Another start for each program: two that build at once meet at the border of a part.
    start = random.SystemRandom().randrange(max(1, len(todo)))
    todo = todo[start:] + todo[:start]
    size = min(MOST_CLIPS, max(FEWEST_CLIPS, len(todo) // (4 * tasks)))
    for first in range(0, len(todo), size):
        clips = todo[first : first + size]
        cache.refresh()
        refs, stamps = zip(*clips, strict=True)
        mine = tuple(cache.cover(refs, settings, stamps).missing)
        report.by_others += len(clips) - len(mine)
        if mine:
            yield Part(uri=cache.uri, settings=settings, clips=mine)


def make_part(part: Part) -> Made:
    """Prepares clips and writes their shards; runs in the tasks."""
    cached, failures = 0, []
    for rows, entries in _shards(part.settings, part.clips):
        cached += len(rows)
        failures += [(e.clip_id, e.reason, e.message or "") for e in entries if e.reason]
        kept = [entry for entry in entries if entry.reason not in PASSING_REASONS]
        if kept:
            ClipCache(part.uri).add(part.settings, rows, kept)
    return Made(cached=cached, failures=tuple(failures))


def _shards(
    settings: CacheSettings, clips: Iterable[tuple[ClipRef, str]]
) -> Iterator[tuple[list[pa.Table], list[Entry]]]:
    """Rows and entries of each shard."""
    rows: list[pa.Table] = []
    entries: list[Entry] = []
    held_bytes, started = 0, time.monotonic()
    for ref, content in clips:
        row, entry = _make(ref, content, settings, len(rows))
        entries.append(entry)
        if row is not None:
            rows.append(row)
            held_bytes += entry.size_bytes
        if held_bytes >= SHARD_BYTES or time.monotonic() - started >= SHARD_SECONDS:
            yield rows, entries
            rows, entries = [], []
            held_bytes, started = 0, time.monotonic()
    if entries:
        yield rows, entries


def _make(
    ref: ClipRef, content: str, settings: CacheSettings, number: int
) -> tuple[pa.Table | None, Entry]:
    entry = partial(Entry, clip_id=ref.clip_id, clip=clip_digest(ref, settings), content=content)
    choose = partial(frames_kept, max_frames=settings.stored_as.max_frames)
    try:
        pieces = prepare_pieces(ref, settings.crops, choose)
        row = to_row(ref.clip_id, pieces, settings.stored_as.image_format)
    except ClipError as error:
        return None, entry(
            row=None, num_frames=0, size_bytes=0, reason=error.reason, message=str(error)
        )
    made = entry(row=number, num_frames=len(row["frames"]), size_bytes=size_bytes(row))
    return pa.Table.from_pylist([row], SCHEMA), made


def frames_kept(num_frames: int, max_frames: int | None) -> list[int]:
    """The frames of a clip that are kept: all, or evenly spaced ones."""
    if max_frames is None or num_frames <= max_frames:
        return list(range(num_frames))
    kept: list[int] = uniform_segments(num_frames, max_frames).tolist()
    return kept
