"""Azure and Google storage, from real emulators: the same guarantees as from S3 and from disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from cache_cases import LABELS as THREE
from cache_cases import SPEC, differences, load, plan_of, settings_of
from cloud_servers import BUCKET, AzureServer, CloudServer, GoogleServer
from long_film import write_long_film
from s3_proxy import ThrottlingProxy

from mien.cache.build import build
from mien.cache.store import ClipCache
from mien.cache.verify import check
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.media import storage
from mien.media.decode import decode_clip
from mien.media.errors import ClipError
from mien.media.remote import RemoteFile
from mien.media.storage import StorageError, StorageUnreachableError, StorageUnusableError
from mien.stream.plan import DEFAULT
from mien.stream.source import ClipSource

# Their clients wrap aiohttp sessions that outlive a test.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def use(environment: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    """Settings for new clients; fsspec keeps the old ones."""
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        patch.delenv(name)
    for name, value in environment.items():
        patch.setenv(name, value)
    for scheme in ("abfs", "gs"):
        fsspec.get_filesystem_class(scheme).clear_instance_cache()


@pytest.fixture(scope="module", params=[AzureServer, GoogleServer], ids=["azure", "google"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, synth_manifest: Path
) -> Iterator[CloudServer]:
    """A server that holds the synthetic clips."""
    reason = request.param.missing()
    if reason is not None:
        pytest.skip(reason)
    server: CloudServer = request.param(tmp_path_factory.mktemp("cloud"))
    with server.running(), pytest.MonkeyPatch.context() as patch:
        use(server.environment, patch)
        fsspec.filesystem(server.scheme).mkdir(BUCKET)
        for file in sorted(synth_manifest.parent.rglob("*")):
            if file.is_file():
                place = file.relative_to(synth_manifest.parent).as_posix()
                storage.write_bytes_atomically(f"{server.folder_uri}/{place}", file.read_bytes())
        yield server


@pytest.fixture
def server(running: CloudServer, monkeypatch: pytest.MonkeyPatch) -> CloudServer:
    use(running.environment, monkeypatch)
    return running


@pytest.fixture
def manifest(server: CloudServer) -> Manifest:
    return Manifest.read(f"{server.folder_uri}/manifest.parquet")


def open_source(manifest: Manifest) -> ClipSource:
    split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    return ClipSource(manifest, split, THREE, seed=1)


def error_of(location: str) -> StorageError:
    """What four ways to ask for a place say, which has to be the same."""
    errors = []
    for action in (
        lambda: storage.read_bytes(f"{location}/a.mp4"),
        lambda: storage.write_bytes_atomically(f"{location}/a.mp4", b"x"),
        lambda: storage.list_files(location),
        lambda: storage.exists(f"{location}/a.mp4"),
        lambda: storage.is_folder(location),
    ):
        with pytest.raises(StorageUnusableError) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, StorageUnreachableError)
        errors.append(caught.value)
    assert len({error.reason for error in errors}) == 1
    return errors[0]


def test_files_are_written_listed_read_by_range_and_removed(server, tmp_path):
    folder = f"{server.scheme}://{BUCKET}/files"
    data = bytes(range(256)) * 8000  # more than one piece of a `RemoteFile`
    storage.write_bytes_atomically(f"{folder}/späß leer #1.bin", b"old")
    storage.write_bytes_atomically(f"{folder}/späß leer #1.bin", data)
    (tmp_path / "large").write_bytes(data[::-1])
    storage.write_file_atomically(f"{folder}/deeper/large.bin", str(tmp_path / "large"))
    assert storage.list_files(folder) == ["deeper/large.bin", "späß leer #1.bin"]
    assert storage.read_bytes(f"{folder}/deeper/large.bin") == data[::-1]
    file = RemoteFile(f"{folder}/späß leer #1.bin")
    assert (file.size, file.read_at((1_500_000, 1_500_300))) == (len(data), data[96:][:300])
    assert storage.is_folder(folder)
    assert not storage.is_folder(f"{folder}/none")
    assert not storage.exists(f"{folder}/none")

    storage.write_bytes_atomically(f"{folder}/empty", b"")
    with pytest.raises(ClipError, match="has 0 bytes"):
        RemoteFile(f"{folder}/empty")
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(f"{folder}/gone.mp4")
    assert caught.value.reason == "missing_file"
    assert not isinstance(caught.value, StorageUnusableError)

    storage.remove(folder)
    storage.remove(folder)
    assert storage.list_files(folder) == []


def test_ingest_writes_a_manifest_beside_the_clips(server, synth_manifest, capsys):
    from mien_jobs.cli import main

    root = f"{server.scheme}://{BUCKET}/by-class"
    local = Manifest.read(str(synth_manifest))
    for ref in list(local)[:6]:
        name = f"{root}/{ref.label}/{ref.clip_id}.mp4"
        storage.write_bytes_atomically(name, Path(ref.uri).read_bytes())
    assert main(["ingest", root, "--out", f"{root}/manifest.parquet"]) == 0, capsys.readouterr()
    found = Manifest.read(f"{root}/manifest.parquet")
    assert sorted(found.column("label")) == sorted(ref.label for ref in list(local)[:6])


def test_an_epoch_shows_every_clip_once_and_equals_the_one_from_disk(manifest, synth_manifest):
    local = Manifest.read(str(synth_manifest))
    assert manifest.content_hash() == local.content_hash()
    ours, theirs = (
        list(source.batches(SPEC, start_step=0, num_steps=source.steps_per_epoch(SPEC)))
        for source in map(open_source, (manifest, local))
    )
    shown = [clip_id for batch in ours for clip_id in batch.clip_ids]
    assert sorted(shown) == sorted(local.column("clip_id"))
    for a, b in zip(ours, theirs, strict=True):
        assert a.clip_ids == b.clip_ids
        assert torch.equal(a.video_BTCHW, b.video_BTCHW)


def test_a_window_of_a_long_film_is_fetched_by_ranges(server, monkeypatch, tmp_path):
    film = tmp_path / "long.mp4"
    write_long_film(film)
    size = film.stat().st_size
    place = f"{server.scheme}://{BUCKET}/films/long.mp4"
    storage.write_bytes_atomically(place, film.read_bytes())
    window = {"choose_frames": lambda num: [0, 20, num - 1], "start_s": 12.1, "end_s": 14.1}
    with ThrottlingProxy(server.endpoint, bytes_per_s=None) as proxy:
        through = {
            name: value.replace(server.endpoint, proxy.endpoint)
            for name, value in server.environment.items()
        }
        use(through, monkeypatch)
        found = decode_clip(place, **window)
    expected = decode_clip(str(film), **window)
    assert np.array_equal(found.frames_THWC, expected.frames_THWC)
    assert 0 < proxy.sent_bytes < 0.4 * size


def test_a_cache_is_built_found_again_and_renewed(server, manifest):
    refs = list(manifest)[:3]
    cache = ClipCache.open(f"{server.folder_uri}-cache", create=True)
    assert build(cache, refs, settings_of()).cached == 3
    again = ClipCache.open(cache.uri)
    assert build(again, refs, settings_of()).present == 3
    plan = plan_of(again, refs, settings_of())
    assert all(differences(load(ref, plan), load(ref, DEFAULT)) == {} for ref in refs)
    original = storage.read_bytes(refs[0].uri)
    storage.write_bytes_atomically(refs[0].uri, storage.read_bytes(list(manifest)[5].uri))
    try:
        report = build(again, refs, settings_of())
        assert (report.cached, report.stale, report.present) == (1, 1, 2)
    finally:
        storage.write_bytes_atomically(refs[0].uri, original)
    assert again.forget([refs[1].clip_id]) == 1
    assert check(again).is_sound


def test_a_bucket_that_is_not_there(server):
    error = error_of(f"{server.scheme}://no-such-bucket/clips")
    assert str(error).startswith(f"there is no bucket {server.scheme}://no-such-bucket")


@pytest.mark.parametrize(
    ("access", "reason", "advice"),
    [
        ({"key": "d3Jvbmc="}, "wrong_credentials", "does not belong to the account"),
        ({"key": "not base64"}, "no_credentials", "or AZURE_STORAGE_CONNECTION_STRING"),
        ({"account": "nobody"}, "missing_bucket", "Check its spelling"),
        (None, "no_credentials", "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_what_is_wrong_with_azures_credentials_is_said(server, monkeypatch, access, reason, advice):
    if not isinstance(server, AzureServer):
        pytest.skip("this emulator takes every credential")
    value = (
        {}
        if access is None
        else {"AZURE_STORAGE_CONNECTION_STRING": server.connection_string(**access)}
    )
    use(value, monkeypatch)
    error = error_of(server.folder_uri)
    assert error.reason == reason
    assert advice in str(error)
