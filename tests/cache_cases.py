"""What the tests of the clip cache share: a stream, its settings, rows and their comparison."""

from __future__ import annotations

import numpy as np

from mien.cache.settings import CacheSettings, StoredAs
from mien.cache.store import ClipCache
from mien.cache.view import CachedClips
from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef, Manifest
from mien.clips.splits import Split
from mien.stream.batches import Row
from mien.stream.load import ClipRequest, load_clip
from mien.stream.plan import LoadPlan
from mien.stream.source import ClipSource, Executor, in_process
from mien_models.contract import AudioSpec, StreamSpec, ViewSpec

LABELS = LabelSet(name="three", classes=("happiness", "sadness", "anger"))
SPEC = StreamSpec(
    split="all",
    batch_size=4,
    views=(ViewSpec(num_frames=4, sampling="random_segments"),),
    image_size_px=32,
    align_faces=False,
    audio=AudioSpec(num_frames=64, num_mels=32),
)
LOSSLESS = StoredAs(image_format="png")


def settings_of(spec: StreamSpec = SPEC, stored_as: StoredAs = LOSSLESS) -> CacheSettings:
    return CacheSettings(crops=LoadPlan().crops(spec), stored_as=stored_as)


def plan_of(cache: ClipCache, refs: list[ClipRef], settings: CacheSettings) -> LoadPlan:
    """A plan that reads what the cache holds of these clips."""
    coverage = cache.cover(refs, settings)
    return LoadPlan(cache=CachedClips.of(cache, settings.stored_as, {settings: coverage}))


def load(ref: ClipRef, plan: LoadPlan, spec: StreamSpec = SPEC, seed: int = 7) -> Row:
    return load_clip(
        ClipRequest(ref=ref, spec=spec, label_set=LABELS, subject=0, seed=seed, plan=plan)
    )


def differences(one: Row, other: Row) -> dict[str, float]:
    """Largest difference of each entry that is not the same to the last bit."""
    assert one.keys() == other.keys()
    found: dict[str, float] = {}
    for name, value in one.items():
        a, b = np.asarray(value), np.asarray(other[name])
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if a.tobytes() != b.tobytes():
            found[name] = float(np.abs(a.astype(float) - b.astype(float)).max())
    return found


def everyone(manifest: Manifest) -> Split:
    return Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))


def open_source(manifest: Manifest, plan: LoadPlan, executor: Executor = in_process) -> ClipSource:
    return ClipSource(manifest, everyone(manifest), LABELS, seed=1, plan=plan, executor=executor)
