"""A cache on disk: what counts, what is stale, what is removed, what is damaged."""

from __future__ import annotations

import dataclasses
import errno
import functools
import http.server
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cache_cases import SPEC, differences, load, plan_of, settings_of

from mien.cache import build as building
from mien.cache.build import build
from mien.cache.errors import CacheError
from mien.cache.settings import StoredAs
from mien.cache.store import ClipCache
from mien.cache.verify import check, drop_damaged, prune
from mien.media import storage
from mien.media.errors import ClipError
from mien.stream.plan import DEFAULT

SETTINGS = settings_of()


def ids(refs) -> list[str]:
    return [ref.clip_id for ref in refs]


def parquet_files(cache: ClipCache) -> set[str]:
    return {name for name in storage.list_files(cache.uri) if name.endswith(".parquet")}


def test_shards_are_parquet_files_that_others_read(filled, refs, shards):
    table = pq.read_table(shards()[0])
    assert set(table["clip_id"].to_pylist()) <= set(ids(refs))
    picture = cv2.imdecode(np.frombuffer(table["frames"][0][0].as_py(), np.uint8), 1)
    assert picture.shape == (32, 32, 3)
    assert all(pq.ParquetFile(shard).num_row_groups == 3 for shard in shards())


def test_a_second_build_makes_nothing(filled, refs):
    before = parquet_files(filled)
    report = build(ClipCache.open(filled.uri), refs, SETTINGS)
    assert (report.cached, report.present) == (0, 6)
    assert parquet_files(filled) == before


def test_a_changed_source_is_another_clip(filled, refs):
    shutil.copy(refs[1].uri, refs[0].uri)
    coverage = filled.cover(refs, SETTINGS)
    assert ([ref for ref, _ in coverage.missing], coverage.stale) == ([refs[0]], 1)
    report = build(filled, refs, SETTINGS)
    assert (report.cached, report.stale) == (1, 1)
    plan = plan_of(filled, refs, SETTINGS)
    assert differences(load(refs[0], plan), load(refs[0], DEFAULT)) == {}


def test_a_file_in_a_frame_folder_that_changes_is_noticed(cache, refs, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((40, 40, 3), 50 * number, np.uint8))
    ref = dataclasses.replace(refs[0], uri=str(folder))
    build(cache, [ref], SETTINGS)
    assert build(cache, [ref], SETTINGS).cached == 0
    cv2.imwrite(str(folder / "1.png"), np.full((40, 40, 3), 200, np.uint8))
    assert build(cache, [ref], SETTINGS).stale == 1


def test_sources_on_a_web_server_that_lists_nothing(cache, refs):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def list_directory(self, path):
            self.send_error(403)

        def log_message(self, *_):
            pass

    folder = str(Path(refs[0].uri).parent)
    serve = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        there = dataclasses.replace(refs[0], uri=f"{base}/{Path(refs[0].uri).name}")
        nowhere = dataclasses.replace(refs[0], clip_id="nowhere", uri=f"{base}/nowhere.mp4")
        report = build(cache, [there, nowhere], SETTINGS)
        assert (report.cached, report.absent) == (1, ["nowhere"])
        assert build(cache, [there], SETTINGS).present == 1
        server.shutdown()


@pytest.mark.parametrize(
    "change", [{"end_s": 0.4}, {"audio_uri": "other"}, {"clip_id": "another"}], ids=str
)
def test_another_part_or_sound_or_name_is_another_clip(change, filled, refs):
    if "audio_uri" in change:
        change = {"audio_uri": refs[1].uri}
    other = dataclasses.replace(refs[0], **change)
    assert len(filled.cover([other], SETTINGS).missing) == 1


def test_other_settings_are_other_entries(filled, refs):
    for settings in (
        settings_of(dataclasses.replace(SPEC, image_size_px=40)),
        settings_of(dataclasses.replace(SPEC, audio=None)),
        settings_of(stored_as=StoredAs(image_format="jpeg")),
        settings_of(stored_as=StoredAs(image_format="png", max_frames=3)),
    ):
        assert build(filled, refs[:1], settings).cached == 1
    assert len(list(filled.entries())) == 10
    assert filled.holds(ids(refs)) == set(ids(refs))


