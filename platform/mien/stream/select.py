"""Which clips of a manifest a stream holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.labels import LabelSet
from mien.clips.manifest import REF_COLUMNS, ClipRef, Manifest
from mien.clips.splits import Split
from mien.seeds import derive_seed
from mien.stream.load import ClipRequest
from mien.stream.plan import LoadPlan
from mien_models.contract import UNLABELLED, StreamSpec

TRUE_LABEL = "true_label"
"""Column of a class that is known beside the label: what a planted wrong label should have been,
or what was withheld for a test."""


class StreamClips:
    """The clips of a stream, by number; rows stay in Arrow memory until they are asked for."""

    def __init__(self, manifest: Manifest, label_set: LabelSet) -> None:
        self._manifest = manifest
        table = manifest.table
        self.labels = _numbers(table["label"], label_set.index)
        """Class index of each clip, -1 where there is none."""
        self.subjects = _numbers(table["subject_id"], derive_seed)
        """A number for each clip's person, the same in every stream; -1 where unknown."""
        self.sources = _numbers(table["source"], derive_seed)
        """A number for what each clip was cut from; -1 where unknown."""
        self.true_labels = np.full(len(manifest), UNLABELLED, dtype=np.int64)
        """Class index of each clip's ``true_label``, -1 where it has none or another class."""
        if TRUE_LABEL in table.column_names:
            known = dict(zip(label_set.classes, range(len(label_set)), strict=True))
            self.true_labels = _numbers(table[TRUE_LABEL], lambda name: known.get(name, -1))

    def __len__(self) -> int:
        return len(self._manifest)

    def refs(self) -> Iterator[ClipRef]:
        """The references of all clips."""
        return iter(self._manifest)

    def ref(self, clip: int) -> ClipRef:
        """The reference of a clip number."""
        return self._manifest.ref(clip)

    def request(
        self, clip: int, spec: StreamSpec, label_set: LabelSet, *, seed: int, plan: LoadPlan
    ) -> ClipRequest:
        """What is to be loaded for a clip number."""
        return ClipRequest(
            ref=self.ref(clip),
            spec=spec,
            label_set=label_set,
            subject=int(self.subjects[clip]),
            seed=seed,
            plan=plan,
            true_label=int(self.true_labels[clip]),
            action_units=self._action_units(clip) if spec.action_units else None,
        )

    def _action_units(self, clip: int) -> Mapping[str, Sequence[float]]:
        return dict(self._manifest.table["action_units"][clip].as_py() or ())


def select_clips(
    manifest: Manifest, split: Split, label_set: LabelSet, spec: StreamSpec
) -> StreamClips:
    """The clips that pass all of a stream's filters, in manifest order.

    Raises:
        LabelError: a class that is asked for, or that a clip has, is not in the label set.
    """
    for name in spec.labels or ():
        label_set.index(name)
    table = manifest.table
    keep = pa.array(np.ones(len(manifest), dtype=np.bool_))
    if spec.split != "all":
        keep = pc.and_(keep, _is_in(table["clip_id"], getattr(split, spec.split)))
    if spec.clip_ids is not None:
        keep = pc.and_(keep, _is_in(table["clip_id"], spec.clip_ids))
    if spec.labels is not None:
        keep = pc.and_(keep, _is_in(table["label"], spec.labels))
    if spec.labelled is not None:
        has_label = pc.is_valid(table["label"])
        keep = pc.and_(keep, has_label if spec.labelled else pc.invert(has_label))
    if spec.coded:
        keep = pc.and_(keep, pc.is_valid(table["action_units"]))
    kept = manifest.filter(keep)
    if spec.clip_share < 1:
        kept = kept.filter(_share_of(kept.table["clip_id"], spec.clip_share))
    # Only what loading needs: the clips travel to every process that decodes.
    columns = [*REF_COLUMNS, *(["action_units"] if spec.action_units else [])]
    if spec.with_true_label and TRUE_LABEL in kept.table.column_names:
        columns.append(TRUE_LABEL)
    kept = Manifest(kept.table.select(columns), base=kept.base)
    return StreamClips(kept, label_set)


def _share_of(clip_ids: pa.ChunkedArray, share: float) -> pa.Array:
    """Marks the clips with the smallest hashes; a smaller share is part of a larger one."""
    hashes = np.asarray([derive_seed("clip_share", clip) for clip in clip_ids.to_pylist()])
    is_chosen = np.zeros(len(hashes), dtype=np.bool_)
    is_chosen[np.argsort(hashes, kind="stable")[: math.ceil(share * len(hashes))]] = True
    return pa.array(is_chosen)


def _is_in(column: pa.ChunkedArray, wanted: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(wanted, pa.string()))


def _numbers(column: pa.ChunkedArray, number: Callable[[str], int]) -> npt.NDArray[np.int64]:
    """A number for each name, -1 for none; asked for once a name, however many rows have it."""
    encoded = column.combine_chunks().dictionary_encode()
    numbers = [number(name) for name in encoded.dictionary.to_pylist()]
    by_code = np.asarray([*numbers, -1], dtype=np.int64)
    codes = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    return np.asarray(by_code[codes], dtype=np.int64)
