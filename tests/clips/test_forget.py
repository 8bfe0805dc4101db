"""Forgetting a person: what goes, what stays bit by bit, what is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.clips.forget import procedure
from mien.clips.forget.manifests import remove_person, rows_left
from mien.clips.forget.media import delete_media, media_of
from mien.clips.forget.memories import mentions_of, without_clips
from mien.clips.forget.person import UnknownPersonError, find_person
from mien.clips.forget.procedure import ForgetRequest, forget, plan_forgetting
from mien.clips.forget.receipt import Receipt, find_receipt
from mien.clips.forget.runs import search_runs
from mien.clips.manifest import Manifest
from mien.media.storage import StorageError
from mien.monitor.reading import read_sample
from mien.monitor.sample import REFERENCE_FILE, Sample, write_sample

NAME = "Jane Doe"
NAN = float("nan")


def rows() -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"c{number}",
            "uri": f"clips/c{number}.mp4",
            "subject_id": NAME if number in (1, 4) else f"p{number % 3}",
            "label": "anger",
            "soft_label": {"anger": 0.75, "fear": 0.25} if number % 2 else None,
            "action_units": {"AU4": [0.0, NAN, 2.5]},
            "note": None if number == 2 else f"x{number}",
        }
        for number in range(6)
    ]


def write(folder: Path, table_rows: list[dict[str, Any]], name: str = "manifest.parquet") -> str:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for row in table_rows:
        (folder / row["uri"]).write_bytes(row["clip_id"].encode())
    Manifest.from_rows(table_rows, base=str(folder)).write(str(folder / name))
    return str(folder / name)


def bits(table: pa.Table) -> bytes:
    """The table as bytes, so that NaN is equal to itself."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def test_rows_go_and_all_others_stay_bit_by_bit(tmp_path: Path) -> None:
    uri = write(tmp_path, rows())
    before = pq.read_table(uri)
    assert remove_person(uri, NAME) == 2
    after = pq.read_table(uri)
    kept = before.take([0, 2, 3, 5])
    assert after["clip_id"].to_pylist() == ["c0", "c2", "c3", "c5"]
    assert bits(after) == bits(kept)
    assert rows_left(uri, NAME) == 0
    data = Path(uri).read_bytes()
    assert remove_person(uri, NAME) == 0
    assert Path(uri).read_bytes() == data


def test_foreign_columns_metadata_and_dictionaries_stay_without_the_name(tmp_path: Path) -> None:
    """A filtered dictionary column would still hold the name of whoever was filtered out."""
    uri = str(tmp_path / "foreign.parquet")
    people = pa.array(["p0", NAME, None, "p1"]).dictionary_encode()
    table = pa.table(
        {
            "clip_id": ["a", "b", "c", "d"],
            "uri": ["/a", "/b", "/c", "/d"],
            "subject_id": people,
            "taken": pa.array([1, 2, 3, 4], pa.date32()),
        }
    ).replace_schema_metadata({"pandas": "{}", "owner": "lab"})
    pq.write_table(table, uri, compression="none")
    assert NAME.encode() in Path(uri).read_bytes()
    assert remove_person(uri, NAME) == 1
    assert NAME.encode() not in Path(uri).read_bytes()
    after = pq.read_table(uri)
    assert after.schema.equals(table.schema, check_metadata=True)
    assert after.to_pylist() == [row for row in table.to_pylist() if row["subject_id"] != NAME]


def test_a_manifest_of_that_person_alone_becomes_empty(tmp_path: Path) -> None:
    uri = write(tmp_path, [row for row in rows() if row["subject_id"] == NAME])
    assert remove_person(uri, NAME) == 2
    assert len(Manifest.read(uri)) == 0


def test_a_failed_write_leaves_the_manifest_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write(tmp_path, rows())
    data = Path(uri).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        remove_person(uri, NAME)
    monkeypatch.undo()
    assert Path(uri).read_bytes() == data
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_nobody_of_that_name_names_the_nearest(tmp_path: Path) -> None:
    uri = write(tmp_path, rows())
    with pytest.raises(UnknownPersonError, match="Nearest: Jane Doe") as failure:
        find_person("Jane Do", [uri])
    assert "3 people" in str(failure.value)


