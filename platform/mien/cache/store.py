"""A clip cache: a folder or bucket with shards of prepared clips, and an index beside each.

Files are only ever added and removed, never changed, and their names are hashes of their content,
so several programs may add at the same time. What a program saw when it looked last stays valid
until somebody removes entries (`prune`, `forget`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa

from mien.cache.errors import CacheError
from mien.cache.identity import clip_digest, content_stamps
from mien.cache.index import Entry, Index, index_name, parse_index
from mien.cache.settings import CacheSettings
from mien.cache.shards import ShardPlace, ShardReader, shard_clip_ids, shard_name, shard_of
from mien.clips.manifest import ClipRef
from mien.media import storage

MARKER = "mien-cache.json"
"""File that makes a folder a cache; nothing is ever removed from a folder without it."""
_THREADS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """An entry and where it lies."""

    entry: Entry
    settings_digest: str
    shard: str | None


Held = dict[tuple[str, str], dict[str, Located]]
"""Entries by the digests of settings and clip, then by content."""


@dataclass(kw_only=True)
class Coverage:
    """What a cache holds of some clips, under one kind of settings."""

    stamps: Sequence[str | None]
    """Contents of all the clips, None where there is no source."""
    found: dict[str, Located] = field(default_factory=dict)
    """By clip id."""
    missing: list[tuple[ClipRef, str]] = field(default_factory=list)
    """Clips without an entry, and their content stamps."""
    stale: int = 0
    """Of the missing ones, those whose source has changed since an entry was made."""
    outlived: list[str] = field(default_factory=list)
    """Ids of clips that were found although their source isn't there any more."""
    absent: list[str] = field(default_factory=list)
    """Ids of clips that have neither a source nor an entry."""


