"""A few clips whose files a test may change, and a cache of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_cases import settings_of

from mien.cache.build import build
from mien.cache.store import ClipCache
from mien.clips.manifest import ClipRef, Manifest


@pytest.fixture
def clips(synth_manifest: Path, tmp_path: Path) -> Manifest:
    """Six clips of six people, copied: their files may be changed and removed."""
    shutil.copytree(synth_manifest.parent, tmp_path / "clips")
    whole = Manifest.read(str(tmp_path / "clips"))
    return whole.by_ids(whole.column("clip_id")[::6])


@pytest.fixture
def refs(clips: Manifest) -> list[ClipRef]:
    return list(clips)


@pytest.fixture
def cache(tmp_path: Path) -> ClipCache:
    return ClipCache.open(str(tmp_path / "cache"), create=True)


@pytest.fixture
def filled(cache: ClipCache, refs: list[ClipRef]) -> ClipCache:
    """A cache in two shards."""
    build(cache, refs[:3], settings_of())
    build(cache, refs[3:], settings_of())
    return cache


@pytest.fixture
def shards(tmp_path: Path) -> Callable[[], list[Path]]:
    """The shard files of the cache on disk."""
    return lambda: sorted((tmp_path / "cache" / "shards").iterdir())
