"""Streams and checkpoints on a real S3 server: faults told apart, outages waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from long_film import write_long_film
from s3_proxy import ThrottlingProxy
from s3_server import BUCKET, READ_ONLY, S3Server

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest, ManifestError
from mien.clips.splits import Split
from mien.media import storage
from mien.media.decode import decode_clip
from mien.media.storage import StorageError, StorageUnreachableError, StorageUnusableError
from mien.stream.source import ClipSource
from mien.train.checkpoint import Checkpoint, CheckpointError, CheckpointStore
from mien_models.contract import StreamSpec, ViewSpec

FOLDER = f"s3://{BUCKET}/synth"
SPEC = StreamSpec(
    split="all",
    batch_size=6,
    views=(ViewSpec(num_frames=2, sampling="random_segments"),),
    image_size_px=32,
    align_faces=False,
)
LABELS = LabelSet(name="three", classes=("happiness", "sadness", "anger"))


@pytest.fixture(scope="module")
def uploaded(running_s3: S3Server, synth_manifest: Path) -> str:
    """Clips and manifest in the bucket, as `aws s3 cp --recursive` would put them there."""
    with pytest.MonkeyPatch.context() as patch:
        use(running_s3.environment, patch)
        for file in sorted(synth_manifest.parent.rglob("*")):
            if file.is_file():
                place = file.relative_to(synth_manifest.parent).as_posix()
                storage.write_bytes_atomically(f"{FOLDER}/{place}", file.read_bytes())
    return f"{FOLDER}/{synth_manifest.name}"


@pytest.fixture
def manifest(uploaded: str, s3_server: S3Server) -> Manifest:
    return Manifest.read(uploaded)


def use(environment: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    """Settings for new clients; fsspec keeps the old ones."""
    import fsspec

    for name, value in environment.items():
        patch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def open_source(manifest: Manifest, **options) -> ClipSource:
    split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    return ClipSource(manifest, split, LABELS, seed=1, **options)


def ids_of(batches) -> list[str]:
    return [clip_id for batch in batches for clip_id in batch.clip_ids]


def error_of(action: Callable[[], object]) -> StorageError:
    with pytest.raises(StorageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return caught.value


def read_while_restarting(server: S3Server, batches) -> list[str]:
    """What a reader gets who has to wait for a server that is away for two seconds."""
    server.kill()
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(ids_of, batches)
        time.sleep(2)
        assert not rest.done()
        server.start()
        return rest.result(60)


def test_a_stream_from_a_bucket_equals_the_one_from_disk(manifest, synth_manifest):
    local = Manifest.read(str(synth_manifest))
    assert manifest.content_hash() == local.content_hash()
    remote_batches = open_source(manifest).batches(SPEC, start_step=4, num_steps=3)
    local_batches = open_source(local).batches(SPEC, start_step=4, num_steps=3)
    for a, b in zip(remote_batches, local_batches, strict=True):
        assert a.clip_ids == b.clip_ids
        assert torch.equal(a.video_BTCHW, b.video_BTCHW)


@pytest.mark.parametrize(
    ("setting", "reason", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "wrong_credentials", "AWS_SECRET_ACCESS_KEY does not"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "wrong_credentials", "the key in AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no_credentials", "Set AWS_ACC"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "bad_endpoint", "AWS_ENDPOINT_URL must be a whole"),
    ],
)
def test_what_is_wrong_with_the_access_stops_the_stream_at_once(
    manifest, monkeypatch, setting, reason, advice
):
    source = open_source(manifest)
    batches = source.batches(SPEC, start_step=0, num_steps=6)
    next(batches)
    use(setting, monkeypatch)
    started = time.monotonic()
    error = error_of(lambda: next(batches))
    assert time.monotonic() - started < 5
    assert isinstance(error, StorageUnusableError)
    assert not isinstance(error, StorageUnreachableError)
    assert error.reason == reason
    assert advice in str(error)
    assert len(source.quarantine) == 0
    for action in (
        lambda: storage.write_bytes_atomically(f"{FOLDER}/new", b""),
        lambda: storage.is_folder(FOLDER),
        lambda: storage.exists(f"{FOLDER}/new"),
        lambda: storage.list_files(FOLDER),
    ):
        assert error_of(action).reason == reason
    with pytest.raises(ManifestError, match=advice):
        Manifest.read(f"{FOLDER}/manifest.parquet")


def test_a_bucket_that_is_not_there(s3_server):
    for action in (
        lambda: storage.read_bytes("s3://no-such-bucket/clip.mp4"),
        lambda: storage.is_folder("s3://no-such-bucket/clips"),
        lambda: storage.write_bytes_atomically("s3://no-such-bucket/file", b"x"),
        lambda: storage.list_files("s3://no-such-bucket/clips"),
    ):
        error = error_of(action)
        assert isinstance(error, StorageUnusableError)
        assert f"no bucket s3://no-such-bucket at {s3_server.endpoint}" in str(error)


def test_a_key_that_may_only_read_streams_and_is_told_what_it_may_not(manifest, monkeypatch):
    expected = ids_of(open_source(manifest).scan(SPEC))
    storage.write_bytes_atomically(f"{FOLDER}/kept", b"old")
    use(READ_ONLY, monkeypatch)
    assert ids_of(open_source(manifest).scan(SPEC)) == expected
    assert not storage.exists(f"{FOLDER}/none")
    for action, right in (
        (lambda: storage.write_bytes_atomically(f"{FOLDER}/kept", b"new"), "write"),
        (lambda: storage.remove(f"{FOLDER}/kept"), "delete"),
    ):
        error = error_of(action)
        assert error.reason == "no_permission"
        assert f"the key AWS_ACCESS_KEY_ID=reader may not {right} {FOLDER}/kept" in str(error)
    assert storage.read_bytes(f"{FOLDER}/kept") == b"old"


def test_a_missing_object_is_the_clips_own_fault(manifest):
    rows = [{"clip_id": ref.clip_id, "uri": ref.uri, "label": ref.label} for ref in manifest]
    rows[3]["uri"] = f"{FOLDER}/gone.mp4"
    source = open_source(Manifest.from_rows(rows))
    assert len(ids_of(source.scan(SPEC))) == len(rows) - 1
    assert [(c.clip_id, c.reason) for c in source.quarantine.clips] == [
        (rows[3]["clip_id"], "missing_file")
    ]


def test_a_throttled_stream_is_complete(manifest, s3_server, monkeypatch):
    expected = list(open_source(manifest).batches(SPEC, start_step=0, num_steps=2))
    # One try a call for the client's own sake: what comes back with 503 is for us to try again.
    with ThrottlingProxy(s3_server.endpoint, refuse_first=2, bytes_per_s=2e6) as proxy:
        use({"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_MAX_ATTEMPTS": "1"}, monkeypatch)
        source = open_source(manifest)
        found = list(source.batches(SPEC, start_step=0, num_steps=2))
    assert proxy.refused >= 2 * 12
    assert ids_of(found) == ids_of(expected)
    assert all(
        torch.equal(a.video_BTCHW, b.video_BTCHW) for a, b in zip(found, expected, strict=True)
    )
    assert len(source.quarantine) == 0


def test_a_window_of_a_long_film_is_fetched_by_ranges(s3_server, monkeypatch, tmp_path):
    film = tmp_path / "long.mp4"
    write_long_film(film)
    size = film.stat().st_size
    assert size > 8e6
    place = f"s3://{BUCKET}/films/long.mp4"
    storage.write_bytes_atomically(place, film.read_bytes())
    window = {"choose_frames": lambda num: [0, 20, num - 1], "start_s": 12.1, "end_s": 14.1}
    with ThrottlingProxy(s3_server.endpoint, bytes_per_s=None) as proxy:
        use({"AWS_ENDPOINT_URL": proxy.endpoint}, monkeypatch)
        found = decode_clip(place, **window)
    expected = decode_clip(str(film), **window)
    assert np.array_equal(found.frames_THWC, expected.frames_THWC)
    assert np.array_equal(found.frame_times_s, expected.frame_times_s)
    # Two of twenty seconds, and the ends of the file in which an index may lie.
    assert proxy.sent_bytes < 0.4 * size
    assert sum(proxy.requests.values()) <= 12


def test_resuming_reads_nothing_that_was_consumed(manifest, s3_server, monkeypatch):
    with ThrottlingProxy(s3_server.endpoint, bytes_per_s=None) as proxy:
        use({"AWS_ENDPOINT_URL": proxy.endpoint}, monkeypatch)
        batches = list(open_source(manifest).batches(SPEC, start_step=4, num_steps=2))
    read = {request.split("/")[-1] for request in proxy.requests if request.startswith("GET")}
    wanted = manifest.by_ids(ids_of(batches))
    assert read == {ref.uri.split("/")[-1] for ref in wanted}


def test_a_server_that_dies_in_the_middle_of_an_epoch_and_comes_back(
    manifest, s3_server, monkeypatch
):
    expected = ids_of(open_source(manifest).batches(SPEC, start_step=0, num_steps=6))
    use({"AWS_MAX_ATTEMPTS": "1"}, monkeypatch)
    source = open_source(manifest)
    batches = source.batches(SPEC, start_step=0, num_steps=6)
    found = ids_of([next(batches), next(batches)])
    found += read_while_restarting(s3_server, batches)
    assert found == expected
    assert sorted(found) == sorted(manifest.column("clip_id"))
    assert len(source.quarantine) == 0


def test_a_server_that_stays_away_stops_the_run_and_the_stream_goes_on_later(
    manifest, s3_server, monkeypatch
):
    expected = ids_of(open_source(manifest).batches(SPEC, start_step=0, num_steps=6))
    use({"AWS_MAX_ATTEMPTS": "1", "MIEN_STORAGE_PATIENCE_S": "1.5"}, monkeypatch)
    source = open_source(manifest)
    batches = source.batches(SPEC, start_step=0, num_steps=6)
    found = ids_of([next(batches)])
    s3_server.kill()
    started = time.monotonic()
    try:
        error = error_of(lambda: next(batches))
        assert 1 < time.monotonic() - started < 6
    finally:
        s3_server.start()
    assert isinstance(error, StorageUnreachableError)
    assert f"AWS_ENDPOINT_URL={s3_server.endpoint}" in str(error)
    assert "Tried for 1.5 s (MIEN_STORAGE_PATIENCE_S" in str(error)
    assert len(source.quarantine) == 0
    monkeypatch.delenv("MIEN_STORAGE_PATIENCE_S")
    found += ids_of(open_source(manifest).batches(SPEC, start_step=1, num_steps=5))
    assert found == expected


def test_checkpoints_in_a_bucket(s3_server, monkeypatch):
    store = CheckpointStore(f"s3://{BUCKET}/runs/one", keep=2)
    assert store.load_newest() is None
    frozen = store.save_frozen({"encoder": torch.arange(5.0)})
    for step in (1, 2, 3):
        weights = {"w": torch.full((3,), float(step))}
        store.save(0, step, Checkpoint(model=weights, optimizer={}, state={"step": step}))
    store.save_best(Checkpoint(model={"w": torch.ones(1)}, optimizer={}))
    assert store.names() == ["stage-00-step-00000002", "stage-00-step-00000003"]
    assert store.load_newest().state == {"step": 3}
    assert store.load_newest().model["w"].tolist() == [3.0] * 3
    assert store.load_frozen(frozen)["encoder"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    files = storage.list_files(store.folder)
    assert len(files) == 10
    assert not any(file.endswith(".part") for file in files)

    use({"AWS_SECRET_ACCESS_KEY": "wrong"}, monkeypatch)
    with pytest.raises(CheckpointError, match="AWS_SECRET_ACCESS_KEY does not belong"):
        store.save(0, 4, Checkpoint(model={}, optimizer={}))
    with pytest.raises(StorageUnusableError, match="AWS_SECRET_ACCESS_KEY does not belong"):
        store.load_newest()


@pytest.mark.ray
def test_on_ray_a_dead_server_is_waited_for_and_a_fault_arrives_as_it_is(
    manifest, s3_server, local_ray
):
    from mien.stream.ray_executor import RayExecutor

    expected = ids_of(open_source(manifest).batches(SPEC, start_step=0, num_steps=90))
    source = open_source(
        manifest, executor=RayExecutor(tasks=1, object_store_bytes_per_task=1 << 20)
    )
    batches = source.batches(SPEC, start_step=0, num_steps=90)
    found = ids_of([next(batches)])
    found += read_while_restarting(s3_server, batches)
    assert found == expected
    assert len(source.quarantine) == 0

    rows = [
        {"clip_id": f"c{i}", "uri": "s3://no-such-bucket/a.mp4", "label": "anger"} for i in range(6)
    ]
    lost = open_source(Manifest.from_rows(rows), executor=RayExecutor(tasks=1))
    error = error_of(lambda: next(lost.scan(SPEC)))
    assert isinstance(error, StorageUnusableError)
    assert str(error).startswith("there is no bucket s3://no-such-bucket")
