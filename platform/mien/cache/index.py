"""What is in a shard, in a small file beside it that is written last: no index, no shard.

The file is JSON, named by the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from mien.cache.errors import CacheError
from mien.cache.settings import CacheSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One clip of a cache, or what was wrong with it."""

    clip_id: str
    clip: str
    """`clip_digest` of the reference."""
    content: str
    """`content_stamps` of its files when they were read."""
    row: int | None
    """Row group of the shard; None: the clip could not be decoded."""
    num_frames: int
    size_bytes: int
    reason: str | None = None
    """Of the `ClipError`."""
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """The entries of one shard."""

    settings: CacheSettings
    settings_digest: str
    """As it was when the shard was made: another version of Mien may make other crops."""
    shard: str | None
    """File name; None where no clip could be decoded."""
    entries: tuple[Entry, ...]

    @property
    def is_outdated(self) -> bool:
        """Whether another version of Mien made these entries, and this one would make others."""
        return self.settings.digest != self.settings_digest

    def to_bytes(self) -> bytes:
        """The file."""
        return json.dumps(
            {
                "settings": self.settings.to_json(),
                "settings_digest": self.settings_digest,
                "shard": self.shard,
                "entries": [_without_nulls(asdict(entry)) for entry in self.entries],
            },
            indent=1,
        ).encode()


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None or name == "row"}


def index_name(data: bytes) -> str:
    """The name that an index file with these bytes has."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.json"


def parse_index(data: bytes, location: str) -> Index:
    """The entries in an index file.

    Raises:
        CacheError: it is damaged, or another program's.
    """
    if index_name(data) != location.rsplit("/", 1)[-1]:
        raise CacheError(
            f"{location} is damaged: its content is not what its name says. What it lists is made "
            "anew; `mien cache prune` removes it."
        )
    try:
        values = json.loads(data)
        return Index(
            settings=CacheSettings.from_json(values["settings"]),
            settings_digest=values["settings_digest"],
            shard=values["shard"],
            entries=tuple(Entry(**entry) for entry in values["entries"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(
            f"{location} was written by another version of Mien ({error}); `mien cache prune` "
            "removes it"
        ) from error
