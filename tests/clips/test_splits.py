"""Splits: nobody in two parts, classes balanced, official columns."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.clips.manifest import Manifest
from mien.clips.splits import (
    PARTS,
    Split,
    SplitError,
    carve_validation,
    folds_by_subject,
    split_by_subject,
    split_from_columns,
    with_validation,
)


def manifest_of(*clips: tuple[Any, ...], names: tuple[str, ...] = ("subject_id",)) -> Manifest:
    """Clips c0, c1, ... with these values of the columns."""
    return Manifest.from_rows(
        [
            {"clip_id": f"c{i}", "uri": f"{i}.mp4", **dict(zip(names, values, strict=True))}
            for i, values in enumerate(clips)
        ]
    )


def people_in(manifest: Manifest, split: Split) -> dict[str, set[str]]:
    subjects = dict(zip(manifest.column("clip_id"), manifest.column("subject_id"), strict=True))
    return {part: {subjects[clip] for clip in getattr(split, part)} for part in PARTS}


ANYBODY = st.lists(
    st.tuples(st.integers(0, 12).map("s{}".format), st.sampled_from(["x", "y", "z", None])),
    min_size=1,
    max_size=60,
)


@given(clips=ANYBODY, seed=st.integers(0, 5), data=st.data())
def test_everybody_is_in_one_part_and_every_clip_too(
    clips: list[tuple[str, str | None]], seed: int, data: st.DataObject
) -> None:
    manifest = manifest_of(*clips, names=("subject_id", "label"))
    num_people = len({subject for subject, _ in clips})
    if num_people < 3:
        with pytest.raises(SplitError, match="3 parts need at least 3 people"):
            split_by_subject(manifest, seed=seed)
        return
    split = split_by_subject(manifest, seed=seed)
    people = people_in(manifest, split)
    assert sum(len(part) for part in people.values()) == num_people
    assert all(people.values())
    everything = (*split.train, *split.val, *split.test)
    assert sorted(everything) == sorted(manifest.column("clip_id"))
    order = data.draw(st.permutations(manifest.column("clip_id")))
    assert split_by_subject(manifest.by_ids(order), seed=seed) == split
    assert Split.from_json(split.to_json()) == split


def test_the_order_of_rows_decides_no_tie() -> None:
    clips = [("s0", "z"), ("s0", "x"), ("s0", "z"), ("s1", "x"), ("s1", "y"), ("s1", "z")]
    manifest = manifest_of(*clips, ("s2", "x"), names=("subject_id", "label"))
    splits = {
        split_by_subject(manifest.by_ids(order), seed=0)
        for order in itertools.permutations(manifest.column("clip_id"))
    }
    assert len(splits) == 1


@given(clips=ANYBODY, num_folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_every_clip_is_tested_once_and_by_strangers(
    clips: list[tuple[str, str | None]], num_folds: int, seed: int
) -> None:
    manifest = manifest_of(*clips, names=("subject_id", "label"))
    if len({subject for subject, _ in clips}) < num_folds:
        with pytest.raises(SplitError, match="people"):
            folds_by_subject(manifest, num_folds=num_folds, seed=seed)
        return
    folds = folds_by_subject(manifest, num_folds=num_folds, seed=seed)
    tested = [clip for fold in folds for clip in fold.test]
    assert sorted(tested) == sorted(manifest.column("clip_id"))
    for fold in folds:
        people = people_in(manifest, fold)
        assert people["train"]
        assert people["test"]
        assert not people["train"] & people["test"]
        assert len(fold.train) + len(fold.test) == len(manifest)


def test_classes_and_sizes_are_as_asked_for() -> None:
    labels = ["x"] * 6 + ["y"] * 3 + ["z"]
    clips = [(f"s{person}", label) for person in range(50) for label in labels]
    manifest = manifest_of(*clips, names=("subject_id", "label"))
    split = split_by_subject(manifest, seed=0)
    assert [len(getattr(split, part)) for part in PARTS] == [350, 50, 100]


def test_a_rare_class_of_few_people_is_in_every_part() -> None:
    clips = [(f"s{person}", "common") for person in range(60) for _ in range(5)]
    clips += [(f"s{person}", "rare") for person in range(10)]
    manifest = manifest_of(*clips, names=("subject_id", "label"))
    label_of = dict(zip(manifest.column("clip_id"), manifest.column("label"), strict=True))
    for seed in range(5):
        split = split_by_subject(manifest, seed=seed)
        rare = {
            part: Counter(label_of[clip] for clip in getattr(split, part))["rare"] for part in PARTS
        }
        assert rare == {"train": 7, "val": 1, "test": 2}


def test_seeds_give_other_splits_even_when_everybody_has_other_numbers_of_clips() -> None:
    clips = [(f"s{person}",) for person in range(20) for _ in range(20 + person)]
    hashes = {split_by_subject(manifest_of(*clips), seed=seed).content_hash for seed in range(5)}
    assert len(hashes) == 5


def test_a_part_may_be_left_out() -> None:
    manifest = manifest_of(*[(f"s{i}",) for i in range(10)])
    split = split_by_subject(manifest, fractions={"train": 0.8, "test": 0.2}, seed=0)
    assert [len(getattr(split, part)) for part in PARTS] == [8, 0, 2]
    # What a recipe computes for 0: a rounding error away from it.
    fractions = {"train": 1 - 0.9 - 0.1, "val": 0.9, "test": 0.1}
    assert split_by_subject(manifest, fractions=fractions, seed=0).train == ()


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.5, "val": -0.5}, {"training": 1.0}, {}]
)
def test_fractions_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(SplitError, match=r"sum to 1|no part is called training"):
        split_by_subject(manifest_of(("s",)), fractions=fractions, seed=0)


def test_clips_without_a_person_go_by_source_and_it_is_noted() -> None:
    clips = [(None, f"film{i % 6}") for i in range(60)] + [(None, None)] * 20
    manifest = manifest_of(*clips, names=("subject_id", "source"))
    split = split_by_subject(manifest, seed=0)
    source_of = dict(zip(manifest.column("clip_id"), manifest.column("source"), strict=True))
    films = [{source_of[c] for c in getattr(split, part)} - {None} for part in PARTS]
    assert sum(len(f) for f in films) == 6
    [note] = split.notes
    assert "80 of 80 clips have no subject_id" in note
    assert "60 of them were kept together by their 6 sources" in note
    assert split_by_subject(manifest_of(("a",), ("b",), ("c",)), seed=0).notes == ()


def test_a_person_and_a_source_of_the_same_name_are_two() -> None:
    manifest = manifest_of(("x", None), (None, "x"), (None, "c0"), names=("subject_id", "source"))
    split = split_by_subject(manifest, seed=0)
    assert all(len(getattr(split, part)) == 1 for part in PARTS)


def test_somebody_in_two_parts_is_named_with_clips() -> None:
    manifest = manifest_of(("anna",), ("ben",), ("anna",), (None,), (None,))
    Split(name="ok", train=("c0", "c2"), test=("c1",)).assert_subject_exclusive(manifest)
    Split(name="ok", train=("c0", "c3"), test=("c1", "c4")).assert_subject_exclusive(manifest)
    bad = Split(name="bad", train=("c0",), val=("c1",), test=("c2",))
    with pytest.raises(SplitError, match=r"'anna' is in train \(c0\) and test \(c2\)") as error:
        bad.assert_subject_exclusive(manifest)
    assert "ben" not in str(error.value)


def test_clips_that_left_the_manifest_do_not_matter_unless_all_did() -> None:
    manifest = manifest_of(("anna",), ("ben",))
    Split(name="x", train=("c0", "gone"), test=("c1",)).assert_subject_exclusive(manifest)
    with pytest.raises(SplitError, match="made of other data"):
        Split(name="x", train=("p",), test=("q",)).assert_subject_exclusive(manifest)


def test_a_clip_belongs_to_one_part() -> None:
    with pytest.raises(SplitError, match=r"1 clips more than once: c1"):
        Split(name="x", train=("c0", "c1"), val=(), test=("c1",))


def test_the_hash_is_of_the_parts_only() -> None:
    first = Split(name="x", train=("a", "b"), test=("c",))
    same = Split(name="y", train=("b", "a"), test=("c",), notes=("n",))
    other = Split(name="x", train=("a",), val=("b",), test=("c",))
    assert first.content_hash == same.content_hash != other.content_hash


def test_a_split_file_changed_by_hand_is_refused() -> None:
    text = Split(name="x", train=("a", "b"), test=("c",)).to_json()
    with pytest.raises(SplitError, match="changed after it was written"):
        Split.from_json(text.replace('"b"', '"d"'))
    with pytest.raises(SplitError, match="not a split"):
        Split.from_json("{}")


def test_validation_is_cut_from_train_by_person() -> None:
    manifest = manifest_of(*[(f"s{i // 4}",) for i in range(80)])
    split = split_by_subject(manifest, fractions={"train": 0.8, "test": 0.2}, seed=1)
    train, val = carve_validation(manifest, split.train, fraction=0.25, seed=1)
    assert sorted((*train, *val)) == sorted(split.train)
    assert len(val) == 16
    cut = with_validation(split, manifest, fraction=0.25, seed=1)
    assert (cut.train, cut.val, cut.test) == (train, val, split.test)
    cut.assert_subject_exclusive(manifest)
    assert with_validation(cut, manifest, fraction=0.5, seed=1) == cut
    with pytest.raises(SplitError, match="fraction=1"):
        carve_validation(manifest, split.train, fraction=1, seed=1)


def test_the_official_split_is_taken_as_it_is() -> None:
    manifest = manifest_of(
        ("a", "train"), ("b", "val"), ("c", "test"), ("d", None), names=("subject_id", "split")
    )
    split = split_from_columns(manifest)
    assert (split.train, split.val, split.test) == (("c0",), ("c1",), ("c2",))
    assert any("1 clips are in no part" in note for note in split.notes)


def test_official_folds() -> None:
    manifest = manifest_of(
        ("a", 1), ("b", 2), ("c", 3), ("a", 1), (None, None), names=("subject_id", "fold")
    )
    split = split_from_columns(manifest, fold=1)
    assert (split.train, split.val, split.test) == (("c1", "c2"), (), ("c0", "c3"))
    with pytest.raises(SplitError, match="column `fold` holds 1, 2, 3"):
        split_from_columns(manifest, fold=4)


def test_an_official_split_with_somebody_in_two_parts_is_refused() -> None:
    manifest = manifest_of(("a", "train"), ("a", "test"), names=("subject_id", "split"))
    with pytest.raises(SplitError, match="'a' is in train"):
        split_from_columns(manifest)


def test_a_source_in_two_parts_of_an_official_split_is_noted() -> None:
    manifest = manifest_of(
        (None, "film", "train"),
        (None, "film", "test"),
        names=("subject_id", "source", "split"),
    )
    notes = split_from_columns(manifest).notes
    assert any("1 sources have clips in two parts: film" in note for note in notes)


@pytest.mark.parametrize(("value", "message"), [(None, "no clip says"), ("exam", "'exam'")])
def test_a_split_column_that_is_none_is_refused(value: str | None, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split_from_columns(manifest_of(("a", value), names=("subject_id", "split")))
