"""A person's media files: which may be deleted, because nobody else is in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mien.clips.forget.person import Person
from mien.media import storage


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOfPerson:
    """Files and folders of frames of a person."""

    theirs: tuple[str, ...]
    """There, and of nobody else in the manifests."""
    shared: tuple[str, ...]
    """Other people's clips are in them too (a film), or they hold other clips' files."""


def media_of(person: Person) -> MediaOfPerson:
    """Looks which of a person's media are there, and which are nobody else's."""
    mine = sorted(frozenset().union(*(manifest.places for manifest in person.manifests)))
    others = {place for manifest in person.manifests for place in manifest.other_places}
    others |= {manifest.uri for manifest in person.manifests}
    folders = {folder for place in others for folder in _folders_above(place)}
    shared = [place for place in mine if place in others or place.rstrip("/") in folders]
    theirs = [place for place in mine if place not in shared and storage.exists(place)]
    return MediaOfPerson(theirs=tuple(theirs), shared=tuple(shared))


def delete_media(places: Iterable[str]) -> int:
    """Deletes files, and folders of frames with all that is in them; gone ones are passed over.

    Returns:
        The number of files and folders that were deleted.
    """
    deleted = 0
    for place in places:
        if not storage.exists(place):
            continue
        fs, path = storage.file_system(place)
        with storage.explained(place):
            fs.rm(path, recursive=storage.is_folder(place))
        deleted += 1
    return deleted


def _folders_above(place: str) -> Iterable[str]:
    scheme, separator, rest = place.rpartition("://")
    pieces = rest.split("/")
    for count in range(1, len(pieces)):
        yield scheme + separator + "/".join(pieces[:count])
