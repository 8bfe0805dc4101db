"""The clip cache of a run: which clips its method will look at, in which crops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count

import ray

from mien.cache.build import BuildReport, build, run_here
from mien.cache.ray_build import RayParts
from mien.cache.settings import CacheSettings, StoredAs
from mien.cache.store import ClipCache
from mien.cache.view import CachedClips
from mien.clips.manifest import ClipRef
from mien.cluster.groups import NodeGroup
from mien.stream.select import select_clips
from mien_jobs.data import RunData
from mien_jobs.progress import ProgressBar
from mien_jobs.recipe import DataPlan
from mien_models.contract import Method, StreamSpec

Say = Callable[[str], None]
Wanted = Mapping[CacheSettings, list[ClipRef]]
"""The clips that each kind of crops is needed of."""


def streams_of(method: Method) -> list[StreamSpec]:
    """Every stream that a method's stages name, and those of its evaluation.

    The method is of no use afterwards: its stages have begun.
    """
    streams: list[StreamSpec] = []
    for index in count():
        stage = method.stage(index)
        if stage is None:
            break
        method.begin_stage(index)
        streams += stage.streams.values()
    plain = method.prediction_stream()
    return [*streams, plain.for_prediction("val"), plain.for_prediction("test")]


def clips_of(data: RunData, plan: DataPlan, streams: Iterable[StreamSpec]) -> Wanted:
    """Which clips the streams show in which crops."""
    stored_as = stored(plan)
    wanted: dict[CacheSettings, dict[str, ClipRef]] = {}
    for spec in streams:
        settings = CacheSettings(crops=data.loading.crops(spec), stored_as=stored_as)
        clips = select_clips(data.manifest, data.split, data.label_set, spec)
        wanted.setdefault(settings, {}).update((ref.clip_id, ref) for ref in clips.refs())
    return {settings: list(refs.values()) for settings, refs in wanted.items()}


def stored(plan: DataPlan) -> StoredAs:
    """How a plan's cache keeps clips."""
    return StoredAs(image_format=plan.cache_format, max_frames=plan.cache_max_frames)


def read_cached(data: RunData, plan: DataPlan, streams: Iterable[StreamSpec]) -> RunData:
    """The data with what their cache holds now; nothing is decoded or written."""
    if not plan.cache or not ClipCache.exists(plan.cache):
        return data
    cache = ClipCache.open(plan.cache)
    wanted = clips_of(data, plan, streams)
    found = {settings: cache.cover(refs, settings) for settings, refs in wanted.items()}
    return _reading(data, CachedClips.of(cache, stored(plan), found))


def complete_cache(
    data: RunData,
    plan: DataPlan,
    streams: Iterable[StreamSpec],
    *,
    decode_on: NodeGroup | None,
    say: Say,
) -> RunData:
    """The data with a cache that holds every clip of the streams; decodes what is missing.

    Args:
        data: the clips.
        plan: says where the cache lies, and what it stores.
        streams: that read from it.
        decode_on: the nodes that decode (Ray must be running); None: this process.
        say: prints a line.

    Raises:
        CacheError: the plan's cache is none.
        StorageError: sources or cache cannot be reached.
    """
    cache = ClipCache.open(plan.cache, create=True)
    found = {}
    for settings, refs in clips_of(data, plan, streams).items():
        report = build_with_progress(cache, refs, settings, decode_on=decode_on)
        say(f"cache, {settings.describe()}: {report.summary()}")
        found[settings] = report.coverage
    return _reading(data, CachedClips.of(cache, stored(plan), found))


def build_with_progress(
    cache: ClipCache,
    refs: list[ClipRef],
    settings: CacheSettings,
    *,
    decode_on: NodeGroup | None,
    retry_failed: bool = False,
) -> BuildReport:
    """Makes what a cache lacks, on all CPUs of the nodes that decode or in this process (None)."""
    tasks, run_parts = 1, run_here
    if decode_on is not None:
        tasks = _num_tasks(decode_on)
        run_parts = RayParts(tasks=tasks, group=decode_on)
    with ProgressBar("clips to cache") as progress:
        return build(
            cache,
            refs,
            settings,
            run_parts=run_parts,
            tasks=tasks,
            retry_failed=retry_failed,
            progress=progress,
        )


def _num_tasks(group: NodeGroup) -> int:
    """One task for each CPU of the group's nodes, and for those of one node where none is there
    yet: an autoscaler brings nodes for tasks that wait."""
    nodes = ray.nodes()
    cpus = int(sum(node["Resources"].get("CPU", 0) for node in group.members(nodes)))
    if sum(node["Alive"] for node in nodes) == 1:
        # There, Ray is told of as many CPUs as workers reserve, which may be more than there are.
        cpus = min(cpus, os.cpu_count() or 1)
    return cpus or group.cpus


def _reading(data: RunData, clips: CachedClips) -> RunData:
    return replace(data, loading=replace(data.loading, cache=clips))
