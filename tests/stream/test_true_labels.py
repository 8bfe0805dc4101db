"""The manifest's column ``true_label`` reaches those who ask for it, and nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.stream.source import ClipSource
from mien_models.contract import StreamSpec, ViewSpec

LABELS = LabelSet(name="three", classes=("happiness", "sadness", "anger"))


def scan(manifest: Manifest, *, asks: bool, label_set: LabelSet = LABELS):
    ids = tuple(manifest.column("clip_id"))
    split = Split(name="all", train=(), val=(), test=ids)
    spec = StreamSpec(
        split="all",
        labelled=None,
        views=(ViewSpec(num_frames=1),),
        image_size_px=16,
        align_faces=False,
        with_true_label=asks,
    )
    return list(ClipSource(manifest, split, label_set, seed=0).scan(spec))


def test_truth_of_clips_without_label(synth_manifest: Path) -> None:
    some = Manifest.read(str(synth_manifest)).filter(np.arange(36) < 5)
    truth = ["sadness", None, "anger", "boredom", "happiness"]
    table = some.table.drop_columns(["label", "true_label"])
    table = table.append_column("label", pa.nulls(5, pa.string()))
    manifest = Manifest(table.append_column("true_label", pa.array(truth)), base=some.base)
    (batch,) = scan(manifest, asks=True)
    assert batch.label_B.tolist() == [-1] * 5
    # Unknown, and a class that is not among the label set's.
    assert batch.true_label_B is not None
    assert batch.true_label_B.tolist() == [1, -1, 2, -1, 0]
    (plain,) = scan(manifest, asks=False)
    assert plain.true_label_B is None


def test_a_manifest_without_the_column(synth_manifest: Path) -> None:
    some = Manifest.read(str(synth_manifest)).filter(np.arange(36) < 2)
    manifest = Manifest(some.table.drop_columns(["true_label"]), base=some.base)
    (batch,) = scan(manifest, asks=True)
    assert batch.true_label_B is not None
    assert batch.true_label_B.tolist() == [-1, -1]
