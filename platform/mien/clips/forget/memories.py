"""Clip ids in the JSON state of checkpoints and packages: found, and taken out where that is safe.

A method keeps replay memories and other per-clip state in its ``json_state()``, keyed by clip id or
as lists of clip ids. Entries can be removed where nothing else counts on their places.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Removal:
    """What became of a person's entries in a state."""

    removed: int = 0
    unsafe: list[str] = field(default_factory=list)
    """Dotted paths of mentions that stay, because other values depend on their places."""


def mentions_of(value: Any, clip_ids: Collection[str], path: str = "") -> Iterator[str]:
    """Dotted paths at which JSON values name one of these clips, as key or as value."""
    if isinstance(value, str):
        if value in clip_ids:
            yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key in clip_ids:
                yield f"{path}.{key}".lstrip(".")
            yield from mentions_of(item, clip_ids, f"{path}.{key}".lstrip("."))
    elif isinstance(value, Sequence):
        for number, item in enumerate(value):
            yield from mentions_of(item, clip_ids, f"{path}[{number}]")


def without_clips(
    state: Any, clip_ids: Collection[str], known_ids: Collection[str]
) -> tuple[Any, Removal]:
    """A copy of a state without these clips.

    Removed are keys that are clip ids, and items of lists that are a clip id or an entry about one
    (``{"clip_id": ...}``, ``[clip id, score]``), unless a list of the same length beside it may be
    in step with it.

    Args:
        state: JSON values.
        clip_ids: clips to be forgotten.
        known_ids: all clips that are known, so that lists of clips are told from other words.
    """
    removal = Removal()
    cleaned = _cleaned(state, frozenset(clip_ids), frozenset(known_ids), removal, "")
    removal.unsafe = list(mentions_of(cleaned, clip_ids))
    return cleaned, removal


def _cleaned(
    value: Any, forget: frozenset[str], known: frozenset[str], removal: Removal, path: str
) -> Any:
    if isinstance(value, Mapping):
        removal.removed += len(forget & value.keys())
        kept = {key: item for key, item in value.items() if key not in forget}
        return {
            key: (
                item
                if isinstance(item, list) and _has_partner(key, kept, known, forget)
                else _cleaned(item, forget, known, removal, f"{path}.{key}")
            )
            for key, item in kept.items()
        }
    if isinstance(value, list):
        kept_items = [item for item in value if not _is_about(item, forget, known)]
        removal.removed += len(value) - len(kept_items)
        return [_cleaned(item, forget, known, removal, path) for item in kept_items]
    return value


def _is_about(item: Any, forget: frozenset[str], known: frozenset[str]) -> bool:
    """Whether an item of a list is a clip's id, or an entry about a clip."""
    if isinstance(item, str):
        return item in forget
    if isinstance(item, Mapping):
        return any(isinstance(value, str) and value in forget for value in item.values())
    if isinstance(item, list) and not _is_made_of_clips(item, known):
        return any(isinstance(value, str) and value in forget for value in item)
    return False


def _has_partner(
    key: str, siblings: Mapping[str, Any], known: frozenset[str], forget: frozenset[str]
) -> bool:
    """Whether the list under a key would lose items that a list beside it may be in step with."""
    mine = siblings[key]
    return _loses_items(mine, forget, known) and any(
        isinstance(other, list) and len(other) == len(mine) and not _is_made_of_clips(other, known)
        for name, other in siblings.items()
        if name != key
    )


def _loses_items(items: list[Any], forget: frozenset[str], known: frozenset[str]) -> bool:
    """Whether a list, or a list in it, holds something about a clip to be forgotten."""
    return any(
        _is_about(item, forget, known)
        or (isinstance(item, list) and _loses_items(item, forget, known))
        for item in items
    )


def _is_made_of_clips(value: Any, known: frozenset[str]) -> bool:
    """Whether a value is a clip's id, or a list of nothing but such values."""
    if isinstance(value, list):
        return all(_is_made_of_clips(item, known) for item in value)
    return isinstance(value, str) and value in known
