"""Which films a user means: files, folders, patterns, in object storage too."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from mien.clips.ingest_folder import VIDEO_SUFFIXES
from mien.media.containers import PICTURE_SUFFIXES
from mien.media.storage import (
    absolute,
    file_system,
    is_folder,
    is_remote,
    join,
    list_files,
    parent,
    patiently,
)


class InputError(ValueError):
    """What was named holds no film."""


def find_inputs(named: Sequence[str]) -> list[str]:
    """Locations of all films that were named, each once, in order.

    A file is taken as it is, whatever its ending. Of a folder, all videos below it are taken, and
    every folder below it that holds pictures is one film; endings of other files don't count. A
    pattern (``*``, ``?``, ``[..]``, ``**``) is what it matches.

    Raises:
        InputError: a folder without a film, or a pattern that matches nothing.
        StorageError: the storage cannot be reached.
    """
    found: dict[str, None] = {}
    for name in named:
        location = absolute(name)
        if is_folder(location):
            films = _films_below(location)
        elif re.search(r"[*?\[]", location):
            films = _matching(location)
        else:
            films = [location]
        found.update(dict.fromkeys(films))
    return list(found)


def table_name(location: str) -> str:
    """A name for a film's tables: its own, and a hash of where it lies."""
    stem = PurePosixPath(location.rstrip("/")).stem
    plain = re.sub(r"[^\w.-]+", "_", stem)[:80]
    return f"{plain}-{hashlib.sha256(location.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"


def version_of(location: str) -> str:
    """What changes when a film's content does: size and time or checksum of its file or files.

    Raises:
        StorageError: it cannot be read.
    """
    fs, path = file_system(location)
    if is_folder(location):
        entries = patiently(location, lambda: fs.find(path, detail=True))
        marks = [_mark(entry) for entry in entries.values()]
    else:
        marks = [_mark(patiently(location, lambda: fs.info(path)))]
    return hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _mark(info: dict[str, Any]) -> str:
    stamp = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified")
    return f"{info.get('name')} {info.get('size')} {stamp}"


def _films_below(folder: str) -> list[str]:
    files = list_files(folder)
    videos = [join(folder, name) for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
    pictures = [name for name in files if name.lower().endswith(PICTURE_SUFFIXES)]
    folders = [parent(join(folder, name)) for name in pictures]
    films = sorted({*videos, *folders})
    if not films:
        endings = Counter(PurePosixPath(name).suffix or "no ending" for name in files)
        held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        raise InputError(
            f"the folder {folder} holds no film: {held or 'it is empty, or does not exist'}; "
            f"expected files that end in {', '.join(VIDEO_SUFFIXES[:6])}, ..., or pictures. A file "
            "with another ending can be named by itself"
        )
    return films


def _matching(pattern: str) -> list[str]:
    fs, path = file_system(pattern)
    paths: list[str] = patiently(pattern, lambda: sorted(fs.glob(path)))
    if not paths:
        raise InputError(f"{pattern} matches nothing")
    if is_remote(pattern):
        scheme = pattern.split("://", 1)[0]
        paths = [f"{scheme}://{entry.lstrip('/')}" for entry in paths]
    return paths
