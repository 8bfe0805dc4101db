"""From the folder of a published data set to a manifest, counted beside what was published."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.ingest import PROBED, IngestReport, Progress, probe_all
from mien.clips.ingest_table import Rejected
from mien.clips.labels import LabelError, LabelSet
from mien.clips.manifest import Manifest
from mien.clips.readers.counts import Mask, count_lines
from mien.clips.readers.reading import DatasetError, Options, Part, Reader
from mien.clips.readers.registry import READERS
from mien.clips.readers.tree import Tree
from mien.clips.schema import conform
from mien.media import storage
from mien.media.decode import ClipInfo
from mien.media.errors import ClipError


def ingest_dataset(
    name: str,
    root: str | os.PathLike[str],
    *,
    label_set: LabelSet | None = None,
    window_frames: int | None = None,
    probe: bool = True,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> IngestReport:
    """Make a manifest of a published data set.

    Args:
        name: one of `READERS`.
        root: path or URI of the folder that its owners give out.
        label_set: clips of other classes are left out as unknown_label.
        window_frames: of sets with labels of each frame, rows of so many consecutive frames.
        probe: open every file; False only looks whether it is there.
        num_threads: files that are opened at the same time.
        progress: called after each file that was opened.

    Raises:
        DatasetError: unknown name, a folder without what its reader needs, or nothing in it.
        StorageError: the storage cannot be reached.
    """
    reader = _reader(name, window_frames)
    tree = Tree(os.fspath(root), title=reader.title, owner=reader.owner, layout=reader.layout)
    reading = reader.read(tree, Options(window_frames=window_frames))
    table = conform(reading.table)
    if len(table) == 0:
        raise DatasetError(f"{reader.title}: no row below {tree.root}. {tree.advice()}")
    left_out = _duplicates(table) | _other_labels(table, label_set) | _missing(table, tree)
    infos: dict[str, ClipInfo] = {}
    if probe:
        kept = _kept(table, left_out)
        infos, damaged = _probed(table.filter(pa.array(kept)), num_threads, progress)
        left_out |= _damaged(table, damaged, left_out)
    kept = _kept(table, left_out)
    rejected = _rejected(table, left_out, tree)
    rows, notes = _with_facts(table.filter(pa.array(kept)), infos, reader)
    everything = [*reading.rejected, *rejected.values()]
    return IngestReport(
        manifest=Manifest(rows, base=tree.root),
        quarantined=tuple(sorted(everything, key=lambda entry: (entry.path, entry.message))),
        notes=(*reading.notes, *notes, *_advice(reader, window_frames, probe)),
        counts=tuple(
            count_lines(
                table,
                kept,
                [_of_classes(part, label_set, left_out) for part in reading.parts],
                unit=reading.unit,
                first_left_out={n: f"{r.path} ({r.reason})" for n, r in rejected.items()},
            )
        ),
    )


_Why = tuple[str, str]
"""Reason and message."""


def _rejected(table: pa.Table, left_out: Mapping[int, _Why], tree: Tree) -> dict[int, Rejected]:
    """The rows that are left out, as the report lists them."""
    return {
        row: Rejected(
            path=storage.relative_to(table["uri"][row].as_py(), tree.root),
            reason=reason,
            message=message,
        )
        for row, (reason, message) in left_out.items()
    }


def _reader(name: str, window_frames: int | None) -> Reader:
    if name not in READERS:
        raise DatasetError(f"no reader is called {name!r}; there are {', '.join(READERS)}")
    reader = READERS[name]
    if window_frames is not None and not reader.takes_window:
        raise DatasetError(f"windows of {window_frames} frames: {name} has no labels of each frame")
    if window_frames is not None and window_frames < 1:
        raise DatasetError(f"windows of {window_frames} frames; expected at least 1")
    return reader


def _advice(reader: Reader, window_frames: int | None, probe: bool) -> list[str]:
    notes = []
    if reader.takes_window and window_frames is None:
        notes.append(
            "One row a recording; a method that is to be tested on every frame wants rows of its "
            "clip's length: --window FRAMES."
        )
    if not probe:
        notes.append("Files were not opened: damaged ones are not known, nor are sizes.")
    return notes


def _kept(table: pa.Table, left_out: Mapping[int, _Why]) -> Mask:
    kept = np.ones(len(table), dtype=np.bool_)
    kept[list(left_out)] = False
    return kept


def _duplicates(table: pa.Table) -> dict[int, _Why]:
    """Rows whose clip id an earlier row has."""
    ids = table["clip_id"]
    if pc.count_distinct(ids).as_py() == len(ids):
        return {}
    first = dict[str, int]()
    for row, name in enumerate(ids.to_pylist()):
        first.setdefault(name, row)
    why = ("duplicate_clip_id", "an earlier line names this clip; that one is kept")
    is_later = (row for row, name in enumerate(ids.to_pylist()) if first[name] != row)
    return dict.fromkeys(is_later, why)


def _other_labels(table: pa.Table, label_set: LabelSet | None) -> dict[int, _Why]:
    """Rows whose label, or a class of whose soft label, is not in the label set."""
    if label_set is None:
        return {}
    labels = table["label"].dictionary_encode().combine_chunks()
    messages = [_not_in(label_set, name) for name in labels.dictionary.to_pylist()]
    found = {
        row: ("unknown_label", message)
        for row, number in enumerate(labels.indices.to_pylist())
        if number is not None and (message := messages[number])
    }
    for row in np.flatnonzero(np.asarray(pc.is_valid(table["soft_label"]))).tolist():
        names = (name for name, _ in table["soft_label"][row].as_py())
        message = next(filter(None, (_not_in(label_set, name) for name in names)), None)
        if message:
            found.setdefault(row, ("unknown_label", f"soft label: {message}"))
    return found


def _not_in(label_set: LabelSet, name: str) -> str | None:
    try:
        label_set.index(name)
    except LabelError as error:
        return str(error)
    return None


def _missing(table: pa.Table, tree: Tree) -> dict[int, _Why]:
    """Rows whose file or folder is not there; each folder is listed once."""
    places = table["uri"].combine_chunks().dictionary_encode()
    absent = [
        not tree.has(storage.relative_to(place, tree.root))
        for place in places.dictionary.to_pylist()
    ]
    is_absent = np.asarray(absent, dtype=np.bool_)[np.asarray(places.indices)]
    why = ("missing_file", "it is not there")
    return dict.fromkeys(np.flatnonzero(is_absent).tolist(), why)


def _probed(
    table: pa.Table, num_threads: int, progress: Progress | None
) -> tuple[dict[str, ClipInfo], dict[str, ClipError]]:
    outcomes = probe_all(pc.unique(table["uri"]).to_pylist(), num_threads, progress)
    infos = {uri: found for uri, found in outcomes.items() if isinstance(found, ClipInfo)}
    return infos, {uri: e for uri, e in outcomes.items() if isinstance(e, ClipError)}


def _damaged(
    table: pa.Table, errors: Mapping[str, ClipError], left_out: Mapping[int, _Why]
) -> dict[int, _Why]:
    if not errors:
        return {}
    is_damaged = np.asarray(pc.is_in(table["uri"], pa.array(list(errors))))
    rows = (row for row in np.flatnonzero(is_damaged).tolist() if row not in left_out)
    found = {}
    for row in rows:
        error = errors[table["uri"][row].as_py()]
        found[row] = (error.reason, str(error))
    return found


def _of_classes(part: Part, label_set: LabelSet | None, left_out: Mapping[int, _Why]) -> Part:
    """A part as published, without the classes that were not asked for."""
    if label_set is None or all(why[0] != "unknown_label" for why in left_out.values()):
        return part
    if not isinstance(part.published, Mapping):
        return replace(part, published=None)
    return replace(part, published={n: c for n, c in part.published.items() if n in label_set})


def _with_facts(
    table: pa.Table, infos: Mapping[str, ClipInfo], reader: Reader
) -> tuple[pa.Table, list[str]]:
    """The rows with what opening the files told, and whose they are."""
    notes: Sequence[str] = ()
    if infos:
        table, notes = _with_probed(table, infos)
    for name, value in (("dataset", reader.name), ("licence", reader.licence)):
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, pa.repeat(pa.scalar(value), len(table)))
    return table, list(notes)


def _with_probed(table: pa.Table, infos: Mapping[str, ClipInfo]) -> tuple[pa.Table, list[str]]:
    places = table["uri"].combine_chunks().dictionary_encode()
    found = [infos[place] for place in places.dictionary.to_pylist()]

    def spread(values: list[Any]) -> pa.Array:
        return pa.array(values).take(places.indices)

    for name in PROBED:
        if name not in table.column_names:
            table = table.append_column(name, spread([getattr(info, name) for info in found]))
    is_whole = pc.and_(pc.is_null(table["start_s"]), pc.is_null(table["end_s"]))
    of_file = pc.if_else(is_whole, spread([info.num_frames for info in found]), None)
    given = table["num_frames"]
    differ = pc.fill_null(pc.not_equal(given, of_file), False)
    notes = []
    if pc.any(differ).as_py():
        first = table.filter(differ).slice(0, 1).to_pylist()[0]
        notes.append(
            f"{pc.sum(differ).as_py()} clips do not have the number of frames that is listed, "
            f"first {first['clip_id']}: {infos[first['uri']].num_frames} in the file, "
            f"{first['num_frames']} listed."
        )
    filled = pc.coalesce(given, of_file.cast(pa.int32()))
    position = table.schema.get_field_index("num_frames")
    return table.set_column(position, "num_frames", filled), notes
