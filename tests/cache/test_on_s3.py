"""A cache in a bucket of a real S3 server."""

from __future__ import annotations

import fsspec
from cache_cases import differences, load, plan_of, settings_of
from s3_server import BUCKET

from mien.cache.build import build
from mien.cache.store import ClipCache
from mien.cache.verify import check, prune
from mien.clips.manifest import Manifest
from mien.stream.plan import DEFAULT


def test_sources_and_cache_in_a_bucket(clips, refs, s3_server, tmp_path):
    s3 = fsspec.filesystem("s3", use_listings_cache=False)
    s3.put(str(tmp_path / "clips"), f"{BUCKET}/cache-test", recursive=True)
    there = list(Manifest.read(f"s3://{BUCKET}/cache-test/manifest.parquet"))[:4]
    cache = ClipCache.open(f"s3://{BUCKET}/cache-test/cache", create=True)
    assert build(cache, there, settings_of()).cached == 4
    again = ClipCache.open(cache.uri)
    assert build(again, there, settings_of()).present == 4
    plan = plan_of(again, there, settings_of())
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in there)

    s3.copy(there[1].uri, there[0].uri)
    s3.rm_file(there[3].uri)
    report = build(again, there, settings_of())
    assert (report.cached, report.stale, report.present) == (1, 1, 3)
    assert (
        differences(load(there[0], plan_of(again, there, settings_of())), load(there[0], DEFAULT))
        == {}
    )
    assert again.forget([there[2].clip_id]) == 1
    assert prune(again, there).entries == 1
    assert check(again).is_sound
    assert again.holds([ref.clip_id for ref in there]) == {
        there[number].clip_id for number in (0, 1, 3)
    }
