"""Splits: who is trained on, who is selected on, who is tested on. A person is in one part only.

A clip without `subject_id` is taken for a clip of a person of its `source` (a film, a session)
or, where that is unknown too, of a person of its own; the split's `notes` say so, because then
nobody can promise that a person is in one part only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.balance import People, apportion
from mien.clips.manifest import Manifest
from mien.clips.row_checks import combined

PARTS = ("train", "val", "test")
NAMED_PEOPLE = 5
NAMED_CLIPS = 3
"""People, and clips of each, that an error names."""

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


class SplitError(ValueError):
    """A split that is not one, or that cannot be made of these clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which clips belong to which part.

    Raises:
        SplitError: a clip in two parts, or twice in one.
    """

    name: str
    train: tuple[str, ...]
    """Clip ids."""
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of results should know about how the split was made."""

    def __post_init__(self) -> None:
        for part in PARTS:
            object.__setattr__(self, part, tuple(getattr(self, part)))
        object.__setattr__(self, "notes", tuple(self.notes))
        everything = (*self.train, *self.val, *self.test)
        if len(set(everything)) == len(everything):
            return
        seen: set[str] = set()
        twice = [c for c in everything if c in seen or seen.add(c)]  # type: ignore[func-returns-value]
        raise SplitError(
            f"split {self.name!r} holds {len(twice)} clips more than once: "
            f"{', '.join(sorted(set(twice))[:NAMED_PEOPLE])}; each clip belongs to one part"
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the parts, whatever the order of their clips and the split's name."""
        parts = {part: sorted(getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def assert_subject_exclusive(self, manifest: Manifest) -> None:
        """Check that nobody is in two parts. Clips without `subject_id` cannot be checked.

        Raises:
            SplitError: somebody is; names people and clips. Or no clip of the split is in the
                manifest, so that it is a split of other data.
        """
        parts = _part_of_rows(self, manifest)
        if len(manifest) and any(getattr(self, p) for p in PARTS) and (parts < 0).all():
            raise SplitError(
                f"split {self.name!r} has no clip of this manifest; it was made of other data"
            )
        shared = _in_two_parts(manifest.table["subject_id"], parts)
        if shared:
            raise SplitError(
                f"split {self.name!r}: {len(shared)} people are in two parts. "
                f"{_describe(shared, manifest, parts, 'subject_id')} "
                "Split by person with split_by_subject or folds_by_subject"
            )

    def to_json(self) -> str:
        """The split as JSON, with its hash."""
        parts = {part: list(getattr(self, part)) for part in PARTS}
        notes = list(self.notes)
        return json.dumps(
            {"name": self.name, **parts, "notes": notes, "content_hash": self.content_hash}
        )

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises:
            SplitError: not JSON, not a split, or changed since it was written.
        """
        try:
            data = json.loads(text)
            parts = {part: tuple(data[part]) for part in PARTS}
            split = cls(name=data["name"], **parts, notes=tuple(data["notes"]))
            recorded = data["content_hash"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SplitError(
                f"not a split: {text[:80]!r}; expected the JSON that Split.to_json writes"
            ) from error
        if recorded != split.content_hash:
            raise SplitError(
                f"split {split.name!r} was changed after it was written: its hash is "
                f"{split.content_hash[:12]}, it says {recorded[:12]}. Make it again from the "
                "manifest rather than by hand"
            )
        return split


def split_by_subject(
    manifest: Manifest, *, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int
) -> Split:
    """Draw a split in which every person is in one part, with classes as even as can be.

    Depends on the clips and the seed only, not on the order of rows.

    Args:
        manifest: the clips.
        fractions: share of train, val and test in the clips; they sum to 1. A part that is left
            out or 0 stays empty, every other one gets at least one person.
        seed: another seed gives another split.

    Raises:
        SplitError: shares that do not sum to 1, or fewer people than parts.
    """
    shares = _checked_fractions(fractions)
    people = people_of(manifest)
    groups = _draw(people, [shares[part] for part in PARTS], seed)
    parts = {
        part: _ids(manifest, groups[people.person_of_row] == number)
        for number, part in enumerate(PARTS)
    }
    split = Split(name=f"subject-seed{seed}", **parts, notes=_notes(manifest))
    split.assert_subject_exclusive(manifest)
    return split


def folds_by_subject(manifest: Manifest, *, num_folds: int, seed: int) -> tuple[Split, ...]:
    """Cross-validation in which every person is tested on once; validation parts are empty.

    Cut a validation part from each fold's train part with `carve_validation`.

    Raises:
        SplitError: fewer than 2 folds, or fewer people than folds.
    """
    if num_folds < 2:
        raise SplitError(f"num_folds={num_folds}; cross-validation needs at least 2")
    people = people_of(manifest)
    fold_of_row = _draw(people, [1 / num_folds] * num_folds, seed)[people.person_of_row]
    notes = _notes(manifest)
    folds = []
    for fold in range(num_folds):
        split = Split(
            name=f"subject-seed{seed}-fold{fold + 1}of{num_folds}",
            train=_ids(manifest, fold_of_row != fold),
            test=_ids(manifest, fold_of_row == fold),
            notes=notes,
        )
        split.assert_subject_exclusive(manifest)
        folds.append(split)
    return tuple(folds)


def carve_validation(
    manifest: Manifest, train_ids: Sequence[str], *, fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cut a validation part from a train part, by person.

    Args:
        manifest: a manifest with these clips.
        train_ids: the train part.
        fraction: share of its clips that go to validation, in (0, 1).
        seed: another seed cuts another part.

    Returns:
        The ids that are left for training, and those for validation.

    Raises:
        SplitError: `fraction` outside of (0, 1), or only one person.
    """
    if not 0 < fraction < 1:
        raise SplitError(f"fraction={fraction}; expected a share between 0 and 1, e.g. 0.1")
    fractions = {"train": 1 - fraction, "val": fraction}
    cut = split_by_subject(manifest.by_ids(train_ids), fractions=fractions, seed=seed)
    return cut.train, cut.val


def with_validation(split: Split, manifest: Manifest, *, fraction: float, seed: int) -> Split:
    """The split with a validation part cut out of its train part; unchanged if it has one.

    Raises:
        SplitError: see `carve_validation`.
    """
    if split.val:
        return split
    train, val = carve_validation(manifest, split.train, fraction=fraction, seed=seed)
    return replace(split, train=train, val=val)


def split_from_columns(manifest: Manifest, *, fold: int | None = None) -> Split:
    """The official split that a manifest's columns hold.

    Args:
        manifest: clips with a `split` column (train, val, test) or a `fold` column.
        fold: the fold to test on; the other folds are train. None: the column `split`.

    Raises:
        SplitError: the column has no or other values, or somebody is in two parts.
    """
    if fold is None:
        parts, left_out = _parts_of_split_column(manifest)
        name = "columns"
    else:
        parts, left_out = _parts_of_fold_column(manifest, fold)
        name = f"columns-fold{fold}"
    notes = list(_notes(manifest, drawn=False))
    if left_out:
        notes.append(f"{left_out} clips are in no part of the official split and are not used.")
    if not parts["val"]:
        notes.append("The official split has no validation part.")
    split = Split(name=name, **parts)
    split.assert_subject_exclusive(manifest)
    return replace(split, notes=(*notes, *_sources_in_two_parts(split, manifest)))


def people_of(manifest: Manifest) -> People:
    """The people of a manifest's clips (see the module's docstring), with counts by label."""
    table = manifest.table
    subject = pc.binary_join_element_wise("person", table["subject_id"], " ")
    source = pc.binary_join_element_wise("source", table["source"], " ")
    clip = pc.binary_join_element_wise("clip", table["clip_id"], " ")
    people = combined(pc.coalesce(subject, source, clip)).dictionary_encode()
    labels = combined(table["label"]).dictionary_encode(null_encoding="encode")
    return People(
        names=tuple(people.dictionary.to_pylist()),
        person_of_row=np.asarray(people.indices, dtype=np.int64),
        label_of_row=np.asarray(labels.indices, dtype=np.int64),
    )


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(fractions) - set(PARTS))
    if unknown:
        raise SplitError(f"no part is called {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    shares = {part: float(fractions.get(part, 0.0)) for part in PARTS}
    # Shares such as 1 - 0.9 - 0.1 are a rounding error away from 0 and mean 0.
    shares = {part: 0.0 if abs(share) < 1e-9 else share for part, share in shares.items()}
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        listed = ", ".join(f"{part}={share:g}" for part, share in shares.items())
        raise SplitError(f"fractions {listed}; expected shares of 0 or more that sum to 1")
    return shares


def _draw(people: People, shares: Sequence[float], seed: int) -> np.ndarray[Any, Any]:
    """The part of each person."""
    wanted = sum(share > 0 for share in shares)
    if len(people.names) < wanted:
        raise SplitError(
            f"{wanted} parts need at least {wanted} people, these clips have "
            f"{len(people.names)} ({', '.join(people.names[:NAMED_PEOPLE]) or 'none'}). Add "
            "people, ask for fewer parts, or give the clips their subject_id"
        )
    return apportion(people, shares, seed)


def _ids(manifest: Manifest, is_in: Any) -> tuple[str, ...]:
    ids = manifest.table["clip_id"].filter(pa.array(np.asarray(is_in)))
    return tuple(ids.take(pc.sort_indices(ids)).to_pylist())


def _parts_of_split_column(manifest: Manifest) -> tuple[dict[str, tuple[str, ...]], int]:
    column = manifest.table["split"]
    found = set(pc.unique(column).drop_null().to_pylist())
    if not found:
        raise SplitError(
            "no clip says in its column `split` which part it belongs to; fill it with "
            f"{', '.join(PARTS)}, name a fold if there is a column `fold`, or split by subject"
        )
    if found - set(PARTS):
        raise SplitError(
            f"column `split` holds {', '.join(map(repr, sorted(found - set(PARTS))))}; expected "
            f"only {', '.join(PARTS)}"
        )
    parts = {p: _ids(manifest, pc.fill_null(pc.equal(column, p), False)) for p in PARTS}
    return parts, column.null_count


def _parts_of_fold_column(manifest: Manifest, fold: int) -> tuple[dict[str, tuple[str, ...]], int]:
    column = manifest.table["fold"]
    folds = sorted(pc.unique(column).drop_null().to_pylist())
    if fold not in folds:
        raise SplitError(
            f"no clip is in fold {fold}; column `fold` holds {', '.join(map(str, folds)) or 'none'}"
        )
    test = pc.fill_null(pc.equal(column, fold), False)
    train = pc.fill_null(pc.not_equal(column, fold), False)
    parts = {"train": _ids(manifest, train), "val": (), "test": _ids(manifest, test)}
    return parts, column.null_count


def _part_of_rows(split: Split, manifest: Manifest) -> np.ndarray[Any, Any]:
    """Number of the part of each row of a manifest, -1 where it is in none."""
    ids = manifest.table["clip_id"]
    parts = np.full(len(manifest), -1, dtype=np.int64)
    for number, part in enumerate(PARTS):
        wanted = pa.array(getattr(split, part), pa.string())
        parts[np.asarray(pc.is_in(ids, value_set=wanted))] = number
    return parts


def _in_two_parts(names: pa.ChunkedArray, parts: np.ndarray[Any, Any]) -> list[str]:
    """Names whose rows are in more than one part, sorted; nulls and part -1 do not count."""
    encoded = combined(names).dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(-1), dtype=np.int64)
    counts = (codes >= 0) & (parts >= 0)
    pairs = np.unique(np.stack([codes[counts], parts[counts]]), axis=1)
    found, times = np.unique(pairs[0], return_counts=True)
    return sorted(encoded.dictionary.take(pa.array(found[times > 1])).to_pylist())


def _describe(
    names: Sequence[str], manifest: Manifest, parts: np.ndarray[Any, Any], column: str
) -> str:
    listed = []
    for name in names[:NAMED_PEOPLE]:
        rows = np.asarray(pc.fill_null(pc.equal(manifest.table[column], name), False))
        clips = [
            f"{part} ({_few(_ids(manifest, rows & (parts == number)))})"
            for number, part in enumerate(PARTS)
            if (rows & (parts == number)).any()
        ]
        listed.append(f"{name!r} is in {' and '.join(clips)}")
    more = f"; {len(names) - NAMED_PEOPLE} more" if len(names) > NAMED_PEOPLE else ""
    return "; ".join(listed) + more + "."


def _few(ids: Collection[str]) -> str:
    shown = ", ".join(list(ids)[:NAMED_CLIPS])
    return f"{shown}, and {len(ids) - NAMED_CLIPS} more" if len(ids) > NAMED_CLIPS else shown


def _notes(manifest: Manifest, *, drawn: bool = True) -> tuple[str, ...]:
    """What is to be said about clips without a person."""
    nobody = pc.is_null(manifest.table["subject_id"])
    num_unknown = pc.sum(nobody).as_py() or 0
    if not num_unknown:
        return ()
    text = f"{num_unknown} of {len(manifest)} clips have no subject_id"
    if drawn:
        sources = manifest.table["source"].filter(nobody)
        text += (
            f"; {len(sources) - sources.null_count} of them were kept together by their "
            f"{pc.count_distinct(sources).as_py()} sources, each of the other "
            f"{sources.null_count} was taken for a person of its own"
        )
    return (f"{text}: the same person may be in two parts.",)


def _sources_in_two_parts(split: Split, manifest: Manifest) -> Iterable[str]:
    """A note where clips without a person share their source across parts."""
    is_known = pc.is_valid(manifest.table["subject_id"])
    parts = np.where(np.asarray(is_known), -1, _part_of_rows(split, manifest))
    shared = _in_two_parts(manifest.table["source"], parts)
    if shared:
        yield (
            f"{len(shared)} sources have clips in two parts: {', '.join(shared[:NAMED_PEOPLE])}"
            f"{', ...' if len(shared) > NAMED_PEOPLE else ''}."
        )
