"""The dated record of a forgetting, without the person's name in clear.

The name is kept as a salted scrypt hash, clip ids as salted SHA-256: whoever knows the name can see
that a receipt is about it, and whoever doesn't has to guess. Short names can be guessed, so a
receipt is pseudonymous, not anonymous.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mien import __version__
from mien.media import storage

PREFIX = "forgotten-"
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What was removed, when, and what is left for people to do."""

    salt: str
    """Hexadecimal."""
    person: str
    """Salted scrypt hash of the name, hexadecimal."""
    started: str
    """UTC, ISO 8601."""
    finished: str = ""
    """Empty: it was interrupted."""
    clips: list[str] = field(default_factory=list)
    """Salted SHA-256 of each clip id."""
    manifests: list[dict[str, Any]] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)
    verified: list[str] = field(default_factory=list)
    left_to_do: list[str] = field(default_factory=list)
    mien_version: str = __version__

    @classmethod
    def begin(cls, name: str, clip_ids: Iterable[str]) -> Receipt:
        """A receipt of a forgetting that starts now."""
        salt = secrets.token_bytes(16)
        return cls(
            salt=salt.hex(),
            person=_slow_hash(name, salt),
            started=now(),
            clips=sorted(hashlib.sha256(salt + clip.encode()).hexdigest() for clip in clip_ids),
        )

    def is_about(self, name: str) -> bool:
        """Whether this is the name that was hashed."""
        return secrets.compare_digest(self.person, _slow_hash(name, bytes.fromhex(self.salt)))

    def write(self, location: str, name: str) -> None:
        """Writes the receipt as JSON, the name taken out of places and words that hold it."""
        data = _without(asdict(self), name)
        # The hashes are not words that could hold it.
        data |= {"salt": self.salt, "person": self.person, "clips": self.clips}
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        storage.write_bytes_atomically(location, text.encode())


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_location(manifest_uri: str) -> str:
    """A new receipt's place: beside the manifest, named by the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return storage.join(
        storage.parent(manifest_uri), f"{PREFIX}{stamp}-{secrets.token_hex(2)}.json"
    )


def find_receipt(name: str, manifest_uris: Iterable[str]) -> tuple[str, Receipt] | None:
    """The newest receipt about a person that lies beside one of the manifests."""
    folders = dict.fromkeys(storage.parent(uri) for uri in manifest_uris)
    found = []
    for folder in folders:
        for file in storage.list_files(folder):
            if file.startswith(PREFIX) and file.endswith(".json"):
                location = storage.join(folder, file)
                receipt = _read(location)
                if receipt is not None and receipt.is_about(name):
                    found.append((location, receipt))
    return max(found, key=lambda item: item[1].started, default=None)


def _read(location: str) -> Receipt | None:
    """A receipt; None where the file is something else that has a name like one."""
    try:
        data = json.loads(storage.read_bytes(location))
        return Receipt(**data)
    except (json.JSONDecodeError, TypeError):
        return None


def _slow_hash(name: str, salt: bytes) -> str:
    return hashlib.scrypt(name.encode(), salt=salt, **_SCRYPT).hex()


def _without(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace(name, "[person]")
    if isinstance(value, Mapping):
        return {key: _without(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, name) for item in value]
    return value