class ClipCache:
    """The entries of a cache as they were at the last :meth:`refresh`."""

    def __init__(self, uri: str) -> None:
        """Use :meth:`open`."""
        self.uri = storage.absolute(uri).rstrip("/")
        self._indexes: dict[str, Index] = {}
        self._held: Held | None = None
        self.damaged_indexes: dict[str, str] = {}
        """Index files that cannot be read, and why; what they list counts as missing."""

    @staticmethod
    def exists(uri: str) -> bool:
        """Whether there is a cache at a path or URI."""
        return storage.exists(storage.join(storage.absolute(uri), MARKER))

    @classmethod
    def open(cls, uri: str, *, create: bool = False) -> ClipCache:
        """The cache at a path or URI.

        Args:
            uri: a folder or prefix, any that fsspec knows.
            create: make one where there is none.

        Raises:
            CacheError: there is no cache, or something else.
            StorageError: the storage cannot be reached.
        """
        cache = cls(uri)
        if not cls.exists(uri):
            if not create:
                raise CacheError(
                    f"there is no clip cache in {cache.uri}: check the spelling, or make one with "
                    "`mien cache build`"
                )
            cache._refuse_foreign_files()
            marker = json.dumps({"mien_clip_cache": 1}).encode()
            storage.write_bytes_atomically(storage.join(cache.uri, MARKER), marker)
        cache.refresh()
        return cache

    def _refuse_foreign_files(self) -> None:
        for folder in (self._index_folder, self._shard_folder):
            # Somebody may just have made this cache.
            if storage.exists(folder) and not self.exists(self.uri):
                raise CacheError(f"{folder} is there and is no clip cache's; name a new folder")

    @property
    def _index_folder(self) -> str:
        return storage.join(self.uri, "index")

    @property
    def _shard_folder(self) -> str:
        return storage.join(self.uri, "shards")

    def refresh(self) -> None:
        """Looks again at what there is; only new index files are read.

        A damaged one is named in the log and left out: what it lists is made anew.
        """
        names = set(storage.list_files(self._index_folder))
        names = {name for name in names if name.endswith(".json")}
        new = sorted(names - self._indexes.keys())
        with ThreadPoolExecutor(_THREADS) as threads:
            loaded = dict(zip(new, threads.map(self._load_index, new), strict=True))
        for name in self._indexes.keys() - names:
            self._delete(name)
        self._insert({name: index for name, index in loaded.items() if index is not None})
        for name in [n for n in self.damaged_indexes if n not in names or n in self._indexes]:
            del self.damaged_indexes[name]

    def _load_index(self, name: str) -> Index | None:
        location = storage.join(self._index_folder, name)
        try:
            return parse_index(storage.read_bytes(location), location)
        except storage.StorageError as error:
            if error.reason == "missing_file":  # removed since it was listed
                return None
            raise
        except CacheError as error:
            if name not in self.damaged_indexes:
                _log.warning("%s", error)
            self.damaged_indexes[name] = str(error)
            return None

    @property
    def indexes(self) -> Mapping[str, Index]:
        """All indexes by file name."""
        return self._indexes

    def entries(self) -> Iterator[Located]:
        """Every entry."""
        for index in self._indexes.values():
            yield from _located(index)

    def shard_location(self, shard: str) -> str:
        """Where a shard lies."""
        return storage.join(self._shard_folder, shard)

    def cover(
        self,
        refs: Sequence[ClipRef],
        settings: CacheSettings,
        stamps: Sequence[str | None] | None = None,
    ) -> Coverage:
        """Which of these clips have an entry that is not stale.

        An entry whose source isn't there any more counts as good: nothing can be newer than it.

        Args:
            refs: clips.
            settings: of the entries.
            stamps: `content_stamps` of the clips where they are known.

        Raises:
            StorageError: a source's storage cannot be reached.
        """
        if stamps is None:
            stamps = content_stamps(refs, with_audio=settings.crops.with_audio)
        coverage, held = Coverage(stamps=stamps), self._holding()
        for ref, stamp in zip(refs, stamps, strict=True):
            entries = held.get((settings.digest, clip_digest(ref, settings)), {})
            if stamp is None and not entries:
                coverage.absent.append(ref.clip_id)
            elif stamp is None:
                coverage.outlived.append(ref.clip_id)
                coverage.found[ref.clip_id] = entries[max(entries)]
            elif stamp in entries:
                coverage.found[ref.clip_id] = entries[stamp]
            else:
                coverage.stale += bool(entries)
                coverage.missing.append((ref, stamp))
        return coverage

    def _insert(self, indexes: Mapping[str, Index]) -> None:
        self._indexes |= indexes
        if self._held is not None:
            _hold(self._held, indexes.values())

    def _delete(self, name: str) -> Index | None:
        # Another index may hold the same entries: they are looked for when they are asked for.
        self._held = None
        return self._indexes.pop(name, None)

    def _holding(self) -> Held:
        if self._held is None:
            self._held = _hold({}, self._indexes.values())
        return self._held

    def add(
        self,
        settings: CacheSettings,
        rows: Sequence[pa.Table],
        entries: Sequence[Entry],
        *,
        settings_digest: str | None = None,
    ) -> None:
        """Writes a shard and then its index; entries count from then on.

        Args:
            settings: what the rows were made with.
            rows: tables of one row each (`shards.SCHEMA`).
            entries: of the rows by number, and of clips that could not be decoded.
            settings_digest: where the rows are copies out of an older shard, that one's.
        """
        shard = None
        if rows:
            data = shard_of(rows)
            shard = shard_name(data)
            storage.write_bytes_atomically(self.shard_location(shard), data)
        index = Index(
            settings=settings,
            settings_digest=settings_digest or settings.digest,
            shard=shard,
            entries=tuple(entries),
        )
        data = index.to_bytes()
        name = index_name(data)
        storage.write_bytes_atomically(storage.join(self._index_folder, name), data)
        self._insert({name: index})

    def holds(self, clip_ids: Collection[str]) -> set[str]:
        """Which of these clips have entries, under whatever settings."""
        wanted = set(clip_ids)
        return {e.entry.clip_id for e in self.entries() if e.entry.clip_id in wanted}

    def forget(self, clip_ids: Collection[str]) -> int:
        """Removes all that is kept of these clips, and verifies it by reading every shard's list.

        Shards are written anew without them. Nobody should build or prune at the same time.

        Returns:
            The number of entries that were removed.

        Raises:
            CacheError: something is still there afterwards.
        """
        wanted = set(clip_ids)
        removed = self.remove(lambda located: located.entry.clip_id in wanted)
        for location in self.leftovers():
            if not wanted.isdisjoint(_held_by_leftover(location) or wanted):
                storage.remove(location)
        self.refresh()
        left = self.holds(wanted)
        for name in storage.list_files(self._shard_folder):
            left |= wanted & set(shard_clip_ids(self.shard_location(name)))
        if left:
            raise CacheError(
                f"{len(left)} clips are still in {self.uri}, as somebody is writing there: stop "
                "every `mien cache` and every training that uses it, then run this again"
            )
        return removed

    def leftovers(self, *, min_age_s: float = 0.0) -> list[str]:
        """Files that don't count: of a program that was interrupted or is at work, or damaged."""
        self.refresh()
        named = {index.shard for index in self._indexes.values()}
        found = [
            self.shard_location(name)
            for name in storage.list_files(self._shard_folder)
            if name not in named
        ]
        found += [
            storage.join(self._index_folder, name)
            for name in storage.list_files(self._index_folder)
            if name not in self._indexes
        ]
        return [location for location in found if _age_s(location) >= min_age_s]

    def remove(self, is_unwanted: Callable[[Located], bool]) -> int:
        """Removes entries; shards that keep others are written anew without them.

        The new files are there before the old ones go, so nothing is lost if this is interrupted.
        """
        self.refresh()
        removed = 0
        for name, index in list(self._indexes.items()):
            kept = [at.entry for at in _located(index) if not is_unwanted(at)]
            if len(kept) < len(index.entries):
                self._replace(name, index, kept)
                removed += len(index.entries) - len(kept)
        return removed

    def _replace(self, name: str, index: Index, kept: Sequence[Entry]) -> None:
        if kept:
            try:
                rows, entries = self._copied(index, kept)
            except CacheError as error:
                _log.warning("%s All of its clips are made anew.", error)
            else:
                self.add(index.settings, rows, entries, settings_digest=index.settings_digest)
        self.discard(name)

    def _copied(self, index: Index, kept: Sequence[Entry]) -> tuple[list[pa.Table], list[Entry]]:
        reader, rows, entries = ShardReader(), [], []
        for entry in kept:
            if entry.row is not None and index.shard is not None:
                place = ShardPlace(self.shard_location(index.shard), entry.row)
                rows.append(reader.row(place, entry.clip_id))
                entry = replace(entry, row=len(rows) - 1)
            entries.append(entry)
        return rows, entries

    def discard(self, index_file: str) -> None:
        """Removes an index, damaged or not, and its shard."""
        index = self._delete(index_file)
        self.damaged_indexes.pop(index_file, None)
        storage.remove(storage.join(self._index_folder, index_file))
        if index is None or index.shard is None:
            return
        if all(other.shard != index.shard for other in self._indexes.values()):
            storage.remove(self.shard_location(index.shard))


def _located(index: Index) -> Iterator[Located]:
    for entry in index.entries:
        yield Located(entry=entry, settings_digest=index.settings_digest, shard=index.shard)


def _hold(held: Held, indexes: Iterable[Index]) -> Held:
    for index in indexes:
        for at in _located(index):
            held.setdefault((at.settings_digest, at.entry.clip), {})[at.entry.content] = at
    return held


def _held_by_leftover(location: str) -> set[str] | None:
    """The clips in a shard without an index; None where it can't be read."""
    try:
        return set(shard_clip_ids(location))
    except CacheError:
        return None


def _age_s(location: str) -> float:
    fs, path = storage.file_system(location)
    try:
        written = storage.patiently(location, lambda: fs.modified(path))
    except storage.StorageError as error:
        if error.reason == "missing_file":  # removed or moved since it was listed
            return 0.0
        raise
    age: float = (datetime.now(UTC) - written).total_seconds()
    return age
