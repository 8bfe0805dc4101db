"""New names that say nothing, and the one file that leads back from them to the old ones.

A new name is a keyed hash (HMAC-SHA256) of the old one. The key is drawn at random and stored only
in the mapping, so that nobody can find a person by hashing likely names. The mapping is written
before the first clip: whoever starts again after an interruption gets the same names.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien.media import storage

_FORMAT = 1
_ID_CHARS = 20
_KEY_BYTES = 32


class AnonymiseError(ValueError):
    """Copies for sharing that can't be made as asked: what was wrong and what to do."""


@dataclass(slots=True, kw_only=True)
class NameMapping:
    """What leads from new names back to people; never to be shared."""

    key: bytes
    made_of: str
    """`Manifest.content_hash` of the clips."""
    out: str
    """Where the copies are."""
    options: dict[str, Any]
    """How they were made."""
    old_names: dict[str, dict[str, str]] = field(default_factory=dict)
    """By kind (clip, subject, source): new name -> old name."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Clips of which there is no copy, by their old name, and why."""

    def rename(self, kind: str, old: str) -> str:
        """The new name of a clip, a subject or a source."""
        new = f"{kind[0]}{self._digest(kind, old).hex()[:_ID_CHARS]}"
        self.old_names.setdefault(kind, {})[new] = old
        return new

    def share(self, kind: str, old: str) -> float:
        """A number in [0, 1) that belongs to a name and that only the key tells."""
        return int.from_bytes(self._digest(f"share of {kind}", old)[:8], "big") / 2**64

    def _digest(self, kind: str, old: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{old}".encode(), hashlib.sha256)

    def write(self, path: Path) -> None:
        """Write the mapping, whole or not at all, for nobody but its owner to read."""
        names = ("made_of", "out", "options", "old_names", "left_out")
        content = {
            "what": "Leads from the names in anonymised clips back to people. Keep it apart.",
            "format": _FORMAT,
            "key": self.key.hex(),
            **{name: getattr(self, name) for name in names},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(content, file, indent=1, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def begin_mapping(path: Path, *, made_of: str, out: str, options: dict[str, Any]) -> NameMapping:
    """The mapping of an interrupted run with the same clips and options, or a new one.

    Raises:
        AnonymiseError: the file is another run's mapping, or none; or there are copies without it.
    """
    if path.exists():
        mapping = _read(path)
        for what, found, wanted in (
            ("of other clips (another manifest, or its rows changed)", mapping.made_of, made_of),
            (f"for --out {mapping.out}", mapping.out, out),
            (f"with other options ({_listed(mapping.options)})", mapping.options, options),
        ):
            if found != wanted:
                raise AnonymiseError(
                    f"{path} is the mapping of a run {what}: name another --mapping and an empty "
                    "--out, or type what was typed then"
                )
        return mapping
    if storage.list_files(out):
        raise AnonymiseError(
            f"{out} holds files, but there is no mapping {path}: name the mapping that they were "
            "made with, or an empty folder"
        )
    mapping = NameMapping(
        key=secrets.token_bytes(_KEY_BYTES), made_of=made_of, out=out, options=options
    )
    mapping.write(path)
    return mapping


def _read(path: Path) -> NameMapping:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise AnonymiseError(f"{path} was written by another version of Mien")
        return NameMapping(
            key=bytes.fromhex(content["key"]),
            made_of=content["made_of"],
            out=content["out"],
            options=content["options"],
            old_names=content["old_names"],
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, AnonymiseError):
            raise
        raise AnonymiseError(
            f"{path} is there already and is not a mapping of anonymised clips: name another file"
        ) from error


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def check_apart(mapping: str, out: str) -> Path:
    """The mapping's path, if it is a local file that does not lie in the folder to be shared.

    Raises:
        AnonymiseError: it does, or is on object storage, or is a folder.
    """
    if storage.is_remote(mapping):
        raise AnonymiseError(
            f"--mapping {mapping}: expected a local file that only you can read, not a URI"
        )
    path = Path(storage.absolute(mapping))
    if path.is_dir():
        raise AnonymiseError(f"--mapping {mapping} is a folder: name a file, as in mapping.json")
    # Of the folders: a link into the shared folder would be in it, too.
    if not storage.is_remote(out) and path.parent.resolve().joinpath(path.name).is_relative_to(
        Path(storage.absolute(out)).resolve()
    ):
        raise AnonymiseError(
            f"--mapping {mapping} lies in --out {out}, which is to be shared: with it, everybody "
            "could tell who is who. Name a file outside of it"
        )
    return path
