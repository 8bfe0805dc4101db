"""Who is trained on, who is chosen by, who is tested on: splits in which no person is shared.

A person is a `subject_id`. A clip without one counts as its `source`'s (the same film or session
holds the same people), and without a source as a person of its own; a split that had to assume so
says it in `notes`.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mien.clips.manifest import Manifest
from mien.clips.schema import naming
from mien.seeds import generator

PARTS = ("train", "val", "test")


class SplitError(ValueError):
    """A split that cannot be made, or in which people or clips are shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Clip ids of the three parts; clips of a manifest may be in none.

    Raises:
        SplitError: a clip in two parts, or twice in one.
    """

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What had to be assumed; shown to the user and logged with the run."""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in PARTS:
            object.__setattr__(self, part, tuple(getattr(self, part)))
            for clip_id in getattr(self, part):
                if clip_id in seen:
                    raise SplitError(
                        f"split {self.name!r}: clip {clip_id!r} is in {seen[clip_id]} and in "
                        f"{part}; every clip may be in one part, once"
                    )
                seen[clip_id] = part

    def assert_subject_exclusive(self, manifest: Manifest) -> None:
        """Check that nobody is in two parts.

        Raises:
            SplitError: names the people and some of their clips.
            ManifestError: a clip of the split is not in the manifest.
        """
        person_of = _people(manifest)
        parts_of: dict[str, dict[str, str]] = defaultdict(dict)
        for part in PARTS:
            for clip_id in getattr(self, part):
                parts_of[person_of[manifest.row_of(clip_id)]].setdefault(part, clip_id)
        shared = {person: found for person, found in parts_of.items() if len(found) > 1}
        if shared:
            told = [
                f"{_told(person)} ({', '.join(f'{clip!r} in {part}' for part, clip in c.items())})"
                for person, c in sorted(shared.items())[:5]
            ]
            raise SplitError(
                f"split {self.name!r}: {len(shared)} subject(s) in more than one part: "
                f"{'; '.join(told)}. Results on people seen in training are worthless; make the "
                "split with split_by_subject, or correct subject_id."
            )

    @property
    def content_hash(self) -> str:
        """sha256 of which clips are where; name, notes and order of the clips do not count."""
        parts = {part: sorted(getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The split as JSON."""
        parts = {part: list(getattr(self, part)) for part in PARTS}
        return json.dumps({"name": self.name, **parts, "notes": list(self.notes)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises:
            SplitError: not JSON, or not a split.
        """
        try:
            data = json.loads(text)
            parts = {part: tuple(data[part]) for part in PARTS}
            return cls(name=data["name"], notes=tuple(data.get("notes", ())), **parts)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SplitError(
                f"not a split: {text[:80]!r}; expected JSON with name, train, val and test"
            ) from error


def _people(manifest: Manifest) -> list[str]:
    """The person of each row; a prefix keeps ids, sources and clips apart."""
    columns = [manifest.column(name) for name in ("subject_id", "source", "clip_id")]
    return [
        f"subject:{subject}"
        if subject is not None
        else (f"source:{source}" if source is not None else f"clip:{clip}")
        for subject, source, clip in zip(*columns, strict=True)
    ]


def _told(person: str) -> str:
    kind, name = person.split(":", 1)
    return repr(name) if kind == "subject" else f"{kind} {name!r} (no subject_id)"


def _notes(people: Iterable[str]) -> tuple[str, ...]:
    kinds = [person.split(":", 1)[0] for person in people]
    by_source, by_clip = kinds.count("source"), kinds.count("clip")
    notes = []
    if by_source:
        notes.append(f"{by_source} clips have no subject_id: each source is taken for one person")
    if by_clip:
        notes.append(
            f"{by_clip} clips have neither subject_id nor source: each is taken for a person of "
            "its own, so the same face may be in training and in test"
        )
    return tuple(notes)


def _allot(
    people: Sequence[str], labels: Sequence[str | None], shares: Sequence[float], seed_parts: str
) -> npt.NDArray[np.int64]:
    """Give each person to one of the parts so that each label is shared as wished, greedily.

    People with many clips first (a seeded order among equals); each goes where the squared distance
    from the wished label counts falls most. Returns the part of each row [N].
    """
    names = sorted(set(people))
    number = {name: i for i, name in enumerate(names)}
    classes = {c: i for i, c in enumerate(sorted({str(label) for label in labels}))}
    counts_PK = np.zeros((len(names), len(classes)))
    for person, label in zip(people, labels, strict=True):
        counts_PK[number[person], classes[str(label)]] += 1
    wished_GK = np.outer(shares, counts_PK.sum(0))
    shuffled = generator("split", seed_parts).permutation(len(names))
    order = shuffled[np.argsort(-counts_PK.sum(1)[shuffled], kind="stable")]
    # Rare classes weigh as much as common ones; parts are compared relative to their size.
    scale_GK = np.maximum(wished_GK, 1e-9)
    have_GK = np.zeros_like(wished_GK)
    part_P = np.zeros(len(names), dtype=np.int64)
    for person in order:
        lack_GK = wished_GK - have_GK
        gain_G = ((2 * lack_GK - counts_PK[person]) * counts_PK[person] / scale_GK).sum(1)
        gain_G[np.asarray(shares) == 0] = -np.inf
        part_P[person] = int(np.argmax(gain_G))
        have_GK[part_P[person]] += counts_PK[person]
    _fill_empty(part_P, shares, counts_PK.sum(1))
    return np.asarray([part_P[number[person]] for person in people], dtype=np.int64)


def _fill_empty(
    part_P: npt.NDArray[np.int64], shares: Sequence[float], sizes_P: npt.NDArray[np.float64]
) -> None:
    """Few people can leave a wished part empty; it gets the smallest person of the fullest part."""
    for part, share in enumerate(shares):
        if share > 0 and not (part_P == part).any():
            fullest = int(np.argmax(np.bincount(part_P, minlength=len(shares))))
            inside = np.flatnonzero(part_P == fullest)
            part_P[inside[np.argmin(sizes_P[inside])]] = part


def split_by_subject(
    manifest: Manifest, *, fractions: Mapping[str, float] | None = None, seed: int = 0
) -> Split:
    """Split by person, with the labels shared out as evenly as whole people allow.

    `fractions` are of the clips; the default is train 0.7, val 0.1, test 0.2. Every part that has a
    fraction gets at least one person. The result does not depend on the order of the rows.

    Raises:
        SplitError: fractions that do not sum to 1, or fewer people than parts.
    """
    fractions = dict(fractions or {"train": 0.7, "val": 0.1, "test": 0.2})
    unknown = sorted(set(fractions) - set(PARTS))
    shares = [fractions.get(part, 0.0) for part in PARTS]
    if unknown or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise SplitError(
            f"fractions={fractions}: expected shares >= 0 of {', '.join(PARTS)} that sum to 1"
        )
    people = _people(manifest)
    parts = sum(share > 0 for share in shares)
    _need_people(people, parts, f"{parts} parts")
    part_of = _allot(people, manifest.column("label"), shares, str(seed))
    clips = manifest.column("clip_id")
    chosen = {
        part: tuple(sorted(c for c, p in zip(clips, part_of, strict=True) if p == i))
        for i, part in enumerate(PARTS)
    }
    split = Split(name=f"by_subject-seed{seed}", notes=_notes(people), **chosen)
    split.assert_subject_exclusive(manifest)
    return split


def _need_people(people: Sequence[str], wanted: int, what: str) -> None:
    if len(set(people)) < wanted:
        raise SplitError(
            f"{len(set(people))} subject(s) cannot be shared out over {what}: "
            f"{naming(_told(p) for p in sorted(set(people)))}. Add people, or ask for fewer parts."
        )


def folds_by_subject(manifest: Manifest, *, num_folds: int, seed: int = 0) -> tuple[Split, ...]:
    """Cross-validation by person: every clip is tested once. Validation is empty; see
    `carve_validation`.

    Raises:
        SplitError: fewer than two folds, or fewer people than folds.
    """
    if num_folds < 2:
        raise SplitError(f"num_folds={num_folds}: expected at least 2")
    people = _people(manifest)
    _need_people(people, num_folds, f"{num_folds} folds")
    shares = [1 / num_folds] * num_folds
    fold_of = _allot(people, manifest.column("label"), shares, f"folds-{seed}")
    clips = manifest.column("clip_id")
    splits = []
    for fold in range(num_folds):
        test = tuple(sorted(c for c, f in zip(clips, fold_of, strict=True) if f == fold))
        train = tuple(sorted(c for c, f in zip(clips, fold_of, strict=True) if f != fold))
        name = f"fold{fold + 1}of{num_folds}-seed{seed}"
        split = Split(name=name, train=train, test=test, notes=_notes(people))
        split.assert_subject_exclusive(manifest)
        splits.append(split)
    return tuple(splits)


def carve_validation(
    manifest: Manifest, train_ids: Sequence[str], *, fraction: float = 0.1, seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cut a validation part, by person, out of training clips; returns (train, val).

    This is how models are chosen where a protocol has no validation part: never by the test fold.

    Raises:
        SplitError: fraction outside of (0, 1), or a single person.
        ManifestError: an unknown clip id.
    """
    if not 0 < fraction < 1:
        raise SplitError(f"fraction={fraction}: expected a share between 0 and 1, such as 0.1")
    fractions = {"train": 1 - fraction, "val": fraction}
    cut = split_by_subject(manifest.by_ids(train_ids), fractions=fractions, seed=seed)
    return cut.train, cut.val


def split_from_columns(manifest: Manifest, *, fold: int | None = None) -> Split:
    """The official split: column `split` (train, val, test), or `fold` as the tested fold.

    With `fold` given, clips of that fold are the test part and clips of all other folds the
    training part; otherwise the `split` column decides. Clips with null are in no part. Official
    splits are not always by person, so this does not assert it; call `assert_subject_exclusive`.

    Raises:
        SplitError: no usable column, an unknown value, or nothing to train on.
    """
    if fold is not None:
        return _from_folds(manifest, fold)
    chosen: dict[str, list[str]] = {part: [] for part in PARTS}
    pairs = zip(manifest.column("clip_id"), manifest.column("split"), strict=True)
    for clip_id, part in pairs:
        if part is None:
            continue
        if part not in chosen:
            raise SplitError(
                f"clip {clip_id!r} has split {part!r}; expected {', '.join(PARTS)} or null"
            )
        chosen[part].append(clip_id)
    if not chosen["train"]:
        raise SplitError(
            "no clip has split 'train'; fill the manifest's split column, or split by subject"
        )
    named = {part: tuple(sorted(ids)) for part, ids in chosen.items()}
    return Split(name="columns", notes=_notes(_people(manifest)), **named)


def _from_folds(manifest: Manifest, fold: int) -> Split:
    folds = manifest.column("fold")
    known = sorted({f for f in folds if f is not None})
    if fold not in known:
        raise SplitError(f"no clip is in fold {fold}; the manifest's folds are {known or 'none'}")
    clips = manifest.column("clip_id")
    pairs = [(c, f) for c, f in zip(clips, folds, strict=True) if f is not None]
    train = tuple(sorted(c for c, f in pairs if f != fold))
    test = tuple(sorted(c for c, f in pairs if f == fold))
    if not train:
        raise SplitError(f"all clips are in fold {fold}; nothing is left to train on")
    return Split(name=f"fold{fold}", train=train, test=test, notes=_notes(_people(manifest)))


def with_validation(split: Split, manifest: Manifest, *, fraction: float, seed: int = 0) -> Split:
    """The split with a validation part cut out of its training part, if it has none."""
    if split.val:
        return split
    train, val = carve_validation(manifest, split.train, fraction=fraction, seed=seed)
    return replace(split, train=train, val=val)
