"""A label budget: so many labels a class are kept, the others are hidden for semi-supervision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pyarrow as pa

from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError
from mien.seeds import derive_seed

TRUE_LABEL = "true_label"

RAFDB_BUDGETS: Mapping[str, tuple[int, int]] = {
    "rafdb-100": (10, 15),
    "rafdb-400": (40, 60),
    "rafdb-1000": (100, 150),
    "rafdb-2000": (200, 300),
    "rafdb-4000": (250, 625),
}
"""Labels of fear, and of every other class, in the splits of Ada-CM (CVPR 2022) on RAF-DB."""


def named_budget(name: str, manifest: Manifest) -> dict[str, int]:
    """Labels a class of a published budget.

    Raises:
        ManifestError: no such budget.
    """
    if name not in RAFDB_BUDGETS:
        raise ManifestError(f"no budget {name!r}; there are {', '.join(RAFDB_BUDGETS)}")
    of_fear, of_others = RAFDB_BUDGETS[name]
    return {label: of_fear if label == "fear" else of_others for label in manifest.labels}


def with_label_budget(manifest: Manifest, budget: Mapping[str, int], *, seed: int) -> Manifest:
    """The manifest with labels on so many training clips of each class alone.

    Which ones is drawn by seed and clip id; a larger budget of the same seed keeps all that a
    smaller one keeps. Clips whose ``split`` is ``val`` or ``test`` keep their labels and don't
    count. What is hidden goes to the column ``true_label``, for monitors alone.

    Args:
        manifest: with labels.
        budget: labels to keep, by class; a class that is not named keeps none.
        seed: of the draw.

    Raises:
        ManifestError: a class has fewer labelled training clips than asked for, or is unknown.
    """
    ids, splits = manifest.column("clip_id"), manifest.column("split")
    labels: list[str | None] = manifest.column("label")
    trains: dict[str, list[int]] = defaultdict(list)
    for row, (label, split) in enumerate(zip(labels, splits, strict=True)):
        if label is not None and split in (None, "train"):
            trains[label].append(row)
    hidden: set[int] = set()
    for label, number in budget.items():
        if number < 0 or number > len(trains.get(label, ())):
            raise ManifestError(
                f"a budget of {number} labels of {label!r}: expected 0 to "
                f"{len(trains.get(label, ()))}, as many training clips as have it"
            )
    for label, rows in trains.items():
        drawn = sorted(rows, key=lambda row: derive_seed(seed, "label budget", ids[row]))
        hidden.update(drawn[budget.get(label, 0) :])
    table = manifest.table
    truths = manifest.column(TRUE_LABEL) if TRUE_LABEL in table.column_names else list(labels)
    soft = manifest.column("soft_label")
    columns = {
        "label": [None if row in hidden else label for row, label in enumerate(labels)],
        "soft_label": [
            None if row in hidden or shares is None else sorted(shares.items())
            for row, shares in enumerate(soft)
        ],
        TRUE_LABEL: truths,
    }
    types = {"soft_label": table.schema.field("soft_label").type}
    for name, values in columns.items():
        column = pa.array(values, types.get(name, pa.string()))
        index = table.schema.get_field_index(name)
        table = (
            table.append_column(name, column)
            if index < 0
            else table.set_column(index, name, column)
        )
    return Manifest(table, base=manifest.base)
