"""What a run reads from: which clip lies where, as it was when the run started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mien.cache.settings import CacheSettings, StoredAs
from mien.cache.shards import ShardPlace, ShardReader
from mien.cache.store import ClipCache, Coverage
from mien.media.errors import ClipError
from mien.stream.prepare import ChooseFrames, CropSettings, PreparedClip


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldClips:
    """Clips of one kind of settings, by id."""

    places: Mapping[str, tuple[str, int]]
    """Location of the shard, and row group in it."""
    failures: Mapping[str, tuple[str, str]]
    """Reason and message of clips that could not be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedClips:
    """What a cache holds for a run; sent to every process that loads clips."""

    stored_as: StoredAs
    held: Mapping[CacheSettings, HeldClips]

    @classmethod
    def of(
        cls, cache: ClipCache, stored_as: StoredAs, coverages: Mapping[CacheSettings, Coverage]
    ) -> CachedClips:
        """What was found in a cache."""
        held = {settings: _held(cache, coverage) for settings, coverage in coverages.items()}
        return cls(stored_as=stored_as, held=held)

    def read(
        self, clip_id: str, crops: CropSettings, choose_frames: ChooseFrames
    ) -> PreparedClip | None:
        """A clip's wanted frames and its sound; None where the cache has no entry.

        Raises:
            ClipError: the clip could not be decoded when the cache was made.
            CacheError: the shard is damaged or gone.
        """
        held = self.held.get(CacheSettings(crops=crops, stored_as=self.stored_as))
        if held is None:
            return None
        if clip_id in held.failures:
            raise ClipError(*held.failures[clip_id])
        if clip_id not in held.places:
            return None
        return _reader().clip(ShardPlace(*held.places[clip_id]), clip_id, choose_frames)


def _held(cache: ClipCache, coverage: Coverage) -> HeldClips:
    places: dict[str, tuple[str, int]] = {}
    failures: dict[str, tuple[str, str]] = {}
    locations: dict[str, str] = {}  # one string a shard: that is how it is pickled, too
    for clip_id, found in coverage.found.items():
        entry = found.entry
        if entry.row is None or found.shard is None:
            failures[clip_id] = (entry.reason or "", entry.message or "")
        else:
            location = cache.shard_location(found.shard)
            places[clip_id] = (locations.setdefault(location, location), entry.row)
    return HeldClips(places=places, failures=failures)


@lru_cache(maxsize=1)
def _reader() -> ShardReader:
    """This process's reader."""
    return ShardReader()