def test_a_source_that_is_gone_is_read_from_the_cache(filled, refs):
    expected = [load(ref, DEFAULT) for ref in refs]
    for ref in refs:
        os.unlink(ref.uri)
    report = build(filled, refs, SETTINGS)
    assert (report.present, report.cached, report.absent) == (6, 0, [])
    plan = plan_of(filled, refs, SETTINGS)
    assert all(differences(load(r, plan), e) == {} for r, e in zip(refs, expected, strict=True))


def test_clips_that_cannot_be_decoded_are_kept_with_their_reason(cache, refs, monkeypatch):
    Path(refs[0].uri).write_text("no video at all\n" * 99)
    os.unlink(refs[1].uri)
    report = build(cache, refs, SETTINGS)
    assert [(clip, reason) for clip, reason, _ in report.failures] == [
        (refs[0].clip_id, "not_a_video")
    ]
    assert (report.cached, report.absent) == (4, [refs[1].clip_id])
    plan = plan_of(cache, refs, SETTINGS)
    with pytest.raises(ClipError) as decoded:
        load(refs[0], DEFAULT)
    monkeypatch.setattr("mien.stream.plan.prepare_clip", None)  # it is not decoded again
    with pytest.raises(ClipError) as cached:
        load(refs[0], plan)
    assert (cached.value.reason, str(cached.value)) == ("not_a_video", str(decoded.value))
    assert build(cache, refs, SETTINGS).failures == []
    assert len(build(cache, refs, SETTINGS, retry_failed=True).failures) == 1


def test_a_failure_that_may_pass_is_not_kept(cache, refs, monkeypatch):
    def fails(*_):
        raise ClipError("storage_unreadable", "the disk hiccups")

    with monkeypatch.context() as patch:
        patch.setattr(building, "prepare_pieces", fails)
        assert len(build(cache, refs[:2], SETTINGS).failures) == 2
    assert list(cache.entries()) == []
    assert build(cache, refs[:2], SETTINGS).cached == 2


def test_prune_keeps_what_clips_as_they_are_now_need(filled, refs):
    shutil.copy(refs[1].uri, refs[0].uri)
    build(filled, refs, SETTINGS)  # refs[0] twice: as it was, and as it is
    os.unlink(refs[2].uri)
    report = prune(filled, refs[:3])
    assert (report.entries, report.kept) == (4, 3)
    again = ClipCache.open(filled.uri)
    assert again.holds(ids(refs)) == set(ids(refs[:3]))
    plan = plan_of(again, refs[:2], SETTINGS)
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs[:2])
    assert check(again).is_sound


def test_prune_removes_what_interrupted_programs_left_unless_they_may_be_at_work(filled, refs):
    old = Path(filled.uri, "shards", "0" * 32 + ".parquet")
    new = Path(filled.uri, "shards", "1" * 32 + ".parquet.77.part")
    for file in (old, new):
        file.write_bytes(b"half a shard")
    os.utime(old, (0, 0))
    assert prune(filled, refs).leftovers == 1
    assert not old.exists()
    assert new.exists()
    assert check(filled, refs).is_sound


def test_forget_leaves_no_trace(filled, refs, shards):
    build(filled, refs[:2], settings_of(stored_as=StoredAs(image_format="jpeg")))
    person = refs[0].clip_id
    uncommitted = Path(filled.uri, "shards", "0" * 32 + ".parquet")
    holding = next(s for s in shards() if person in pq.read_table(s)["clip_id"].to_pylist())
    shutil.copy(holding, uncommitted)  # as a build leaves it that is killed before the index
    part = Path(filled.uri, "shards", "1" * 32 + ".parquet.88.part")
    part.write_bytes(b"half a shard")

    assert filled.forget([person, "somebody else"]) == 2

    assert ClipCache.open(filled.uri).holds(ids(refs)) == set(ids(refs[1:]))
    for file in Path(filled.uri).rglob("*.p*"):
        assert person.encode() not in file.read_bytes()
    plan = plan_of(filled, refs[1:], SETTINGS)
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs[1:])
    assert check(filled).is_sound
    assert filled.forget([person]) == 0


def test_a_run_whose_shard_was_removed_is_told_what_to_do(filled, refs):
    plan = plan_of(filled, refs, SETTINGS)
    filled.forget([refs[0].clip_id])
    with pytest.raises(CacheError, match="Run the same command again"):
        load(refs[1], plan)


