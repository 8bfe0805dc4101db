"""Forgetting, seen from MLflow and from the clip cache: real data base, real cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from mlflow_server import MlflowServer
from s3_server import BUCKET, READ_ONLY, S3Server

from mien.cache.store import ClipCache
from mien.clips.forget.models import SearchError, search_tracking
from mien.clips.forget.person import Person, find_person
from mien.clips.forget.procedure import ForgetRequest, forget, plan_forgetting
from mien.clips.manifest import Manifest
from mien.track.mlflow_tracker import MlflowTracker
from mien.track.registry import STARTED_FROM_TAG, WEIGHTS_TAG
from mien.track.tracker import TrackerSpec, embedded_uri

ROWS = [
    {"clip_id": f"{who}{number}", "uri": f"{who}{number}.mp4", "subject_id": who}
    for who in ("ann", "bob")
    for number in range(3)
]


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    uri = str(tmp_path / "data" / "manifest.parquet")
    Manifest.from_rows(ROWS, base=str(tmp_path / "data")).write(uri)
    return uri


def person_of(manifest: str, name: str = "ann") -> Person:
    return find_person(name, [manifest])


def track(uri: str, name: str, split: dict[str, Any] | None, **params: Any) -> MlflowTracker:
    tracker = MlflowTracker(TrackerSpec(uri=uri, experiment="faces", run_name=name, run_key=name))
    if split is not None:
        tracker.log_json("split.json", split)
    tracker.log_params(params)
    tracker.finish()
    return tracker


def split_of(train: list[str], val: list[str], test: list[str]) -> dict[str, Any]:
    return {"name": "s", "train": train, "val": val, "test": test, "notes": []}


def test_runs_and_model_versions_that_used_the_clips(tmp_path: Path, manifest: str) -> None:
    uri = embedded_uri(tmp_path / "runs")
    trained = track(uri, "trained", split_of(["ann0", "bob0"], ["ann1"], ["bob1"]))
    track(uri, "tested", split_of(["bob0"], [], ["ann2"]))
    track(uri, "strangers", split_of(["bob0"], [], ["bob1"]))
    whole = person_of(manifest).manifests[0].content_hashes[0]
    track(uri, "splitless", None, data_facts={"manifest_hash": whole})
    track(uri, "elsewhere", None, data_facts={"manifest_hash": "other"})
    client = trained.client
    client.create_registered_model("faces")
    for _ in range(2):
        client.create_model_version("faces", source="x", run_id=trained.run_id)
    client.set_registered_model_alias("faces", "champion", "2")
    client.delete_run(trained.run_id)  # deleted runs keep their artifacts
    told: list[tuple[int, int]] = []
    found = search_tracking(uri, person_of(manifest), lambda *counts: told.append(counts))
    by_name = {run.name: run for run in found}
    assert set(by_name) == {"trained", "tested", "splitless"}
    assert by_name["trained"].parts == {"train": 1, "val": 1}
    assert sorted(map(str, by_name["trained"].versions)) == [
        "faces version 1",
        "faces version 2 (@champion)",
    ]
    assert by_name["trained"].is_trained_on
    assert not by_name["tested"].is_trained_on
    assert by_name["splitless"].is_trained_on
    assert told[-1] == (5, 5)

    request = ForgetRequest(name="ann", manifests=(manifest,), tracking=(uri,))
    outcome = forget(plan_forgetting(request), str(tmp_path / "receipt.json"), lambda _: None)
    models = "model faces version 1, faces version 2 (@champion)"
    assert set(outcome.left_to_do) == {
        f"train anew: MLflow run trained ({trained.run_id}, experiment faces), {models}: "
        "1 clips in train, 1 clips in val",
        f"score anew: MLflow run tested ({by_name['tested'].run_id}, experiment faces): "
        "1 clips in test",
        f"train anew: MLflow run splitless ({by_name['splitless'].run_id}, experiment faces): "
        "trained on this manifest, its split is not recorded",
    }
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["left_to_do"] == list(outcome.left_to_do)


def test_runs_that_began_with_their_weights_follow(tmp_path: Path, manifest: str) -> None:
    uri = embedded_uri(tmp_path / "runs")
    strangers = split_of(["bob0"], [], ["bob1"])
    splits = {
        "pretrained": (split_of(["ann0", "bob0"], [], []), "w0", ""),
        "probe": (strangers, "w1", "x9,w0"),
        "child": (split_of(["bob0"], [], ["ann2"]), "w2", "w1"),
        "tested": (split_of(["bob0"], [], ["ann2"]), "w3", ""),
        # Began with a run that was only tested on her, and with nothing of ours.
        "innocent": (strangers, "w4", "w3"),
        "other": (strangers, "", "x9"),
    }
    for name, (split, weights, started_from) in splits.items():
        tracker = track(uri, name, split)
        tags = {WEIGHTS_TAG: weights, STARTED_FROM_TAG: started_from}
        for tag, value in tags.items():
            tracker.client.set_tag(tracker.run_id, tag, value)
    found = {run.name: run for run in search_tracking(uri, person_of(manifest))}
    assert set(found) == {"pretrained", "probe", "child", "tested"}
    began = {name: run.started_from for name, run in found.items()}
    assert began == {"pretrained": "", "probe": "pretrained", "child": "probe", "tested": ""}
    assert found["child"].parts == {"test": 1}
    assert [name for name, run in found.items() if not run.is_trained_on] == ["tested"]

    request = ForgetRequest(name="ann", manifests=(manifest,), tracking=(uri,))
    outcome = forget(plan_forgetting(request), str(tmp_path / "receipt.json"), lambda _: None)
    ends = {line.rpartition("experiment faces): ")[2] for line in outcome.left_to_do}
    assert ends == {
        "1 clips in train",
        "began with the weights of pretrained",
        "began with the weights of probe, 1 clips in test",
        "1 clips in test",
    }


def test_the_packages_on_a_server_that_keeps_its_store_to_itself(
    tmp_path: Path, manifest: str
) -> None:
    server = MlflowServer(tmp_path / "server")
    server.start()
    try:
        content = person_of(manifest).manifests[0].content_hashes[0]
        ours = track_package(server.uri, "ours", tmp_path / "ours", content, manifest)
        other = track_package(server.uri, "other", tmp_path / "other", "else", "other.parquet")
        request = ForgetRequest(name="ann", manifests=(manifest,), tracking=(server.uri,))
        plan = plan_forgetting(request)
        assert [(memory.run_id, memory.in_memory) for memory in plan.artifacts] == [
            (ours.run_id, 3)
        ]
        outcome = forget(plan, str(tmp_path / "receipt.json"), lambda _: None)
        assert outcome.removed["memory_entries"] == 3
        assert not outcome.remaining
        place = f"{server.uri}, artifact of run {ours.run_id}: package/model.json"
        assert f"0 entries in memory {place}" in outcome.verified
        assert kept_by(ours) == {"clips": {"bob0": [1]}, "memory": ["bob1"]}
        assert kept_by(other) == MEMORY
    finally:
        server.stop()


def test_a_state_that_lies_in_no_folder_of_the_run(tmp_path: Path, manifest: str) -> None:
    uri = embedded_uri(tmp_path / "runs")
    tracker = track(uri, "bare", split_of(["ann0", "bob0"], [], []))
    tracker.log_json("state.json", {"method": MEMORY})
    tracker.finish()
    request = ForgetRequest(name="ann", manifests=(manifest,), tracking=(uri,))
    outcome = forget(plan_forgetting(request), str(tmp_path / "receipt.json"), lambda _: None)
    assert outcome.removed["memory_entries"] == 3
    assert not outcome.remaining
    state = Path(tracker.client.download_artifacts(tracker.run_id, "state.json"))
    assert json.loads(state.read_text())["method"] == {"clips": {"bob0": [1]}, "memory": ["bob1"]}


MEMORY = {"clips": {"ann0": [0], "ann1": [2], "bob0": [1]}, "memory": ["ann2", "bob1"]}


def track_package(uri: str, name: str, folder: Path, content: str, manifest: str) -> MlflowTracker:
    """A run with a split and a package that remembers clips."""
    tracker = track(uri, name, split_of(["ann0", "ann1", "bob0"], [], []))
    folder.mkdir()
    info = {
        "json_state": MEMORY,
        "manifest_hash": content,
        "recipe": {"data": {"manifest": manifest}},
    }
    (folder / "model.json").write_text(json.dumps(info))
    tracker.client.log_artifacts(tracker.run_id, str(folder), "package")
    if name == "ours":
        tracker.client.delete_run(tracker.run_id)  # deleted runs keep their artifacts
    return tracker


def kept_by(tracker: MlflowTracker) -> Any:
    """What the package on the server remembers."""
    package = tracker.client.download_artifacts(tracker.run_id, "package/model.json")
    return json.loads(Path(package).read_text())["json_state"]


def test_a_data_base_that_is_not_there_is_not_made(tmp_path: Path, manifest: str) -> None:
    uri = embedded_uri(tmp_path / "nowhere")
    with pytest.raises(SearchError, match="there is no data base"):
        search_tracking(uri, person_of(manifest))
    assert not (tmp_path / "nowhere").exists()


def test_a_cache_forgets_and_is_verified(tmp_path: Path, synth_manifest: Path) -> None:
    forget_one(str(tmp_path), str(tmp_path / "receipt.json"), synth_manifest)


def test_a_manifest_and_a_cache_in_a_bucket_forget(
    tmp_path: Path, synth_manifest: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_one(f"s3://{BUCKET}/forget", str(tmp_path / "receipt.json"), synth_manifest)

    uri = f"s3://{BUCKET}/forget/manifest.parquet"
    who = Manifest.read(uri).subjects[0]
    for name, value in READ_ONLY.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    plan = plan_forgetting(ForgetRequest(name=who, manifests=(uri,)))
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID=reader may not write"):
        forget(plan, str(tmp_path / "other.json"), lambda _: None)
    assert who in Manifest.read(uri).subjects


def forget_one(folder: str, receipt: str, synth_manifest: Path) -> None:
    """Six people with a manifest and a cache in a folder; one is forgotten in both."""
    from mien.cache.build import build
    from mien.cache.settings import CacheSettings, StoredAs
    from mien.stream.prepare import CropSettings

    source = Manifest.read(str(synth_manifest))
    few = source.by_ids(source.column("clip_id")[:6])
    uri = f"{folder}/manifest.parquet"
    few.write(uri)
    cache = ClipCache.open(f"{folder}/cache", create=True)
    crops = CropSettings(align_faces=False, face_rule="largest", image_size_px=32, with_audio=False)
    build(cache, list(few), CacheSettings(crops=crops, stored_as=StoredAs()))
    who = few.subjects[0]
    theirs = set(few.filter(lambda ref: ref.subject_id == who).column("clip_id"))
    request = ForgetRequest(name=who, manifests=(uri,), caches=(cache.uri,))
    plan = plan_forgetting(request)
    assert plan.cached == {cache.uri: len(theirs)}
    outcome = forget(plan, receipt, lambda _: None)
    assert outcome.removed["cache_entries"] == len(theirs)
    assert f"0 clips in cache {cache.uri}" in outcome.verified
    again = ClipCache.open(cache.uri)
    assert again.holds(theirs) == set()
    assert len(again.holds(set(few.column("clip_id")))) == 6 - len(theirs)
    assert who not in Manifest.read(uri).subjects
