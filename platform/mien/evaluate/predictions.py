"""Per-clip predictions as a Parquet table: written first, every score is computed from it.

One row for each clip and input condition (``modality``); the label set travels in the file's
metadata. Shapes: N clips, K classes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.clips.labels import LabelError, LabelSet
from mien.evaluate.metrics import softmax
from mien.media.storage import read_bytes, write_bytes_atomically

MODALITIES = ("video+audio", "video", "audio")
"""Which inputs the network was given, most complete first."""
UNLABELLED = -1
"""``true_index`` of clips without a label."""
_LABEL_SET_KEY = b"mien.label_set"

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("subject_id", pa.string()),
        ("split", pa.string()),
        ("modality", pa.string()),
        ("label", pa.string()),
        ("true_index", pa.int32()),
        ("predicted", pa.string()),
        ("predicted_index", pa.int32()),
        ("logits", pa.list_(pa.float32())),
        ("probabilities", pa.list_(pa.float32())),
        ("has_audio", pa.bool_()),
        ("face_share", pa.float32()),
        ("weights_sha256", pa.string()),
    ]
)
"""``face_share``: share of the sampled frames in which a face was found."""


class PredictionsError(ValueError):
    """Predictions that contradict each other, or a file that holds none."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one model. Made by :func:`make_predictions` or :func:`read_predictions`.

    Raises:
        PredictionsError: missing columns, or a clip twice under the same modality.
    """

    table: pa.Table
    """Columns of ``SCHEMA``."""
    label_set: LabelSet

    def __post_init__(self) -> None:
        if missing := [name for name in SCHEMA.names if name not in self.table.column_names]:
            raise PredictionsError(f"predictions lack the columns {', '.join(missing)}")
        _refuse_duplicates(self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that occur, most complete first."""
        found = set(self.table["modality"].to_pylist())
        return tuple(name for name in MODALITIES if name in found) + tuple(
            sorted(found - set(MODALITIES))
        )

    def of_modality(self, modality: str) -> Predictions:
        """The rows of one modality."""
        mask = np.asarray(self.table["modality"].to_pylist(), dtype=object) == modality
        return Predictions(table=self.table.filter(pa.array(mask)), label_set=self.label_set)

    def labelled(self) -> Predictions:
        """The rows of clips that have a label."""
        mask = self.column("true_index") != UNLABELLED
        return Predictions(table=self.table.filter(pa.array(mask)), label_set=self.label_set)

    def column(self, name: str) -> NDArray[Any]:
        """A column as an array; lists become a matrix [N, K]."""
        values = self.table[name].to_pylist()
        if name in ("logits", "probabilities"):
            return np.asarray(values, dtype=np.float64).reshape(-1, len(self.label_set))
        return np.asarray(values)


