"""Finding clips in a folder that holds one folder per class."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mien.clips.ingest_table import Candidate, Rejected
from mien.clips.schema import ManifestError
from mien.media import storage
from mien.media.image_folder import PICTURE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".vob", ".mxf"),
)
"""What is taken for a video; that it is one is found out by opening it."""

LAYOUT = "expected FOLDER/CLASS/.../VIDEO.mp4, or FOLDER/CLASS/.../CLIP/FRAMES.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a folder holds."""

    candidates: Sequence[Candidate]
    rejected: Sequence[Rejected]
    ignored: Counter[str] = field(default_factory=Counter)
    """Suffix -> number of files that are neither videos nor frames."""


def subject_finder(regex: str) -> Callable[[str], str | None]:
    """A function from a path to the person that a regular expression finds in it.

    Raises:
        ManifestError: not a regular expression.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ManifestError(
            f"subject regex {regex!r} is not a regular expression: {error}; an example that finds "
            "anna in anna_01.mp4 is '([a-z]+)_'"
        ) from error

    def find(path: str) -> str | None:
        match = pattern.search(path)
        if match is None:
            return None
        # Group 0 is the whole match.
        group = pattern.groupindex.get("subject", min(1, pattern.groups))
        return match.group(group) or None

    return find


def find_clips(folder: str, find_subject: Callable[[str], str | None] | None) -> Listing:
    """The clips below a folder; nothing is opened.

    Args:
        folder: absolute path or URI.
        find_subject: gets a path below its class's folder and returns the person, or None.

    Raises:
        ManifestError: no such folder, or nothing in it that could be a clip.
    """
    if not _is_folder(folder):
        raise ManifestError(
            f"there is no folder {printable(folder)}; {LAYOUT}. (For a table of clips give the CSV "
            "file.)"
        )
    clips, ignored = _clip_paths(_list_files(folder))
    if not clips:
        raise ManifestError(f"no video and no folder of frames below {printable(folder)}; {LAYOUT}")
    candidates, rejected = [], []
    for path in sorted(clips):
        problem = _name_problem(path)
        if problem is not None:
            rejected.append(problem)
            continue
        label, _, below = path.partition("/")
        uri = storage.join(folder, path)
        subject = None if find_subject is None else find_subject(below)
        row = {"clip_id": path, "uri": uri, "label": label, "subject_id": subject}
        candidates.append(Candidate(path=path, location=uri, row=row))
    return Listing(candidates=candidates, rejected=rejected, ignored=ignored)


def printable(path: str) -> str:
    """A path with bytes that are not UTF-8 written out; Python holds them as lone surrogates."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_folder(folder: str) -> bool:
    try:
        return storage.is_folder(folder)
    except storage.StorageError as error:
        raise ManifestError(str(error)) from error


def _name_problem(path: str) -> Rejected | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return Rejected(
            path=printable(path),
            reason="bad_file_name",
            message="the name is not UTF-8, and no manifest, table or page can hold it. Rename it, "
            "e.g. with `convmv -f latin1 -t utf8 -r --notest FOLDER`",
        )
    if "/" in path:
        return None
    return Rejected(
        path=path,
        reason="no_class_folder",
        message=f"it does not lie in a class's folder; {LAYOUT}",
    )


def _clip_paths(files: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Paths of videos and of folders of frames, and what else there is, by suffix."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    clips: list[str] = []
    ignored: Counter[str] = Counter()
    for path in files:
        if path.lower().endswith(VIDEO_SUFFIXES):
            clips.append(path)
        elif path.lower().endswith(PICTURE_SUFFIXES):
            by_folder[str(PurePosixPath(path).parent)].append(path)
        else:
            ignored[PurePosixPath(path).suffix.lower() or "without suffix"] += 1
    with_videos = {str(PurePosixPath(path).parent) for path in clips}
    for folder, pictures in by_folder.items():
        # Pictures beside videos are thumbnails; in a class's own folder they are no clip's frames.
        if folder in with_videos or "/" not in folder:
            for picture in pictures:
                ignored[PurePosixPath(picture).suffix.lower()] += 1
        else:
            clips.append(folder)
    return clips, ignored


def _list_files(folder: str) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, without hidden ones."""
    if not storage.is_remote(folder):
        yield from _walk(folder, "", set())
        return
    fs, path = storage.file_system(folder)
    found = storage.patiently(folder, lambda: fs.find(path))
    prefix = path.rstrip("/") + "/"
    for name in found:
        relative = name.removeprefix(prefix)
        if not any(part.startswith(".") for part in relative.split("/")):
            yield relative


def _walk(folder: str, below: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Follows links, as data sets are often linked together, but enters no folder twice."""
    with storage.explained(printable(folder)), os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        if entry.name.startswith("."):
            continue
        path = f"{below}{entry.name}"
        if not entry.is_dir():
            yield path
            continue
        status = entry.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield from _walk(entry.path, f"{path}/", seen)
