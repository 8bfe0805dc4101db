"""What is compared: predictions of clips or windows, and which of them belong together.

Shapes: N rows (a clip, or one person in one window), K classes, D features.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.evaluate.predictions import Predictions
from mien.media.storage import write_bytes_atomically
from mien.monitor.clip_keys import with_clip_keys

REFERENCE_FILE = "monitor-reference.parquet"
"""Lies in a package beside its weights."""
MAX_REFERENCE_ROWS = 2000
_FACTS_KEY = b"mien.monitor"
Floats = NDArray[np.float64]


class SampleError(ValueError):
    """A file that holds no predictions, or predictions that can't be compared."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Predictions of one model.

    Raises:
        SampleError: no rows, or arrays of different lengths.
    """

    classes: tuple[str, ...]
    weights_sha256: str
    """Of the model; empty where unknown."""
    unit_N: NDArray[np.int64]
    """What is drawn in a bootstrap: a film, or a person with all of their clips."""
    strand_N: NDArray[np.int64]
    """Rows of one person in one film have the same number."""
    start_s_N: Floats
    probabilities_NK: Floats
    """NaN of windows in which nobody was found."""
    face_share_N: Floats
    """Share of the frames in which the face was found, 0 where nobody was; NaN where unknown."""
    has_audio_N: Floats
    """1 or 0; NaN where unknown."""
    features_ND: NDArray[np.float32] | None = None
    """Of the network's last layer; NaN where probabilities are. None where they were not kept."""
    picture_NP: NDArray[np.float32] | None = None
    """See `picture_statistics`; NaN and None as with features."""
    clip_ids_N: NDArray[np.str_] | None = None
    """Of clips that were evaluated; None of windows, and of a reference that was read."""

    def __post_init__(self) -> None:
        if not len(self):
            raise SampleError("there are no predictions to compare")
        lengths = {len(values) for values in self.arrays().values()}
        if lengths != {len(self)}:
            raise SampleError(f"columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.unit_N)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that has a value a row, by name."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def rows(self, chosen: NDArray[Any]) -> Sample:
        """Some of the rows, by mask or by number."""
        return dataclasses.replace(
            self, **{name: values[chosen] for name, values in self.arrays().items()}
        )

    @property
    def has_label_N(self) -> NDArray[np.bool_]:
        """Which rows have a label."""
        return np.asarray(np.isfinite(self.probabilities_NK).all(axis=1))

    @property
    def num_units(self) -> int:
        """Films or people."""
        return len(np.unique(self.unit_N))


def number(names: Sequence[Any]) -> NDArray[np.int64]:
    """A number from 0 for each different name."""
    known: dict[Any, int] = {}
    return np.asarray([known.setdefault(name, len(known)) for name in names], dtype=np.int64)


def sample_of_predictions(
    predictions: Predictions,
    *,
    features: Mapping[str, NDArray[Any]] | None = None,
    pictures: Mapping[str, NDArray[Any]] | None = None,
    places: Mapping[str, tuple[str, float]] | None = None,
) -> Sample:
    """The predictions of clips under their most complete modality.

    Args:
        predictions: labelled or not.
        features: of each clip id; None: not kept.
        pictures: picture statistics of each clip id; None: not kept.
        places: by clip id, the file that a clip is from and its start in it; None: each clip is a
            file of its own.

    Raises:
        SampleError: no predictions.
    """
    part = predictions.of_modality(predictions.modalities[0]) if len(predictions) else predictions
    clip_ids = part.column("clip_id").tolist()
    people = part.table["subject_id"].to_pylist()
    found = [(places or {}).get(clip, (clip, 0.0)) for clip in clip_ids]
    hashes = set(part.table["weights_sha256"].to_pylist())
    return Sample(
        classes=part.label_set.classes,
        weights_sha256=hashes.pop() if len(hashes) == 1 else "",
        unit_N=number(
            [("person", who) if who else ("file", file) for who, (file, _) in _zip(people, found)]
        ),
        strand_N=number([(file, who) for who, (file, _) in _zip(people, found)]),
        start_s_N=np.asarray([start for _, start in found], dtype=np.float64),
        probabilities_NK=part.column("probabilities"),
        face_share_N=as_floats(part.table["face_share"]),
        has_audio_N=as_floats(part.table["has_audio"].cast(pa.int8())),
        features_ND=_looked_up(features, clip_ids),
        picture_NP=_looked_up(pictures, clip_ids),
        clip_ids_N=np.asarray(clip_ids, dtype=np.str_),
    )


def thinned(sample: Sample, most: int, seed: int = 0) -> Sample:
    """At most so many rows, as even over films or people as their numbers of rows allow."""
    if len(sample) <= most:
        return sample
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(sample))
    # How many rows of its unit come before each row, in a random order.
    order = shuffled[np.argsort(sample.unit_N[shuffled], kind="stable")]
    units = sample.unit_N[order]
    first = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    lots = rng.random(len(order))
    return sample.rows(np.sort(order[np.lexsort((lots, rank))[:most]]))


def write_sample(location: str, sample: Sample) -> None:
    """Writes at most 2000 rows, without names of clips or people, in an order of chance.

    Clips have a salted hash instead, by which `mien forget` finds them.

    Raises:
        StorageError: the location can't be written.
    """
    kept = thinned(sample, MAX_REFERENCE_ROWS)
    kept = kept.rows(np.random.default_rng(0).permutation(len(kept)))
    columns = {
        name: pa.array(list(values)) if values.ndim == 2 else pa.array(values)
        for name, values in kept.arrays().items()
        if name != "clip_ids_N"
    }
    facts = json.dumps({"classes": kept.classes, "weights_sha256": kept.weights_sha256})
    table = pa.table(columns).replace_schema_metadata({_FACTS_KEY: facts.encode()})
    if kept.clip_ids_N is not None:
        table = with_clip_keys(table, kept.clip_ids_N.tolist())
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes_atomically(location, buffer.getvalue())


def sample_of_reference(table: pa.Table) -> Sample | None:
    """What :func:`write_sample` wrote; None if the table is something else.

    Raises:
        SampleError: it was damaged.
    """
    facts = (table.schema.metadata or {}).get(_FACTS_KEY)
    if facts is None:
        return None
    names = {item.name for item in dataclasses.fields(Sample)}
    columns: dict[str, Any] = {
        name: as_matrix(table[name])
        if pa.types.is_list(table.schema.field(name).type)
        else table[name].to_numpy()
        for name in table.column_names
        if name in names
    }
    told = json.loads(facts)
    try:
        return Sample(
            classes=tuple(told["classes"]), weights_sha256=told["weights_sha256"], **columns
        )
    except (TypeError, KeyError) as error:
        raise SampleError(f"a reference of another version of Mien: {error}") from error


def _looked_up(
    values: Mapping[str, NDArray[Any]] | None, clip_ids: Sequence[str]
) -> NDArray[np.float32] | None:
    if values is None:
        return None
    return np.asarray([values[clip] for clip in clip_ids], dtype=np.float32)


def as_matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of lists of the same length as [N, D]."""
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1)


def as_floats(column: pa.ChunkedArray) -> Floats:
    """A column of numbers, NaN for null."""
    values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _zip(people: Sequence[Any], found: Sequence[tuple[str, float]]) -> list[tuple[Any, Any]]:
    return list(zip(people, found, strict=True))