def test_a_shard_that_somebody_deleted_is_found_and_made_anew(filled, refs, shards):
    shards()[0].unlink()
    report = check(filled, refs)
    assert [message.endswith("is missing") for message in report.damaged.values()] == [True]
    drop_damaged(filled, report)
    assert build(filled, refs, SETTINGS).cached == 3
    assert check(filled, refs).is_sound


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.5, 0.8, 0.999])
def test_every_flipped_bit_is_found_and_what_it_hit_made_anew(share, filled, refs, shards):
    damaged = shards()[0]
    flip(damaged, int(share * damaged.stat().st_size))
    report = check(filled, refs)
    assert not report.is_sound
    (message,) = report.damaged.values()
    assert str(damaged) in message
    drop_damaged(filled, report)
    assert build(filled, refs, SETTINGS).cached == 3
    assert check(filled, refs).is_sound


def test_damage_is_noticed_when_a_clip_is_read(filled, refs, shards):
    plan = plan_of(filled, refs, SETTINGS)
    for shard in shards():
        flip(shard, shard.stat().st_size // 2)
    errors = []
    for ref in refs:
        try:
            load(ref, plan)
        except CacheError as error:
            errors.append(str(error))
    assert len(errors) == 2  # one clip of each shard
    assert all(f"mien cache check --cache {filled.uri} --drop-damaged" in e for e in errors)
    assert all(any(str(shard) in error for error in errors) for shard in shards())


def test_a_shard_cut_short_is_damaged(filled, refs, shards):
    shard = shards()[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    plan = plan_of(filled, refs, SETTINGS)
    cut = [ref for ref in refs if str(shard) == plan.cache.held[SETTINGS].places[ref.clip_id][0]]
    with pytest.raises(CacheError, match="is damaged"):
        load(cut[0], plan)


def test_a_damaged_index_does_not_count_and_is_named(filled, refs, caplog):
    index = next(Path(filled.uri, "index").iterdir())
    flip(index, index.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        again = ClipCache.open(filled.uri)
    assert str(index) in caplog.text
    assert len(again.cover(refs, SETTINGS).missing) == 3
    assert not check(again).is_sound
    build(again, refs, SETTINGS)
    drop_damaged(again, check(again))
    report = check(again, refs)
    assert report.is_sound
    assert report.entries == 6


def test_a_full_disk_leaves_nothing_partial(cache, refs, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            build(cache, refs, SETTINGS)
    assert storage.list_files(cache.uri) == ["mien-cache.json"]
    assert build(ClipCache.open(cache.uri), refs, SETTINGS).cached == 6


def test_entries_of_another_version_are_not_read_and_are_pruned(filled, refs, monkeypatch):
    monkeypatch.setattr("mien.cache.settings.PREPARE_VERSION", 99)
    monkeypatch.setattr("mien.cache.settings._digest", lambda settings: "another")
    again = ClipCache.open(filled.uri)
    assert len(again.cover(refs, SETTINGS).missing) == 6
    assert check(again).outdated == 6
    assert prune(again, refs).entries == 6
    assert parquet_files(again) == set()


def test_builders_at_the_same_time_share_a_cache(cache, refs, monkeypatch):
    monkeypatch.setattr(building, "FEWEST_CLIPS", 1)
    caches = [ClipCache.open(cache.uri) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(lambda one: build(one, refs, SETTINGS), caches))
    assert sum(report.cached for report in reports) >= 6
    again = ClipCache.open(cache.uri)
    assert check(again, refs).is_sound
    doubled = len(list(again.entries())) - 6
    assert prune(again, refs).entries == doubled
    plan = plan_of(again, refs, SETTINGS)
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs)


def test_clips_that_another_program_made_meanwhile_are_left_to_it(cache, refs, monkeypatch):
    monkeypatch.setattr(building, "FEWEST_CLIPS", 1)

    def with_company(parts):
        for number, part in enumerate(parts):
            if number == 0:
                build(ClipCache.open(cache.uri), refs, SETTINGS)
            yield part, building.make_part(part)

    report = build(cache, refs, SETTINGS, run_parts=with_company)
    assert (report.cached, report.by_others) == (1, 5)


def test_what_is_no_cache_is_refused(tmp_path):
    with pytest.raises(CacheError, match=r"there is no clip cache in .*mien cache build"):
        ClipCache.open(str(tmp_path / "nowhere"))
    (tmp_path / "shards").mkdir()
    with pytest.raises(CacheError, match="no clip cache's; name a new folder"):
        ClipCache.open(str(tmp_path), create=True)
