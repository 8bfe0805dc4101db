"""Builds that are killed in the middle, and builds on Ray."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from cache_cases import SPEC, differences, load, open_source, plan_of, settings_of

from mien.cache.build import build
from mien.cache.settings import CacheSettings
from mien.cache.store import ClipCache
from mien.cache.verify import check, prune
from mien.clips.manifest import Manifest
from mien.media import storage
from mien.stream.plan import DEFAULT, LoadPlan
from mien_jobs.cli import is_user_error

SETTINGS = settings_of()

BUILDER = textwrap.dedent(
    """
    import sys
    from cache_cases import settings_of
    from mien.cache import build as building
    from mien.cache.store import ClipCache
    from mien.clips.manifest import Manifest

    building.FEWEST_CLIPS = building.MOST_CLIPS = 2
    _, manifest, cache = sys.argv
    building.build(
        ClipCache.open(cache, create=True), list(Manifest.read(manifest)), settings_of()
    )
    """
)


def start_builder(manifest: Path, cache: Path) -> subprocess.Popen[bytes]:
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(manifest), str(cache)],
        env=os.environ | {"PYTHONPATH": path},
    )


def test_a_killed_build_goes_on_where_it_was(synth_manifest, tmp_path):
    folder = tmp_path / "cache"
    builder = start_builder(synth_manifest, folder)
    deadline = time.monotonic() + 120
    while sum(name.endswith(".json") for name in storage.list_files(str(folder / "index"))) < 3:
        assert builder.poll() is None, "the build ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    builder.send_signal(signal.SIGKILL)
    builder.wait()

    refs = list(Manifest.read(str(synth_manifest)))
    cache = ClipCache.open(str(folder))
    done = len(cache.cover(refs, SETTINGS).found)
    assert 6 <= done < len(refs)
    report = build(cache, refs, SETTINGS)
    assert (report.present, report.cached) == (done, len(refs) - done)
    plan = plan_of(cache, refs, SETTINGS)
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs)
    # Half a file may be left; it does not count and is removed when it is old enough.
    for left in cache.leftovers():
        os.utime(left, (0, 0))
    prune(cache, refs)
    assert cache.leftovers() == []
    assert check(cache, refs).is_sound


@pytest.mark.slow
def test_two_processes_share_the_work(synth_manifest, tmp_path):
    builders = [start_builder(synth_manifest, tmp_path / "cache") for _ in range(2)]
    assert [builder.wait(120) for builder in builders] == [0, 0]
    refs = list(Manifest.read(str(synth_manifest)))
    cache = ClipCache.open(str(tmp_path / "cache"))
    assert check(cache, refs).is_sound
    assert len(refs) <= len(list(cache.entries())) < 1.5 * len(refs)


@pytest.mark.ray
def test_ray_tasks_make_the_same_entries(cache, refs, local_ray, monkeypatch):
    from mien.cache.ray_build import RayParts

    done: list[tuple[int, int]] = []
    monkeypatch.setattr("mien.cache.build.FEWEST_CLIPS", 1)
    report = build(
        cache,
        refs,
        SETTINGS,
        run_parts=RayParts(tasks=2),
        tasks=2,
        progress=lambda *numbers: done.append(numbers),
    )
    assert report.cached == 6
    assert done[-1] == (6, 6)
    assert [number for number, _ in done] == sorted({number for number, _ in done})
    plan = plan_of(cache, refs, SETTINGS)
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs)


@pytest.mark.ray
def test_what_a_ray_task_refuses_is_raised_as_it_is(cache, refs, local_ray):
    from mien.cache.ray_build import RayParts

    crops = LoadPlan(face_rule="given_box").crops(dataclasses.replace(SPEC, align_faces=True))
    settings = CacheSettings(crops=crops, stored_as=SETTINGS.stored_as)
    with pytest.raises(ValueError, match="has no face_box") as refused:
        build(cache, refs, settings, run_parts=RayParts(tasks=1))
    assert is_user_error(refused.value)


@pytest.mark.ray
def test_streams_on_ray_read_the_cache(clips, refs, filled, local_ray):
    from mien.stream.ray_executor import RayExecutor

    plan = plan_of(filled, refs, SETTINGS)
    expected = list(open_source(clips, DEFAULT).batches(SPEC, start_step=0, num_steps=3))
    for ref in refs:
        os.unlink(ref.uri)
    source = open_source(clips, plan, executor=RayExecutor(tasks=2))
    found = list(source.batches(SPEC, start_step=0, num_steps=3))
    assert [batch.clip_ids for batch in found] == [batch.clip_ids for batch in expected]
    for batch, decoded in zip(found, expected, strict=True):
        assert torch.equal(batch.video_BTCHW, decoded.video_BTCHW)
        assert torch.equal(batch.audio_BFM, decoded.audio_BFM)
    assert len(source.quarantine) == 0
