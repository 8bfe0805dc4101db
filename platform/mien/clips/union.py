"""Several manifests as one: basic and compound expressions, labelled and unlabelled clips."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError

DATA_SET = "dataset"
"""The column that says where a clip comes from; readers of published sets fill it themselves."""
_NAMES = ("clip_id", "subject_id", "source")
_LISTED = 5


def united(manifests: Mapping[str, Manifest], *, same_people: bool) -> Manifest:
    """All clips of several manifests, with absolute uris.

    Args:
        manifests: by a name for each, such as the data set's.
        same_people: whether equal names mean the same person and film. If not, ids, people and
            sources get the manifest's name in front (``rafdb:s12``), and nobody is in two.

    Raises:
        ManifestError: fewer than two, clip ids that occur in two, columns of other types.
    """
    if len(manifests) < 2:
        raise ManifestError(f"{len(manifests)} manifest; uniting takes two or more")
    if same_people:
        _refuse_doubled_ids(manifests)
    tables = []
    for name, manifest in manifests.items():
        table = manifest.with_absolute_uris().table
        for column in () if same_people else _NAMES:
            prefixed = pc.binary_join_element_wise(pa.scalar(name), table[column], ":")
            table = table.set_column(table.schema.get_field_index(column), column, prefixed)
        if DATA_SET not in table.column_names:
            table = table.append_column(DATA_SET, pa.repeat(pa.scalar(name), len(table)))
        tables.append(table)
    try:
        return Manifest(pa.concat_tables(tables, promote_options="default"))
    except pa.ArrowException as error:
        raise ManifestError(
            f"the manifests {', '.join(manifests)} have a column of different types: {error}"
        ) from error


def _refuse_doubled_ids(manifests: Mapping[str, Manifest]) -> None:
    ids = pa.concat_arrays([part for one in manifests.values() for part in _ids(one)])
    counts = pc.value_counts(ids)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    if twice:
        raise ManifestError(
            f"{len(twice)} clip ids are in more than one of {', '.join(manifests)}: "
            f"{', '.join(sorted(twice)[:_LISTED])}; leave same_people (--same-people) out, which "
            "puts the manifest's name in front of them"
        )


def _ids(manifest: Manifest) -> list[pa.Array]:
    chunks: list[pa.Array] = manifest.table["clip_id"].chunks
    return chunks