def make_predictions(
    *,
    clip_ids: Sequence[str],
    logits_NK: NDArray[Any],
    label_set: LabelSet,
    true_N: Sequence[int] | NDArray[Any],
    modality: str = MODALITIES[0],
    split: str = "test",
    subject_ids: Sequence[str | None] | None = None,
    has_audio_N: Sequence[bool] | NDArray[Any] | None = None,
    face_share_N: Sequence[float] | NDArray[Any] | None = None,
    weights_sha256: str = "",
) -> Predictions:
    """Predictions from the logits of clips under one modality.

    Args:
        clip_ids: of the N clips.
        logits_NK: finite logits.
        label_set: of the model; K classes.
        true_N: true class indices, ``UNLABELLED`` where there is none.
        modality: one of ``MODALITIES``, or another name for a condition.
        split: where the clips come from.
        subject_ids: the person of each clip, None where unknown.
        has_audio_N: whether the clip has sound (used or not).
        face_share_N: share of the sampled frames with a face.
        weights_sha256: of the package that predicted.

    Raises:
        PredictionsError: lengths that differ, a clip twice, or logits that are not finite.
    """
    num_clips, classes = len(clip_ids), np.asarray(label_set.classes, dtype=object)
    logits_NK = np.asarray(logits_NK, dtype=np.float32)
    logits_NK = logits_NK if num_clips else logits_NK.reshape(0, len(label_set))
    true_indices_N = np.asarray(true_N, dtype=np.int32)
    _check_arrays(clip_ids, logits_NK, true_indices_N, label_set)
    predicted_N = logits_NK.argmax(axis=1)
    labels = [None if index == UNLABELLED else classes[index] for index in true_indices_N]
    columns: dict[str, Any] = {
        "clip_id": list(clip_ids),
        "subject_id": subject_ids,
        "split": [split] * num_clips,
        "modality": [modality] * num_clips,
        "label": labels,
        "true_index": true_indices_N,
        "predicted": classes[predicted_N].tolist(),
        "predicted_index": predicted_N.astype(np.int32),
        "logits": list(logits_NK),
        "probabilities": list(softmax(logits_NK).astype(np.float32)),
        "has_audio": has_audio_N,
        "face_share": face_share_N,
        "weights_sha256": [weights_sha256] * num_clips,
    }
    return Predictions(table=_table(columns, num_clips), label_set=label_set)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several modalities or splits of one model as one.

    Raises:
        PredictionsError: no parts, different label sets, or a clip twice under one modality.
    """
    if not parts:
        raise PredictionsError("no predictions to join")
    if any(part.label_set != parts[0].label_set for part in parts):
        raise PredictionsError("predictions with different label sets can't be joined")
    table = pa.concat_tables([part.table for part in parts])
    return Predictions(table=table, label_set=parts[0].label_set)


def write_predictions(location: str, predictions: Predictions) -> None:
    """Writes a Parquet file, whole or not at all.

    Raises:
        StorageError: the location can't be written.
    """
    label_set = predictions.label_set.to_json().encode()
    metadata = {**(predictions.table.schema.metadata or {}), _LABEL_SET_KEY: label_set}
    buffer = io.BytesIO()
    pq.write_table(predictions.table.replace_schema_metadata(metadata), buffer)
    write_bytes_atomically(location, buffer.getvalue())


def read_predictions(location: str) -> Predictions:
    """Reads what :func:`write_predictions` wrote.

    Raises:
        StorageError: the location can't be read.
        PredictionsError: it is not a predictions file.
    """
    try:
        table = pq.read_table(io.BytesIO(read_bytes(location)))
    except pa.ArrowInvalid as error:
        raise PredictionsError(f"{location} is not a Parquet file: {error}") from error
    return predictions_of(table, location)


def predictions_of(table: pa.Table, location: str) -> Predictions:
    """The predictions in a table that :func:`write_predictions` wrote.

    Raises:
        PredictionsError: it is not a table of predictions.
    """
    text = (table.schema.metadata or {}).get(_LABEL_SET_KEY)
    if text is None:
        raise PredictionsError(
            f"{location} holds no predictions: it carries no label set; 'mien evaluate' writes them"
        )
    try:
        return Predictions(table=table, label_set=LabelSet.from_json(text.decode()))
    except LabelError as error:
        raise PredictionsError(f"{location}: {error}") from error


def _table(columns: Mapping[str, Any], num_rows: int) -> pa.Table:
    """The columns in the schema's types and order; None stands for a column of nulls."""
    arrays = []
    for field in SCHEMA:
        values = columns[field.name]
        given = [None] * num_rows if values is None else values
        arrays.append(pa.array(given, type=field.type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _check_arrays(
    clip_ids: Sequence[str],
    logits_NK: NDArray[Any],
    true_N: NDArray[Any],
    label_set: LabelSet,
) -> None:
    if logits_NK.shape != (len(clip_ids), len(label_set)):
        raise PredictionsError(
            f"expected logits [{len(clip_ids)}, {len(label_set)}], got {list(logits_NK.shape)}"
        )
    bad = ~np.isfinite(logits_NK).all(axis=1)
    if bad.any():
        first = clip_ids[int(bad.argmax())]
        raise PredictionsError(
            f"{int(bad.sum())} clips have logits that are not finite, the first is {first!r}"
        )
    if len(true_N) != len(clip_ids):
        raise PredictionsError(f"{len(clip_ids)} clips but {len(true_N)} labels")
    if len(true_N) and not (true_N.min() >= UNLABELLED and true_N.max() < len(label_set)):
        raise PredictionsError(
            f"labels must be -1 to {len(label_set) - 1}, got {true_N.min()} to {true_N.max()}"
        )


def _refuse_duplicates(table: pa.Table) -> None:
    counts = table.group_by(["clip_id", "modality"]).aggregate([([], "count_all")])
    twice = [row for row in counts.to_pylist() if row["count_all"] > 1]
    if twice:
        names = ", ".join(sorted({repr(row["clip_id"]) for row in twice})[:5])
        raise PredictionsError(
            f"{len(twice)} clips are predicted twice under the same modality: {names}"
        )
