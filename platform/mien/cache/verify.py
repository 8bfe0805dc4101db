"""Reads a whole cache and says what is wrong with it; removes what nobody needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mien.cache.errors import CacheError
from mien.cache.identity import clip_digest, content_stamps
from mien.cache.index import Index
from mien.cache.settings import CacheSettings
from mien.cache.shards import shard_clip_ids, shard_name
from mien.cache.store import ClipCache, Coverage, Located
from mien.clips.manifest import ClipRef
from mien.media import storage

LEFTOVER_AGE_S = 3600.0
"""Younger files without an index may be another program's that is at work."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a cache holds, and what is wrong with it."""

    entries: int
    failures: Counter[str]
    """Clips that could not be decoded, by reason."""
    size_bytes: int
    damaged: dict[str, str]
    """Index file to what is wrong with it or its shard."""
    leftovers: list[str]
    outdated: int
    """Entries made by another version of Mien; never read, removed by ``prune``."""
    coverage: dict[CacheSettings, Coverage]
    """Of the clips that were named, by settings that the cache holds."""

    @property
    def is_sound(self) -> bool:
        """Whether every byte is as it was written and every named clip is there."""
        incomplete = any(found.missing or found.absent for found in self.coverage.values())
        return not self.damaged and not incomplete


def check(
    cache: ClipCache,
    refs: Sequence[ClipRef] | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> CheckReport:
    """Reads every shard, compares it with its name's checksum and with its index.

    Args:
        cache: what to check.
        refs: clips that ought to be there, under every settings that the cache holds.
        progress: is called with shards done and to do.

    Raises:
        StorageError: the storage cannot be reached.
    """
    cache.refresh()
    damaged = dict(cache.damaged_indexes)
    size_bytes = 0
    for number, (name, index) in enumerate(list(cache.indexes.items())):
        try:
            size_bytes += _verify(cache, index)
        except CacheError as error:
            damaged[name] = str(error)
        progress(number + 1, len(cache.indexes))
    entries = list(cache.entries())
    current = current_settings(cache)
    return CheckReport(
        entries=len(entries),
        failures=Counter(at.entry.reason for at in entries if at.entry.reason is not None),
        size_bytes=size_bytes,
        damaged=damaged,
        leftovers=cache.leftovers(min_age_s=LEFTOVER_AGE_S),
        outdated=sum(len(index.entries) for index in cache.indexes.values() if index.is_outdated),
        coverage={} if refs is None else {one: cache.cover(refs, one) for one in current},
    )


def _verify(cache: ClipCache, index: Index) -> int:
    """Size of a shard.

    Raises:
        CacheError: its bytes are not those that were written, or its index names other clips.
    """
    if index.shard is None:
        return 0
    location = cache.shard_location(index.shard)
    try:
        data = storage.read_bytes(location)
    except storage.StorageError as error:
        if error.reason != "missing_file":
            raise
        raise CacheError(f"{location} is missing") from error
    if shard_name(data) != index.shard:
        raise CacheError(f"{location} is damaged: its content is not what its name says")
    listed = {at.row: at.clip_id for at in index.entries if at.row is not None}
    if dict(enumerate(shard_clip_ids(location))) != listed:
        raise CacheError(f"{location} holds other clips than its index says")
    return len(data)


def drop_damaged(cache: ClipCache, report: CheckReport) -> None:
    """Removes what a check found damaged; the next build makes those clips anew."""
    for name in report.damaged:
        cache.discard(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What was removed."""

    entries: int
    """Of clips that are not in the manifests, have changed, or were made by an older Mien."""
    leftovers: int
    """Files of interrupted programs."""
    kept: int


def prune(cache: ClipCache, refs: Sequence[ClipRef]) -> PruneReport:
    """Removes every entry that these clips, as they are now, do not need, and leftovers.

    Raises:
        StorageError: sources or cache cannot be reached.
    """
    cache.refresh()
    needed = {
        (settings.digest, clip): stamp
        for settings in current_settings(cache)
        for clip, stamp in _stamped(refs, settings)
    }
    kept: set[tuple[str, str]] = set()

    def is_unwanted(at: Located) -> bool:
        key = (at.settings_digest, at.entry.clip)
        if key not in needed or key in kept or needed[key] not in (None, at.entry.content):
            return True
        kept.add(key)
        return False

    entries = cache.remove(is_unwanted)
    leftovers = cache.leftovers(min_age_s=LEFTOVER_AGE_S)
    for location in leftovers:
        storage.remove(location)
    return PruneReport(entries=entries, leftovers=len(leftovers), kept=len(kept))


def _stamped(refs: Sequence[ClipRef], settings: CacheSettings) -> list[tuple[str, str | None]]:
    stamps = content_stamps(refs, with_audio=settings.crops.with_audio)
    return [(clip_digest(ref, settings), at) for ref, at in zip(refs, stamps, strict=True)]


def current_settings(cache: ClipCache) -> list[CacheSettings]:
    """The settings of a cache's entries that this version of Mien would make alike."""
    found = {index.settings for index in cache.indexes.values() if not index.is_outdated}
    return sorted(found, key=CacheSettings.describe)
