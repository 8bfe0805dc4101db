"""Which clips are a person's, in all manifests together."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.manifest import FILE_NAME, PLACES, Manifest
from mien.clips.schema import ManifestError
from mien.media import storage

NAMED = 5
"""Names that an error offers."""


class UnknownPersonError(ManifestError):
    """Nobody of that name is in the manifests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOfPerson:
    """A manifest, and what of it is about the person."""

    uri: str
    """The file itself, absolute."""
    num_rows: int
    clip_ids: tuple[str, ...]
    """Of the person; none where the person is not in it."""
    content_hashes: tuple[str, ...]
    """Of the whole manifest, and of its clips with consent: what runs record."""
    places: frozenset[str]
    """Absolute places of the person's media."""
    other_places: frozenset[str]
    """Those of everybody else's."""
    all_ids: frozenset[str]
    """Of everybody's clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person's clips."""

    name: str
    manifests: tuple[ManifestOfPerson, ...]

    @property
    def clip_ids(self) -> frozenset[str]:
        """In any of the manifests."""
        return frozenset(clip for manifest in self.manifests for clip in manifest.clip_ids)

    @property
    def known_ids(self) -> frozenset[str]:
        """Clips of everybody in any of the manifests."""
        return frozenset().union(*(manifest.all_ids for manifest in self.manifests))


def find_person(name: str, manifest_uris: Sequence[str]) -> Person:
    """Looks for a person (`subject_id`) in manifests.

    Raises:
        UnknownPersonError: they are in none of them; names the nearest ones.
        ManifestError: a manifest can't be read.
    """
    files = list(dict.fromkeys(manifest_file(uri) for uri in manifest_uris))
    read = {uri: Manifest.read(uri) for uri in files}
    person = Person(name=name, manifests=tuple(_of_person(name, *item) for item in read.items()))
    if not person.clip_ids:
        raise UnknownPersonError(_nobody(name, read))
    return person


def manifest_file(uri: str) -> str:
    """The absolute place of a manifest's file; a folder stands for the one in it."""
    uri = storage.absolute(uri)
    return storage.join(uri, FILE_NAME) if storage.is_folder(uri) else uri


def is_of(column: Any, name: str) -> Any:
    """Where a column of names holds this one; False for null."""
    return pc.fill_null(pc.equal(column.cast(pa.string()), name), False)


def _of_person(name: str, uri: str, manifest: Manifest) -> ManifestOfPerson:
    is_mine = is_of(manifest.table["subject_id"], name)
    mine, others = manifest.filter(is_mine), manifest.filter(pc.invert(is_mine))
    return ManifestOfPerson(
        uri=uri,
        num_rows=len(manifest),
        clip_ids=tuple(mine.column("clip_id")),
        content_hashes=(manifest.content_hash(), manifest.consented().content_hash()),
        places=_places(mine),
        other_places=_places(others),
        all_ids=frozenset(manifest.column("clip_id")),
    )


def _places(manifest: Manifest) -> frozenset[str]:
    base = manifest.base or ""
    found = {place for name in PLACES for place in manifest.column(name) if place is not None}
    return frozenset(storage.join(base, place) for place in found)


def _nobody(name: str, read: dict[str, Manifest]) -> str:
    names = sorted({subject for manifest in read.values() for subject in manifest.subjects})
    near = difflib.get_close_matches(name, names, n=NAMED, cutoff=0.5)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    return (
        f"nobody called {name!r} is among the {len(names)} people (subject_id) of "
        f"{', '.join(read)}.{hint} `mien clips show MANIFEST --columns subject_id` lists them"
    )
