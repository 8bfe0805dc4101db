"""Predictions from the files that `mien predict`, `mien evaluate` and a training write."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mien.evaluate.predictions import PredictionsError, predictions_of
from mien.infer.rows import CALIBRATED, FEATURES, PROBABILITIES_KEY, WEIGHTS_KEY
from mien.media.storage import absolute, is_folder, join, list_files, read_bytes
from mien.monitor.sample import (
    Sample,
    SampleError,
    as_floats,
    as_matrix,
    number,
    sample_of_predictions,
    sample_of_reference,
)

_WINDOW_COLUMNS = ("input", "start_s", "track", "faces", "has_audio", "reason")


def read_sample(locations: Sequence[str]) -> Sample:
    """The predictions in files, or in folders that `mien predict --out FOLDER` has filled.

    Raises:
        SampleError: nothing that holds predictions, or tables of different models.
        StorageError: a location that can't be read.
    """
    files = [file for location in locations for file in _files(absolute(location))]
    tables = [(file, _read(file)) for file in files]
    windows = [(file, table) for file, table in tables if "reason" in table.column_names]
    if windows and len(windows) < len(tables):
        others = next(file for file, table in tables if "reason" not in table.column_names)
        raise SampleError(f"{others} holds no windows of `mien predict`, but {windows[0][0]} does")
    if windows:
        return _of_windows(windows)
    if len(tables) > 1:
        raise SampleError(
            f"expected one file of `mien evaluate`, or tables of `mien predict`; got {len(tables)} "
            f"files: {', '.join(files[:3])}"
        )
    return _of_clips(*tables[0])


def _files(location: str) -> list[str]:
    if not is_folder(location):
        return [location]
    for folder in (join(location, "windows"), location):
        found = [join(folder, name) for name in list_files(folder) if name.endswith(".parquet")]
        if found:
            return sorted(found)
    raise SampleError(
        f"{location} holds no tables to compare: expected a folder that `mien predict --out` "
        "filled with Parquet (--format parquet), or a file predictions-*.parquet"
    )


def _read(file: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(read_bytes(file)))
    except pa.ArrowInvalid as error:
        raise SampleError(
            f"{file} is not a Parquet file; `mien predict --format parquet` and `mien evaluate` "
            f"write some: {error}"
        ) from error


def _of_clips(file: str, table: pa.Table) -> Sample:
    reference = sample_of_reference(table)
    if reference is not None:
        return reference
    try:
        return sample_of_predictions(predictions_of(table, file))
    except PredictionsError as error:
        raise SampleError(str(error)) from error


def _of_windows(tables: Sequence[tuple[str, pa.Table]]) -> Sample:
    first_file, first = tables[0]
    names = [name for name in first.column_names if name.startswith("p_")]
    features = [name for name in FEATURES if all(name in table.column_names for _, table in tables)]
    hashes = set()
    for file, table in tables:
        missing = [name for name in (*_WINDOW_COLUMNS, *names) if name not in table.column_names]
        if missing or [name for name in table.column_names if name.startswith("p_")] != names:
            raise SampleError(
                f"{file} has other columns than {first_file}: they are not of the same model"
            )
        told = table.schema.metadata or {}
        if told.get(PROBABILITIES_KEY, b"").startswith(CALIBRATED.encode()):
            raise SampleError(
                f"{file} holds calibrated probabilities, models' references raw ones: predict "
                "without --calibrated what is to be compared"
            )
        hashes.add(told.get(WEIGHTS_KEY, b"").decode())
    if len(hashes) > 1:
        raise SampleError(f"{first_file} and others are predictions of different models")
    columns = [*_WINDOW_COLUMNS, *names, *features]
    whole = pa.concat_tables([table.select(columns) for _, table in tables])
    return _sample(whole, tuple(name.removeprefix("p_") for name in names), hashes.pop())


def _sample(table: pa.Table, classes: tuple[str, ...], weights_sha256: str) -> Sample:
    inputs = table["input"].to_pylist()
    tracks = table["track"].to_pylist()
    has_label_N = np.asarray([reason == "" for reason in table["reason"].to_pylist()])
    faces_N = as_floats(table["faces"])
    return Sample(
        classes=classes,
        weights_sha256=weights_sha256,
        unit_N=number(inputs),
        strand_N=number(list(zip(inputs, tracks, strict=True))),
        start_s_N=as_floats(table["start_s"]),
        probabilities_NK=np.stack([as_floats(table[f"p_{name}"]) for name in classes], axis=1),
        face_share_N=np.where(has_label_N, faces_N, 0.0),
        has_audio_N=as_floats(table["has_audio"].cast(pa.int8())),
        features_ND=_lists(table, "features", has_label_N),
        picture_NP=_lists(table, "picture", has_label_N),
    )


def _lists(
    table: pa.Table, name: str, has_label_N: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """A column of lists [N, D], NaN in windows without a label; None where there are none."""
    if name not in table.column_names or not has_label_N.any():
        return None
    found_MD = as_matrix(table[name].filter(pa.array(has_label_N)))
    values_ND = np.full((len(table), found_MD.shape[1]), np.nan, dtype=np.float32)
    values_ND[has_label_N] = found_MD
    return values_ND