def test_media_that_others_need_are_never_deleted(tmp_path: Path) -> None:
    mine = rows()[1]
    table = [
        mine,
        {**mine, "clip_id": "scene1", "uri": "film.mp4", "start_s": 0.0, "end_s": 1.0},
        {**rows()[0], "clip_id": "scene2", "uri": "film.mp4", "start_s": 1.0, "end_s": 2.0},
        {**mine, "clip_id": "frames", "uri": "frames/jane"},
        {**mine, "clip_id": "root", "uri": "frames/all"},
        {**rows()[0], "clip_id": "below", "uri": "frames/all/bob"},
    ]
    for folder in ("clips", "frames/jane", "frames/all/bob"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("clips/c1.mp4", "film.mp4", "frames/jane/1.jpg", "frames/all/bob/1.jpg"):
        (tmp_path / file).write_bytes(b"x")
    Manifest.from_rows(table, base=str(tmp_path)).write(str(tmp_path / "manifest.parquet"))
    media = media_of(find_person(NAME, [str(tmp_path)]))
    assert media.theirs == (str(tmp_path / "clips/c1.mp4"), str(tmp_path / "frames/jane"))
    assert media.shared == (str(tmp_path / "film.mp4"), str(tmp_path / "frames/all"))
    assert delete_media(media.theirs) == 2
    assert delete_media(media.theirs) == 0
    assert not (tmp_path / "frames/jane").exists()
    assert (tmp_path / "frames/all/bob/1.jpg").exists()


IDS = frozenset({"c1", "c4"})
KNOWN = frozenset({f"c{n}" for n in range(6)})


@pytest.mark.parametrize(
    ("state", "cleaned", "removed"),
    [
        ({"memory": {"anger": ["c0", "c1"], "fear": ["c2", "c3"]}},
         {"memory": {"anger": ["c0"], "fear": ["c2", "c3"]}}, 1),
        ({"score": {"c1": 0.5, "c2": 0.25}}, {"score": {"c2": 0.25}}, 1),
        ([["c1", 0.5], ["c0", 1]], [["c0", 1]], 1),
        ([["c1", "c0"], ["c4"]], [["c0"], []], 2),
        ([{"clip_id": "c4", "step": 1}, {"clip_id": "c0"}], [{"clip_id": "c0"}], 1),
        ({"ids": ["c0", "c2"], "scores": [1, 2]}, {"ids": ["c0", "c2"], "scores": [1, 2]}, 0),
        ({"ids": ["c0", "c1"], "mean": [0.1, 0.2, 3]}, {"ids": ["c0"], "mean": [0.1, 0.2, 3]}, 1),
        ({}, {}, 0),
        (None, None, 0),
    ],
)  # fmt: skip
def test_entries_about_clips_leave_a_memory(state: Any, cleaned: Any, removed: int) -> None:
    found, removal = without_clips(state, IDS, KNOWN)
    assert found == cleaned
    assert (removal.removed, removal.unsafe) == (removed, [])


@pytest.mark.parametrize(
    ("state", "paths"),
    [
        ({"ids": ["c0", "c1"], "scores": [0.1, 0.2]}, ["ids[1]"]),
        ({"ids": ["c0", "c1"], "labels": ["anger", "anger"]}, ["ids[1]"]),
        ({"ids": [["c0"], ["c2", "c1"]], "scores": [[1], [2, 3]]}, ["ids[1][1]"]),
        ({"best": {"clip": "c4"}}, ["best.clip"]),
    ],
)
def test_what_may_be_in_step_with_other_values_stays_and_is_named(
    state: Any, paths: list[str]
) -> None:
    found, removal = without_clips(state, IDS, KNOWN)
    assert found == state
    assert (removal.removed, removal.unsafe) == (0, paths)


scalars = st.sampled_from(["c0", "c1", "c2", "c4", "anger"]) | st.integers() | st.none()
states = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["c0", "c1", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(states)
def test_every_mention_is_removed_or_named_and_a_second_time_changes_nothing(state: Any) -> None:
    before = json.dumps(state)
    cleaned, removal = without_clips(state, IDS, KNOWN)
    assert json.dumps(state) == before
    assert list(mentions_of(cleaned, IDS)) == removal.unsafe
    again, second = without_clips(cleaned, IDS, KNOWN)
    assert again == cleaned
    assert second.removed == 0
    if not list(mentions_of(state, IDS)):
        assert cleaned == state


def make_run(folder: Path, manifest: str, name: str = "run") -> Path:
    """The files of a training that name clips."""
    run = folder / name
    best = run / "checkpoints" / "best"
    package = run / "package"
    for place in (best, package):
        place.mkdir(parents=True)
    memory = {"memory": {"anger": ["c0", "c1", "c4"]}}
    recipe = {"data": {"manifest": manifest}, "manifest_hash": "of then"}
    split = {"name": "s", "train": ["c0", "c1"], "val": ["c2"], "test": ["c4"], "notes": []}
    files = {
        run / "recipe.json": recipe,
        run / "split.json": split,
        best / "state.json": {"position": 3, "method": memory},
        package / "model.json": {"json_state": memory, "recipe": recipe},
    }
    for path, content in files.items():
        path.write_text(json.dumps(content, indent=2) + "\n")
    table = pa.table({"clip_id": ["c1", "c2", "c1"]})
    pq.write_table(table, run / "predictions-test.parquet")
    (run / "quarantine.csv").write_text("clip_id,reason\nc1,cut\nc0,cut\n")
    (run / "result.json").write_text('{"clip": "c4"}\n{"loss": 1}\n{"broken": "c1", \n')
    return run


def test_a_run_is_searched_whole(tmp_path: Path) -> None:
    uri = write(tmp_path / "data", rows())
    run = make_run(tmp_path / "runs", uri)
    (found,) = search_runs(str(tmp_path / "runs"), find_person(NAME, [uri]))
    assert found.folder == str(run)
    assert found.is_ours
    assert found.parts == {"train": 1, "test": 1}
    counts = {Path(m.location).name: (m.count, m.in_memory) for m in found.mentions}
    assert counts == {
        "split.json": (2, 0),
        "state.json": (2, 2),
        "model.json": (2, 2),
        "predictions-test.parquet": (2, 0),
        "quarantine.csv": (1, 0),
        "result.json": (2, 0),
    }
    with pytest.raises(StorageError, match="no folder"):
        search_runs(str(tmp_path / "nowhere"), find_person(NAME, [uri]))


def request(tmp_path: Path, uri: str, **options: Any) -> ForgetRequest:
    return ForgetRequest(name=NAME, manifests=(uri,), runs=(str(tmp_path / "runs"),), **options)


def test_the_whole_of_it(tmp_path: Path) -> None:
    uri = write(tmp_path / "data", rows())
    run = make_run(tmp_path / "runs", uri)
    lines: list[str] = []
    receipt = str(tmp_path / "data" / "forgotten-now.json")
    plan = plan_forgetting(request(tmp_path, uri, delete_media=True))
    outcome = forget(plan, receipt, lines.append)
    assert outcome.removed == {
        "cache_entries": 0, "memory_entries": 4, "media_files": 2, "manifest_rows": 2
    }  # fmt: skip
    assert outcome.remaining == ()
    state = json.loads((run / "checkpoints/best/state.json").read_text())
    assert state == {"position": 3, "method": {"memory": {"anger": ["c0"]}}}
    assert json.loads((run / "package/model.json").read_text())["json_state"]["memory"] == {
        "anger": ["c0"]
    }
    assert sorted(p.name for p in (tmp_path / "data/clips").iterdir()) == [
        f"c{n}.mp4" for n in (0, 2, 3, 5)
    ]
    todo = "\n".join(outcome.left_to_do)
    assert f"train anew: run {run}: 1 clips in train, 1 clips in test" in todo
    for name in ("split.json", "predictions-test.parquet", "quarantine.csv", "result.json"):
        assert f"delete: {run / name} names their clips" in todo
    assert "model.json" not in todo
    written = Path(receipt).read_text()
    assert NAME not in written
    data = json.loads(written)
    assert data["removed"] == outcome.removed
    assert len(data["clips"]) == 2
    assert data["manifests"][0]["rows_before"] == 6
    assert data["manifests"][0]["sha256_before"] != data["manifests"][0]["sha256_after"]
    found = find_receipt(NAME, [uri])
    assert found is not None
    assert found[0] == receipt
    assert find_receipt("p0", [uri]) is None


def test_an_interrupted_forgetting_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "one", rows())
    second = write(tmp_path / "two", rows())
    make_run(tmp_path / "runs", first)
    asked = ForgetRequest(name=NAME, manifests=(first, second), runs=(str(tmp_path / "runs"),))
    real = procedure.remove_person

    def dies(uri: str, name: str) -> int:
        if uri == second:
            raise KeyboardInterrupt
        return real(uri, name)

    monkeypatch.setattr(procedure, "remove_person", dies)
    with pytest.raises(KeyboardInterrupt):
        forget(plan_forgetting(asked), str(tmp_path / "forgotten-1.json"), lambda _: None)
    monkeypatch.undo()
    assert (rows_left(first, NAME), rows_left(second, NAME)) == (0, 2)
    interrupted = find_receipt(NAME, [str(tmp_path / "x")])
    assert interrupted is not None
    assert interrupted[1].finished == ""
    outcome = forget(plan_forgetting(asked), str(tmp_path / "forgotten-2.json"), lambda _: None)
    assert outcome.remaining == ()
    assert rows_left(second, NAME) == 0


def test_memories_of_runs_on_other_data_are_left_alone_and_named(tmp_path: Path) -> None:
    uri = write(tmp_path / "data", rows())
    run = make_run(tmp_path / "runs", str(tmp_path / "other" / "manifest.parquet"))
    before = (run / "package/model.json").read_bytes()
    outcome = forget(
        plan_forgetting(request(tmp_path, uri)), str(tmp_path / "r.json"), lambda _: None
    )
    assert outcome.removed["memory_entries"] == 0
    assert (run / "package/model.json").read_bytes() == before
    assert any(line.startswith(f"look at: run {run}") for line in outcome.left_to_do)


def test_what_is_still_there_afterwards_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write(tmp_path / "data", rows())
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(procedure, "remove_person", lambda *_: 0)
    receipt = tmp_path / "r.json"
    outcome = forget(plan_forgetting(request(tmp_path, uri)), str(receipt), lambda _: None)
    assert outcome.remaining == (f"2 rows in manifest {uri}",)
    assert json.loads(receipt.read_text())["finished"] == ""


def test_a_receipt_knows_its_person_and_hides_the_name_in_places(tmp_path: Path) -> None:
    receipt = Receipt.begin(NAME, ["c1"])
    receipt.left_to_do = [f"delete: /data/{NAME}/film.mp4"]
    assert receipt.is_about(NAME)
    assert not receipt.is_about("jane doe")
    receipt.write(str(tmp_path / "r.json"), NAME)
    text = (tmp_path / "r.json").read_text()
    assert NAME not in text
    assert "/data/[person]/film.mp4" in text
    assert Receipt.begin(NAME, ["c1"]).person != receipt.person


def write_reference(folder: Path, clip_ids: list[str]) -> Path:
    """What a training leaves for `mien monitor`, with features of these clips."""
    folder.mkdir(parents=True, exist_ok=True)
    many = len(clip_ids)
    sample = Sample(
        classes=("joy", "grief"),
        weights_sha256="w",
        unit_N=np.arange(many),
        strand_N=np.arange(many),
        start_s_N=np.zeros(many),
        probabilities_NK=np.full((many, 2), 0.5),
        face_share_N=np.ones(many),
        has_audio_N=np.ones(many),
        features_ND=np.arange(many, dtype=np.float32)[:, None],
        clip_ids_N=np.array(clip_ids),
    )
    write_sample(str(folder / REFERENCE_FILE), sample)
    return folder / REFERENCE_FILE


def features_in(reference: Path) -> list[float]:
    found = read_sample([str(reference)]).features_ND
    assert found is not None
    return sorted(found[:, 0].tolist())


def test_rows_of_references_of_the_monitor_are_removed(tmp_path: Path) -> None:
    uri = write(tmp_path / "data", rows())
    run = make_run(tmp_path / "runs", uri)
    # The person's clips are c1 and c4; elsewhere other data have the same ids.
    mine = write_reference(run / "package", ["c0", "c1", "c2", "c4"])
    other = make_run(tmp_path / "runs", str(tmp_path / "elsewhere.parquet"), "other")
    theirs = write_reference(other / "package", ["c0", "c1", "c2", "c4"])
    keys = [set(pq.read_table(file)["clip_key"].to_pylist()) for file in (mine, theirs)]
    assert len(keys[0]) == 4
    assert not keys[0] & keys[1]  # salted
    plan = plan_forgetting(request(tmp_path, uri))
    outcome = forget(plan, str(tmp_path / "data" / "forgotten-now.json"), lambda line: None)
    assert features_in(mine) == [0.0, 2.0]
    assert features_in(theirs) == [0.0, 1.0, 2.0, 3.0]
    assert outcome.removed["memory_entries"] == 4 + 2
    assert f"0 entries in memory {mine}" in outcome.verified
    assert not outcome.remaining
    assert REFERENCE_FILE not in "\n".join(outcome.left_to_do)


def test_references_without_keys_are_named(tmp_path: Path) -> None:
    uri = write(tmp_path / "data", rows())
    run = make_run(tmp_path / "runs", uri)
    old = write_reference(run / "package", ["c0", "c1"])
    pq.write_table(pq.read_table(old).drop_columns(["clip_key"]), old)
    plan = plan_forgetting(request(tmp_path, uri))
    outcome = forget(plan, str(tmp_path / "data" / "forgotten-now.json"), lambda line: None)
    assert f"delete: {old} may hold features of their clips" in "\n".join(outcome.left_to_do)
    assert features_in(old) == [0.0, 1.0]
