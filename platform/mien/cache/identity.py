"""Which file contents a clip stands for, without reading them: a changed source is another one."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mien.cache.settings import CacheSettings
from mien.clips.manifest import ClipRef
from mien.media import storage

# What file systems tell about a file's content, the surest first: a checksum, a version, a time.
_STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


def clip_digest(ref: ClipRef, settings: CacheSettings) -> str:
    """Which clip, cut how: everything of a reference that decides what its crops show."""
    crops = settings.crops
    uses_box = crops.align_faces and crops.face_rule == "given_box"
    parts = (
        ref.clip_id,
        ref.uri,
        ref.start_s,
        ref.end_s,
        ref.audio_uri if crops.with_audio else None,
        ref.face_box if uses_box else None,
    )
    return _hash(repr(parts))


def content_stamps(refs: Sequence[ClipRef], *, with_audio: bool) -> list[str | None]:
    """A hash of each clip's sizes and checksums or times; None where a file is not there.

    Remote folders are listed once each, whatever the number of clips in them.

    Raises:
        StorageError: a storage cannot be reached or refuses.
    """
    places = [_places(ref, with_audio) for ref in refs]
    stamps = _stamps_of({place for several in places for place in several})
    found = []
    for several in places:
        parts = [stamps[place] for place in several]
        found.append(None if None in parts else _hash(repr(parts)))
    return found


def _places(ref: ClipRef, with_audio: bool) -> tuple[str, ...]:
    if with_audio and ref.audio_uri is not None:
        return (ref.uri, ref.audio_uri)
    return (ref.uri,)


def _stamps_of(places: Iterable[str]) -> dict[str, str | None]:
    stamps: dict[str, str | None] = {}
    in_folder: defaultdict[str, list[str]] = defaultdict(list)
    for place in places:
        if storage.is_remote(place):
            in_folder[storage.parent(place)].append(place)
        else:
            stamps[place] = _local_stamp(storage.local_path(place))
    for folder, several in in_folder.items():
        # A web server has no folders.
        entries = {} if folder.startswith(("http://", "https://")) else _listing(folder)
        for place in several:
            path = storage.file_system(place)[1].rstrip("/")
            entry = entries.get(path) or _info(place)
            stamps[place] = None if entry is None else _remote_stamp(place, entry)
    return stamps


def _local_stamp(path: str) -> str | None:
    try:
        if os.path.isdir(path):
            with os.scandir(path) as files:
                return repr(sorted((file.name, *_of_stat(file.stat())) for file in files))
        return repr(_of_stat(os.stat(path)))
    except OSError:
        # Missing or forbidden: whoever loads the clip finds out and says so.
        return None


def _of_stat(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _listing(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """What is in a folder, by path; nothing where it cannot be listed."""
    fs, path = storage.file_system(folder)
    try:
        entries = storage.patiently(folder, lambda: fs.ls(path, detail=True))
    except storage.StorageUnusableError:
        raise
    except storage.StorageError:
        return {}
    return {entry["name"].rstrip("/"): entry for entry in entries}


def _info(place: str) -> Mapping[str, Any] | None:
    fs, path = storage.file_system(place)
    try:
        entry: Mapping[str, Any] = storage.patiently(place, lambda: fs.info(path))
    except storage.StorageUnusableError:
        raise
    except storage.StorageError:
        # Missing: whoever loads the clip finds out and says so.
        return None
    return entry


def _remote_stamp(place: str, entry: Mapping[str, Any]) -> str:
    if entry["type"] != "directory":
        return _of_entry(entry)
    inside = _listing(place)
    return repr(sorted((name, _of_entry(inside[name])) for name in inside))


def _of_entry(entry: Mapping[str, Any]) -> str:
    stamp = next((str(entry[name]) for name in _STAMPS if entry.get(name)), "")
    return f"{entry.get('size')} {stamp}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
