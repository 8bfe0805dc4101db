"""``data.fold``: the official fold that is tested on."""

from __future__ import annotations

import pytest

from mien.clips.manifest import Manifest
from mien.clips.splits import SplitError
from mien_jobs.data import split_clips
from mien_jobs.recipe import DataPlan


def manifest(**columns: list[object]) -> Manifest:
    names = ["a", "b", "c", "d"]
    rows = [
        {
            "clip_id": n,
            "uri": n,
            "label": "x",
            **{key: values[i] for key, values in columns.items()},
        }
        for i, n in enumerate(names)
    ]
    return Manifest.from_rows(rows)


FOLDS = manifest(fold=[1, 2, 2, 3])


def test_the_named_fold_is_tested_on() -> None:
    split = split_clips(DataPlan(fold=2, val_fraction=0.0), FOLDS)
    assert (split.train, split.val, split.test) == (("a", "d"), (), ("b", "c"))
    carved = split_clips(DataPlan(fold=2, val_fraction=0.5), FOLDS)
    assert carved.test == ("b", "c")
    assert sorted(carved.train + carved.val) == ["a", "d"]


def test_official_folds_are_not_passed_over() -> None:
    with pytest.raises(ValueError, match=r"official folds 1, 2, 3; name the one .* data\.fold=1"):
        split_clips(DataPlan(), FOLDS)
    assert split_clips(DataPlan(split_by="subject"), FOLDS).train
    with pytest.raises(ValueError, match=r"data\.split_by=subject draws its own"):
        split_clips(DataPlan(fold=1, split_by="subject"), FOLDS)
    with pytest.raises(SplitError, match="no clip is in fold 9"):
        split_clips(DataPlan(fold=9), FOLDS)


def test_the_split_column_goes_without_a_fold() -> None:
    both = manifest(fold=[1, 1, 2, 2], split=["train", "test", "train", "train"])
    assert split_clips(DataPlan(val_fraction=0.0), both).test == ("b",)
    assert split_clips(DataPlan(val_fraction=0.0, fold=2), both).test == ("c", "d")
