"""Media files in object storage, read by ranges: few requests, and nothing that is not needed.

A request costs some 30 ms however little it fetches, in which a megabyte or two would have come
along. Small files therefore are one request, reading on is done in ever larger pieces, and pieces
that lie close together are fetched as one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mien.media.errors import ClipError
from mien.media.storage import StorageError, file_system, patiently

HEAD_BYTES = 2**20
"""The first request; most clips are smaller."""
WHOLE_BYTES = 4 * 2**20
"""Files up to this size are fetched as a whole."""
KEPT_BYTES = 64 * 2**20
"""Of what was fetched, so much is kept in memory."""

_FIRST_PIECE, _LONGEST_PIECE = 2**18, 2**23
_SMALL_GAP = 2**18

Range = tuple[int, int]
"""Bytes [start, stop)."""


@dataclass(slots=True)
class _Part:
    start: int
    data: bytes

    @property
    def stop(self) -> int:
        return self.start + len(self.data)


class RemoteFile:
    """The bytes of an object, fetched as they are asked for and kept.

    Raises:
        ClipError: the file is empty.
        StorageError: it is missing, forbidden or unreachable.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.is_hollow = False
        """Whether bytes that were not fetched read as zeros instead of being fetched."""
        self._fs, self._path = file_system(location)
        self._parts: list[_Part] = []  # the one used last comes last
        self.size = self._open()

    def _open(self) -> int:
        try:
            head = self._get((0, HEAD_BYTES))
        except StorageError:
            if self._stated_size() == 0:  # S3 has no range of an empty object
                raise _empty(self.location) from None
            raise
        if not head:
            raise _empty(self.location)
        self._parts.append(_Part(0, head))
        if len(head) != HEAD_BYTES:  # all of it, also from a server that does not know ranges
            return len(head)
        size = self._stated_size()
        if HEAD_BYTES < size <= WHOLE_BYTES:
            self._parts = [_Part(0, head + self._get((HEAD_BYTES, size)))]
        return size

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been fetched."""
        return any(len(part.data) == self.size for part in self._parts)

    def read_at(self, wanted: Range) -> bytes:
        """The bytes of a range, as far as the file goes."""
        at, stop = wanted[0], min(wanted[1], self.size)
        pieces = []
        while at < stop:
            part = self._part_at(at)
            if part is not None:
                pieces.append(part.data[at - part.start : stop - part.start])
            elif self.is_hollow:
                pieces.append(bytes(min(stop, self._next_start(at)) - at))
            else:
                self._read_ahead(at)
                continue
            at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fetch(self, ranges: Iterable[Range]) -> bool:
        """Fetch the ranges at once, as far as they are not here; False if they are too large."""
        missing = [gap for wanted in joined(ranges) for gap in self._missing(wanted)]
        wholes = joined(missing, _SMALL_GAP)
        if sum(stop - start for start, stop in wholes) > KEPT_BYTES:
            return False
        if wholes:
            for (start, _), data in zip(wholes, self._get_all(wholes), strict=True):
                self._keep(_Part(start, data))
        return True

    def _part_at(self, at: int) -> _Part | None:
        for number in range(len(self._parts) - 1, -1, -1):
            if self._parts[number].start <= at < self._parts[number].stop:
                part = self._parts.pop(number)
                self._parts.append(part)
                return part
        return None

    def _next_start(self, at: int) -> int:
        return min((part.start for part in self._parts if part.start > at), default=self.size)

    def _missing(self, wanted: Range) -> list[Range]:
        at, stop = wanted[0], min(wanted[1], self.size)
        missing = []
        while at < stop:
            part = self._part_at(at)
            end = min(stop, self._next_start(at) if part is None else part.stop)
            if part is None:
                missing.append((at, end))
            at = end
        return missing

    def _read_ahead(self, at: int) -> None:
        before = next((len(part.data) for part in self._parts if part.stop == at), 0)
        length = min(max(_FIRST_PIECE, 2 * before), _LONGEST_PIECE)
        stop = self.size if at + length + _FIRST_PIECE > self.size else at + length
        stop = min(stop, self._next_start(at))
        self._keep(_Part(at, self._get((at, stop))))

    def _keep(self, part: _Part) -> None:
        self._parts.append(part)
        while sum(len(part.data) for part in self._parts) > KEPT_BYTES and len(self._parts) > 1:
            del self._parts[0]

    def _stated_size(self) -> int:
        return int(patiently(self.location, lambda: self._fs.info(self._path))["size"] or 0)

    def _get(self, wanted: Range) -> bytes:
        start, stop = wanted

        def get() -> bytes:
            return bytes(self._fs.cat_file(self._path, start=start, end=stop))

        data = patiently(self.location, get)
        return data if start == 0 else self._checked(data, wanted)

    def _get_all(self, ranges: Sequence[Range]) -> list[bytes]:
        starts, stops = ([wanted[side] for wanted in ranges] for side in (0, 1))

        def get_all() -> list[Any]:
            # Object stores are asked for all ranges side by side.
            answers = self._fs.cat_ranges([self._path] * len(ranges), starts, stops)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            return list(answers)

        answers = patiently(self.location, get_all)
        return [
            self._checked(bytes(data), wanted) for data, wanted in zip(answers, ranges, strict=True)
        ]

    def _checked(self, data: bytes, wanted: Range) -> bytes:
        if len(data) != wanted[1] - wanted[0]:
            raise StorageError(
                "storage_unreadable",
                f"{self.location} gave {len(data)} bytes for the range {wanted[0]}-{wanted[1]}: it "
                "was changed while it was read, or its server cannot serve ranges.",
            )
        return data


class RemoteReader:
    """A place in a `RemoteFile`: what FFmpeg takes for a file."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        stop = self._file.size if size < 0 else self._position + size
        data = self._file.read_at((self._position, stop))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The place."""
        return self._position


def joined(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """The ranges in order, those as one between which at most ``gap`` bytes lie."""
    result: list[Range] = []
    for start, stop in sorted(ranges):
        if result and start <= result[-1][1] + gap:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result


def _empty(location: str) -> ClipError:
    return ClipError("empty_file", f"{location} has 0 bytes. Copy or download it again.")
