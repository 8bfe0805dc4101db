"""Label budgets: as many as asked for, drawn by seed, the smaller ones inside the larger ones."""

from __future__ import annotations

import pytest

from mien.clips.label_budget import RAFDB_BUDGETS, named_budget, with_label_budget
from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError


def clips(per_class: int = 6) -> Manifest:
    rows = [
        {"clip_id": f"{label}{n}", "uri": f"/{label}{n}.png", "label": label, "split": split}
        for label in ("fear", "anger")
        for n in range(per_class)
        for split in ["test" if n == 0 else "train"]
    ]
    return Manifest.from_rows(rows, base="/")


def kept(manifest: Manifest) -> set[str]:
    pairs = zip(manifest.column("clip_id"), manifest.column("label"), strict=True)
    return {clip for clip, label in pairs if label is not None}


def test_budgets_are_nested_and_test_labels_stay() -> None:
    whole = clips()
    small, large = (with_label_budget(whole, {"fear": n, "anger": n + 1}, seed=3) for n in (1, 3))
    assert kept(small) < kept(large)
    assert {"fear0", "anger0"} <= kept(small)
    assert len(kept(small)) == 2 + 1 + 2
    assert len(kept(large)) == 2 + 3 + 4
    assert small.column("true_label") == whole.column("label")
    other = with_label_budget(whole, {"fear": 1, "anger": 2}, seed=4)
    assert kept(other) != kept(small)


def test_a_known_truth_is_not_overwritten() -> None:
    table = clips(2).table
    noisy = Manifest(table.append_column("true_label", [["anger"] * len(table)]), base="/")
    few = with_label_budget(noisy, {"fear": 0, "anger": 0}, seed=0)
    assert few.column("true_label") == ["anger"] * 4


def test_too_large_and_unknown() -> None:
    with pytest.raises(ManifestError, match="6 labels of 'fear': expected 0 to 5"):
        with_label_budget(clips(), {"fear": 6}, seed=0)
    with pytest.raises(ManifestError, match="'joy': expected 0 to 0"):
        with_label_budget(clips(), {"joy": 1}, seed=0)
    with pytest.raises(ManifestError, match="there are rafdb-100"):
        named_budget("rafdb-1", clips())


def test_published_budgets_add_up() -> None:
    totals = {name: fear + 6 * others for name, (fear, others) in RAFDB_BUDGETS.items()}
    assert totals == {f"rafdb-{n}": n for n in (100, 400, 1000, 2000, 4000)}
    assert named_budget("rafdb-100", clips()) == {"anger": 15, "fear": 10}
