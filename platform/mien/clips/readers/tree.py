"""A data set's folder on any storage: each folder in it is listed at most once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from mien.clips.readers.reading import DatasetError
from mien.media import storage
from mien.media.image_folder import PICTURE_SUFFIXES, natural_key

LFS_POINTER = b"version https://git-lfs"
TEXT_ENCODINGS = ("utf-8-sig", "gb18030")


class Tree:
    """Paths below a root, as `a/b/c`; `.` is the root itself.

    Raises:
        DatasetError: there is no such folder.
        StorageError: the storage cannot be reached.
    """

    def __init__(self, root: str, *, title: str, owner: str, layout: str) -> None:
        self.root = storage.absolute(str(root))
        self._title, self._owner, self._layout = title, owner, layout
        self._names: dict[str, frozenset[str]] = {}
        if not storage.is_folder(self.root):
            raise DatasetError(f"there is no folder {self.root}. {self.advice()}")

    def advice(self) -> str:
        """What is expected, and where the data come from."""
        return f"Expected below --root: {self._layout}. {self._title} is given out by {self._owner}"

    def uri(self, path: str) -> str:
        """The absolute location of a path."""
        return self.root if path == "." else storage.join(self.root, path)

    def names(self, folder: str) -> frozenset[str]:
        """Names in a folder without hidden ones; empty where there is no such folder."""
        if folder not in self._names:
            self._names[folder] = frozenset(
                name for name in _listed(self.uri(folder)) if not name.startswith(".")
            )
        return self._names[folder]

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of that path."""
        if path == ".":
            return True
        folder, _, name = path.rpartition("/")
        return name in self.names(folder or ".")

    def first(self, paths: Iterable[str]) -> str | None:
        """The first path that is there."""
        return next((path for path in paths if self.has(path)), None)

    def find(self, what: str, paths: Sequence[str]) -> str:
        """The first path that is there.

        Raises:
            DatasetError: none is; says what was looked for, and where the data come from.
        """
        found = self.first(paths)
        if found is not None:
            return found
        raise self.missing(what, paths)

    def missing(self, what: str, paths: Sequence[str]) -> DatasetError:
        """The error for a part that is not there; names a folder that would be a better root."""
        below = sorted(name for name in self.names(".") if "." not in name)
        deeper = next((n for n in below for path in paths if self.has(f"{n}/{path}")), None)
        hint = "" if deeper is None else f"Did you mean --root {self.uri(deeper)}? "
        here = ", ".join(sorted(self.names("."))[:8]) or "nothing"
        return DatasetError(
            f"{self._title}: no {what} below {self.root}; looked for {' or '.join(paths)}, and the "
            f"folder holds: {here}. {hint}{self.advice()}"
        )

    def data(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            DatasetError: it is a pointer of Git LFS instead of the file.
            StorageError: it cannot be read.
        """
        found = storage.read_bytes(self.uri(path))
        if found.startswith(LFS_POINTER):
            raise DatasetError(
                f"{self.uri(path)} is a pointer of Git LFS, not the file; run `git lfs pull` there"
            )
        return found

    def text(self, path: str) -> str:
        """The text of a file in UTF-8 or GB18030.

        Raises:
            DatasetError: it is in neither.
            StorageError: it cannot be read.
        """
        raw = self.data(path)
        for encoding in TEXT_ENCODINGS:
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError:
                continue
        raise DatasetError(f"{self.uri(path)} is neither UTF-8 nor GB18030; save it as UTF-8")

    def lines(self, path: str) -> list[str]:
        """The lines of a text file that are not blank, stripped."""
        stripped = (line.strip() for line in self.text(path).splitlines())
        return [line for line in stripped if line]

    def picture_names(self, folder: str) -> list[str]:
        """Names of a folder's pictures, in no order."""
        return [name for name in self.names(folder) if name.lower().endswith(PICTURE_SUFFIXES)]

    def pictures(self, folder: str) -> list[str]:
        """Names of a folder's pictures, in the order in which they are decoded as frames."""
        return sorted(self.picture_names(folder), key=natural_key)


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Names whose stem is a whole number, whatever its padding, by that number."""
    pairs = ((name.rsplit(".", 1)[0], name) for name in names)
    return {int(stem): name for stem, name in pairs if stem.isascii() and stem.isdigit()}


def _listed(location: str) -> list[str]:
    if not storage.is_remote(location):
        path = storage.local_path(location)
        if not os.path.isdir(path):
            return []
        with storage.explained(location):
            return os.listdir(path)
    fs, path = storage.file_system(location)

    def entries() -> list[str]:
        try:
            return [str(entry) for entry in fs.ls(path, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    found = storage.patiently(location, entries)
    return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in found]
