"""Which clips of a manifest a stream holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef, Manifest
from mien.clips.splits import Split
from mien.seeds import derive_seed
from mien.stream.load import ClipRequest
from mien.stream.plan import LoadPlan
from mien_models.contract import UNLABELLED, StreamSpec


class StreamClips:
    """The clips of a stream, by number; rows stay in Arrow memory until they are asked for."""

    def __init__(self, manifest: Manifest, label_set: LabelSet) -> None:
        self._manifest = manifest
        names = manifest.column("label")
        self.labels = np.asarray(
            [UNLABELLED if name is None else label_set.index(name) for name in names],
            dtype=np.int64,
        )
        """Class index of each clip, -1 where there is none."""
        self.subjects = np.asarray(
            [-1 if name is None else derive_seed(name) for name in manifest.column("subject_id")],
            dtype=np.int64,
        )
        """A number for each clip's person, the same in every stream; -1 where unknown."""

    def __len__(self) -> int:
        return len(self._manifest)

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
    keep = np.ones(len(manifest), dtype=np.bool_)
    clip_ids = manifest.column("clip_id")
    labels = manifest.column("label")
    if spec.split != "all":
        keep &= _is_in(clip_ids, getattr(split, spec.split))
    if spec.clip_ids is not None:
        keep &= _is_in(clip_ids, spec.clip_ids)
    if spec.labels is not None:
        keep &= _is_in(labels, spec.labels)
    if spec.labelled is not None:
        has_label = np.asarray([label is not None for label in labels], dtype=np.bool_)
        keep &= has_label == spec.labelled
    return StreamClips(manifest.filter(pa.array(keep)), label_set)


def _is_in(values: Sequence[str | None], wanted: Sequence[str]) -> npt.NDArray[np.bool_]:
    chosen = set(wanted)
    return np.asarray([value in chosen for value in values], dtype=np.bool_)
