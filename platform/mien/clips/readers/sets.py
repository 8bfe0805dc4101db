"""Official folds that are given as five pairs of train and test lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mien.clips.readers.reading import Part

NEVER_TESTED = 0
"""Fold of clips that are in no test list which was found: trained on in every fold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLists:
    """One train and one test list."""

    number: int
    train: Mapping[str, str]
    """Clip -> label."""
    test: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Clips with their label and the fold in which each is tested on."""

    label_of: Mapping[str, str]
    fold_of: Mapping[str, int]
    notes: Sequence[str]


def folds_of(sets: Sequence[SetLists], num_published: int) -> Folds:
    """The folds that lists describe: a clip's fold is the number of the set that tests on it.

    Lists that are not what folds should be are told in the notes, and the first one that names a
    clip counts.
    """
    label_of: dict[str, str] = {}
    fold_of: dict[str, int] = {}
    other_label: list[str] = []
    tested_twice: list[str] = []
    for lists in sets:
        for clip, label in [*lists.train.items(), *lists.test.items()]:
            if label_of.setdefault(clip, label) != label:
                other_label.append(clip)
        for clip in lists.test:
            if fold_of.setdefault(clip, lists.number) != lists.number:
                tested_twice.append(clip)
    untested = [clip for clip in label_of if clip not in fold_of]
    fold_of |= dict.fromkeys(untested, NEVER_TESTED)
    notes = [
        *_few("clips have different labels in different lists; the first counts", other_label),
        *_few("clips are in the test lists of two sets; the first counts", tested_twice),
        *_incomplete(sets, untested, num_published),
    ]
    for lists in sets:
        notes += _train_differs(lists, fold_of)
    return Folds(label_of=label_of, fold_of=fold_of, notes=notes)


def parts_of(
    sizes: Mapping[int, tuple[int | Mapping[str, int], int | Mapping[str, int]]],
) -> list[Part]:
    """Train and test part of each fold, from their published sizes."""
    parts = []
    for number, (train, test) in sizes.items():
        parts.append(Part(name=f"fold {number} train", published=train, train_fold=number))
        parts.append(Part(name=f"fold {number} test", published=test, test_fold=number))
    return parts


def _incomplete(sets: Sequence[SetLists], untested: Sequence[str], published: int) -> list[str]:
    if len(sets) == published:
        return _few("clips are in no test list", untested)
    there = ", ".join(str(lists.number) for lists in sets)
    return [
        f"Only {len(sets)} of the {published} sets are there ({there}): clips that none of them "
        f"tests on have fold {NEVER_TESTED}. Test on fold {there} only."
    ]


def _train_differs(lists: SetLists, fold_of: Mapping[str, int]) -> list[str]:
    """Whether a set's train list is all clips but its test list."""
    others = {clip for clip, fold in fold_of.items() if fold != lists.number}
    lacking = others - lists.train.keys()
    both = lists.train.keys() & lists.test.keys()
    what = f"set {lists.number}"
    return [
        *_few(f"clips are in both lists of {what}; they count as tested on", sorted(both)),
        *_few(f"clips are in neither list of {what}, but in others", sorted(lacking)),
    ]


def _few(what: str, clips: Sequence[str]) -> list[str]:
    if not clips:
        return []
    more = f" and {len(clips) - 3} more" if len(clips) > 3 else ""
    return [f"{len(clips)} {what}: {', '.join(clips[:3])}{more}."]
