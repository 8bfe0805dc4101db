"""The predictions table: round trip, duplicates, things that are not predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.clips.labels import LabelSet
from mien.evaluate.predictions import (
    SCHEMA,
    PredictionsError,
    join_predictions,
    make_predictions,
    read_predictions,
    write_predictions,
)
from mien.media.storage import StorageError

LABELS = LabelSet(name="two", classes=("überrascht", "froh"))
LOGITS = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, -3.0]])


def some(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "clip_ids": ["a", "b", "c"],
        "logits_NK": LOGITS,
        "label_set": LABELS,
        "true_N": [0, 0, -1],
        "subject_ids": ["ann", "bob", None],
        "has_audio_N": [True, False, True],
        "face_share_N": [1.0, 0.5, 0.0],
        "weights_sha256": "ab",
    }
    return make_predictions(**{**settings, **changes})


def test_rows_say_what_was_predicted() -> None:
    rows = some().table.to_pylist()
    assert rows[1]["label"] == "überrascht"
    assert rows[1]["predicted"] == "froh"
    assert rows[1]["probabilities"][1] == pytest.approx(1 / (1 + np.exp(-1)))
    assert (rows[1]["has_audio"], rows[1]["face_share"]) == (False, 0.5)
    assert (rows[2]["label"], rows[2]["true_index"], rows[2]["subject_id"]) == (None, -1, None)


def test_round_trip(tmp_path: Path) -> None:
    path = str(tmp_path / "out" / "predictions.parquet")
    both = join_predictions([some(modality="audio"), some(), some(modality="video")])
    write_predictions(path, both)
    found = read_predictions(path)
    assert found.label_set == LABELS
    assert found.table.equals(both.table)
    assert found.modalities == ("video+audio", "video", "audio")
    assert np.array_equal(found.of_modality("video").column("logits"), LOGITS)
    assert len(found.labelled()) == 6
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.parquet"]


def test_empty_predictions_are_a_table_too(tmp_path: Path) -> None:
    nothing = make_predictions(clip_ids=[], logits_NK=np.zeros((0, 2)), label_set=LABELS, true_N=[])
    write_predictions(str(tmp_path / "p.parquet"), nothing)
    assert len(read_predictions(str(tmp_path / "p.parquet"))) == 0


def test_duplicates_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"1 clips are predicted twice.*'a'"):
        some(clip_ids=["a", "b", "a"])
    with pytest.raises(PredictionsError, match="3 clips are predicted twice"):
        join_predictions([some(), some()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits_NK": np.full((3, 2), np.nan)}, "3 clips have logits that are not finite.*'a'"),
        ({"logits_NK": np.zeros((3, 4))}, r"expected logits \[3, 2\], got \[3, 4\]"),
        ({"true_N": [0, 1]}, "3 clips but 2 labels"),
        ({"true_N": [0, 1, 2]}, "labels must be -1 to 1, got 0 to 2"),
    ],
)
def test_bad_arrays_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PredictionsError, match=message):
        some(**changes)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not parquet at all")
    with pytest.raises(PredictionsError, match="is not a Parquet file"):
        read_predictions(str(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "manifest.parquet")
    with pytest.raises(PredictionsError, match="carries no label set"):
        read_predictions(str(tmp_path / "manifest.parquet"))
    with pytest.raises(StorageError, match=r"nothing\.parquet"):
        read_predictions(str(tmp_path / "nothing.parquet"))


def test_lost_column_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    write_predictions(path, some())
    pq.write_table(pq.read_table(path).drop_columns(["modality"]), path)
    with pytest.raises(PredictionsError, match="lack the columns modality"):
        read_predictions(path)


def test_the_schema_is_written_down() -> None:
    assert some().table.schema.equals(SCHEMA)
