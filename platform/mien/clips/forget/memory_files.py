"""Files in which a model keeps something about single clips, wherever they lie."""

from __future__ import annotations

import json
from typing import Protocol

from mien.clips.forget.memories import Removal, without_clips
from mien.clips.forget.person import Person
from mien.monitor.clip_keys import rows_of_clips, without_rows_of_clips
from mien.monitor.sample import REFERENCE_FILE

MEMORY_KEYS = {"state.json": "method", "model.json": "json_state"}
"""Files in which a method keeps its own state, and under which key."""


class MemoryFile(Protocol):
    """A checkpoint's or package's state, or a reference of `mien monitor`."""

    @property
    def location(self) -> str:
        """Where it is, for people."""

    @property
    def name(self) -> str:
        """The file's name, which says what it is."""

    @property
    def in_memory(self) -> int:
        """Entries of the person that were found in it."""

    def read(self) -> bytes:
        """The content now."""

    def write(self, data: bytes) -> None:
        """Replaces the content, wholly or not at all."""


def forget_in_memory(memory: MemoryFile, person: Person) -> Removal:
    """Rewrites a state or a reference without the person's clips.

    Raises:
        ValueError: the file can't be read or written; it is as it was then.
    """
    data, removal = _without_person(memory, person)
    if removal.removed:
        memory.write(data)
    return removal


def memory_left(memory: MemoryFile, person: Person) -> Removal:
    """What `forget_in_memory` would remove and what it can't; the file is only read."""
    return _without_person(memory, person)[1]


def is_reference(memory: MemoryFile) -> bool:
    """Whether a file is what `mien monitor` compares new predictions with."""
    return memory.name == REFERENCE_FILE


def name_of(location: str) -> str:
    """The last part of a path or URI."""
    return location.rsplit("/", 1)[-1]


def _without_person(memory: MemoryFile, person: Person) -> tuple[bytes, Removal]:
    data = memory.read()
    if is_reference(memory):
        count = rows_of_clips(data, person.clip_ids)
        if count is None:
            return data, Removal(unsafe=["any row"])
        return without_rows_of_clips(data, person.clip_ids), Removal(removed=count)
    content = json.loads(data)
    key = MEMORY_KEYS[memory.name]
    content[key], removal = without_clips(content.get(key), person.clip_ids, person.known_ids)
    indent = 2 if b"\n" in data.strip() else None
    text = json.dumps(content, indent=indent) + ("\n" if data.endswith(b"\n") else "")
    return text.encode(), removal
