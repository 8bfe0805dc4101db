"""Manifests: storage, resolution of uris, hash, checks."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.clips.manifest import REF_COLUMNS, ClipRef, Manifest
from mien.clips.schema import SCHEMA, ManifestError

ROWS: list[dict[str, Any]] = [
    {
        "clip_id": "b",
        "uri": "clips/b.mp4",
        "label": "anger",
        "subject_id": "s2",
        "soft_label": {"fear": 0.25, "anger": 0.75},
        "action_units": {"AU4": [0.0, 2.5], "AU1": [float("nan"), 5.0]},
        "skin": 0.5,
    },
    {"clip_id": "a", "uri": "clips/a.mp4", "start_s": 1.0, "end_s": 2.0, "fold": 3, "skin": 0.1},
    {
        "clip_id": "c",
        "uri": "s3://elsewhere/c.mp4",
        "audio_uri": "sound/c.wav",
        "label": "fear",
        "subject_id": "s1",
        "skin": None,
    },
]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.from_rows(ROWS, base=str(tmp_path))


def test_rows_come_back_as_they_went_in(manifest: Manifest, tmp_path: Path) -> None:
    assert manifest.ref(0) == ClipRef(
        clip_id="b",
        uri=str(tmp_path / "clips/b.mp4"),
        label="anger",
        subject_id="s2",
        soft_label={"anger": 0.75, "fear": 0.25},
    )
    assert manifest.ref(1).start_s == 1.0
    assert manifest.ref(2).uri == "s3://elsewhere/c.mp4"
    assert manifest.ref(2).audio_uri == str(tmp_path / "sound/c.wav")
    assert [manifest.ref(i) for i in range(3)] == list(manifest)
    assert manifest.column("skin") == [0.5, 0.1, None]
    assert manifest.column("consent") == [True, True, True]
    assert dict(manifest.table["action_units"][0].as_py())["AU4"] == [0.0, 2.5]
    assert manifest.labels == ("anger", "fear")
    assert manifest.subjects == ("s1", "s2")


def test_a_ref_has_every_known_column_but_the_action_units() -> None:
    assert (
        set(ClipRef.__dataclass_fields__) == set(REF_COLUMNS) == {*SCHEMA.names} - {"action_units"}
    )


def test_a_row_that_is_not_there_is_an_index_error(manifest: Manifest) -> None:
    for index in (3, -1):
        with pytest.raises(IndexError):
            manifest.ref(index)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_data_set_can_be_moved_as_a_whole(manifest: Manifest, tmp_path: Path, where: str) -> None:
    folder = str(tmp_path) if where == "local" else "memory://moved-manifest"
    manifest.write(f"{tmp_path}/manifest.parquet")
    data = (tmp_path / "manifest.parquet").read_bytes()
    moved = f"{folder}/new/place/m.parquet"
    with fsspec.open(moved, "wb", auto_mkdir=True) as file:
        file.write(data)
    read = Manifest.read(moved)
    assert read.ref(0).uri == f"{folder}/new/place/clips/b.mp4"
    assert read.ref(2).uri == "s3://elsewhere/c.mp4"
    assert read.content_hash() == manifest.content_hash()


def test_writing_elsewhere_keeps_pointing_at_the_same_files(
    manifest: Manifest, tmp_path: Path
) -> None:
    written = manifest.write(str(tmp_path / "clips/m.parquet"))
    read = Manifest.read(str(tmp_path / "clips/m.parquet"))
    assert list(read) == list(written) == list(manifest)
    assert read.column("uri") == ["b.mp4", "a.mp4", "s3://elsewhere/c.mp4"]
    assert read.column("audio_uri") == [None, None, str(tmp_path / "sound/c.wav")]


def test_absolute_uris_below_the_base_are_stored_relative(tmp_path: Path) -> None:
    absolute = Manifest.from_rows(
        [{"clip_id": "a", "uri": f"{tmp_path}/x/ä.mp4"}], base=str(tmp_path)
    )
    assert absolute.column("uri") == ["x/ä.mp4"]
    assert absolute.ref(0).uri == f"{tmp_path}/x/ä.mp4"


def test_relative_uris_without_a_base_wait_for_the_file(tmp_path: Path) -> None:
    baseless = Manifest.from_rows(ROWS)
    with pytest.raises(ManifestError, match="base=FOLDER"):
        baseless.ref(0)
    written = baseless.write(str(tmp_path / "manifest.parquet"))
    assert written.ref(0).uri == str(tmp_path / "clips/b.mp4")


def test_a_folder_stands_for_the_manifest_in_it(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(str(tmp_path / "manifest.parquet"))
    assert list(Manifest.read(str(tmp_path))) == list(manifest)


def test_a_relative_path_of_a_manifest_is_absolute_in_its_clips(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest.write(str(tmp_path / "manifest.parquet"))
    monkeypatch.chdir(tmp_path)
    read = Manifest.read("manifest.parquet")
    monkeypatch.chdir("/")
    assert read.ref(0).uri == str(tmp_path / "clips/b.mp4")


def test_it_pickles_without_the_rows_that_were_filtered_away(manifest: Manifest) -> None:
    again = pickle.loads(pickle.dumps(manifest))
    assert list(again) == list(manifest)
    assert again.content_hash() == manifest.content_hash()
    many = Manifest(
        pa.table({"clip_id": [f"clip{i:06d}" for i in range(20_000)], "uri": ["x"] * 20_000})
    )
    few = many.filter(np.arange(20_000) < 10)
    assert len(pickle.dumps(few)) < 10_000 < len(pickle.dumps(many))


def test_its_pickle_can_go_out_of_band(manifest: Manifest) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(manifest, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 500
    assert list(pickle.loads(data, buffers=buffers)) == list(manifest)


def test_filters(manifest: Manifest) -> None:
    ids = [
        manifest.filter(pa.array([True, False, None])).column("clip_id"),
        manifest.filter(np.array([True, False, False])).column("clip_id"),
        manifest.filter([True, False, False]).column("clip_id"),
        manifest.filter(lambda ref: ref.label == "anger").column("clip_id"),
        manifest.filter(pc.field("skin") > 0.2).column("clip_id"),
    ]
    assert ids == [["b"]] * 5
    with pytest.raises(ManifestError, match="3 clips"):
        manifest.filter([True, False])
    with pytest.raises(ManifestError, match="cannot filter"):
        manifest.filter(pc.field("nothing") > 0)


def test_by_ids_keeps_the_order_that_was_asked_for(manifest: Manifest) -> None:
    assert manifest.by_ids(["c", "b"]).column("clip_id") == ["c", "b"]
    with pytest.raises(ManifestError, match="1 clip ids are not in the manifest: zz"):
        manifest.by_ids(["a", "zz"])
    with pytest.raises(ManifestError, match="more than once: a"):
        manifest.by_ids(["a", "b", "a"])


def test_an_unknown_column_names_the_nearest(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"Did you mean 'subject_id'\?"):
        manifest.column("subjet_id")


def test_consent_false_and_empty_are_left_out() -> None:
    rows = [
        {"clip_id": "yes", "uri": "x", "consent": True},
        {"clip_id": "no", "uri": "x", "consent": False},
        {"clip_id": "empty", "uri": "x"},
    ]
    assert Manifest.from_rows(rows).consented().column("clip_id") == ["yes"]


def test_the_hash_is_of_content_only(manifest: Manifest) -> None:
    content = manifest.content_hash()
    backwards = [dict(reversed(row.items())) for row in reversed(ROWS)]
    assert Manifest.from_rows(backwards).content_hash() == content
    chunks = pa.concat_tables([manifest.table.slice(0, 1), manifest.table.slice(1)])
    assert Manifest(chunks).content_hash() == content
    encoded = manifest.table.set_column(
        manifest.table.column_names.index("label"),
        "label",
        manifest.table["label"].combine_chunks().dictionary_encode(),
    )
    assert Manifest(encoded).content_hash() == content
    empty = manifest.table.append_column("nothing", pa.nulls(3, pa.string()))
    assert Manifest(empty).content_hash() == content
    assert Manifest(manifest.table.cast(manifest.table.schema)).content_hash() == content


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "B"},
        {"uri": "clips/bb.mp4"},
        {"label": None},
        {"label": "fear"},
        {"soft_label": {"fear": 0.75, "anger": 0.25}},
        {"soft_label": {"fear": 0.25, "joy": 0.75}},
        {"action_units": {"AU4": [0.0, 2.5], "AU1": [5.0, 5.0]}},
        {"action_units": {"AU4": [0.0, 2.5, 5.0], "AU1": [float("nan")]}},
        {"skin": 0.25},
        {"consent": False},
        {"num_frames": 7},
    ],
)
def test_the_hash_sees_every_change(manifest: Manifest, change: Mapping[str, Any]) -> None:
    rows = [{"consent": True, **row} for row in ROWS]
    assert Manifest.from_rows(rows).content_hash() == manifest.content_hash()
    changed = [{**rows[0], **change}, *rows[1:]]
    assert Manifest.from_rows(changed).content_hash() != manifest.content_hash()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
EXTRAS = st.fixed_dictionaries(
    {
        "text": st.none() | TEXT,
        "number": st.none() | st.integers(-9, 9),
        "nested": st.none() | st.lists(st.none() | TEXT, max_size=3),
        "pair": st.none() | st.fixed_dictionaries({"x": st.none() | st.integers(0, 3), "y": TEXT}),
    }
)


@given(extras=st.lists(EXTRAS, min_size=1, max_size=5), data=st.data())
def test_equal_hash_means_equal_rows(extras: list[dict[str, Any]], data: st.DataObject) -> None:
    def rows_of(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"clip_id": str(i), "uri": "x", **value} for i, value in enumerate(values)]

    rows = rows_of(extras)
    shuffled = data.draw(st.permutations(rows))
    assert Manifest.from_rows(rows).content_hash() == Manifest.from_rows(shuffled).content_hash()
    others = data.draw(st.lists(EXTRAS, min_size=len(rows), max_size=len(rows)))
    same = (
        Manifest.from_rows(rows).content_hash()
        == Manifest.from_rows(rows_of(others)).content_hash()
    )
    assert same == (extras == others)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"clip_id": "a"}], "no column uri"),
        ([{"uri": "x"}], "no column clip_id"),
        ([{"clip_id": None, "uri": "x"}], "no clip_id for the clip at 'x'"),
        ([{"clip_id": " ", "uri": "x"}], "no clip_id"),
        ([{"clip_id": "a", "uri": ""}], "empty uri"),
        ([{"clip_id": "a", "uri": "x", "subject_id": ""}], "empty subject_id"),
        ([{"clip_id": "a", "uri": "x"}] * 2, r"'a' \(2 rows\)"),
        ([{"clip_id": "a", "uri": "x", "start_s": 2.0, "end_s": 2.0}], "start_s=2.0, end_s=2.0"),
        ([{"clip_id": "a", "uri": "x", "end_s": 0.0}], "end_s=0.0"),
        ([{"clip_id": "a", "uri": "x", "start_s": -1.0}], "start_s=-1.0"),
        ([{"clip_id": "a", "uri": "x", "start_s": float("nan")}], "start_s=nan"),
        ([{"clip_id": "a", "uri": "x", "num_frames": 0}], "num_frames=0"),
        ([{"clip_id": "a", "uri": "x", "soft_label": {"p": 0.5, "q": 0.4}}], "sum to 1"),
        ([{"clip_id": "a", "uri": "x", "soft_label": {"p": 1.5, "q": -0.5}}], "sum to 1"),
        ([{"clip_id": "a", "uri": "x", "soft_label": {"p": 1.0, "q": None}}], "sum to 1"),
        ([{"clip_id": "a", "uri": "x", "soft_label": {}}], "sum to 1"),
        ([{"clip_id": "a", "uri": "x", "action_units": {"AU1": [1.0, 5.5]}}], "5.5 for AU1"),
        ([{"clip_id": "a", "uri": "x", "label": 3}], "column label.*clip 'a' has 3"),
        ([{"clip_id": "a", "uri": "x", "fold": "first"}], "column fold.*'first'"),
        ([{"clip_id": "a", "uri": "x\udcff"}], "column uri"),
        (
            [{"clip_id": "a", "uri": "x", "age": 3}, {"clip_id": "b", "uri": "x", "age": "old"}],
            "age",
        ),
    ],
)
def test_rows_that_cannot_be_right_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_rows(rows)


def test_only_the_wrong_row_is_named() -> None:
    good = [{"clip_id": f"g{i}", "uri": "x", "soft_label": {"p": 1.0}} for i in range(4)]
    good.insert(2, {"clip_id": "none", "uri": "x"})
    bad = {"clip_id": "bad", "uri": "x", "soft_label": {"p": 0.2}}
    with pytest.raises(ManifestError, match=r"^clip 'bad' has"):
        Manifest.from_rows([*good, bad])
    # The same below a slice, where Arrow's offsets do not start at 0.
    Manifest(Manifest.from_rows(good).table.slice(1, 3))


def test_class_numbers_are_refused_with_a_reason() -> None:
    table = pa.table({"clip_id": ["a"], "uri": ["x"], "label": [3]})
    with pytest.raises(ManifestError, match="class names"):
        Manifest(table)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(ManifestError, match="there is no"):
        Manifest.read(str(path))
    path.write_text("path,label\n")
    with pytest.raises(ManifestError, match="mien ingest"):
        Manifest.read(str(path))
    pq.write_table(pa.table({"name": ["a"]}), path)
    with pytest.raises(ManifestError, match=r"manifest\.parquet: no column clip_id"):
        Manifest.read(str(path))


def test_a_truncated_manifest_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    manifest.write(str(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ManifestError, match="not a manifest"):
        Manifest.read(str(path))


def test_an_unreadable_bucket_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    from botocore.exceptions import EndpointConnectionError
    from s3fs import S3FileSystem

    def refuse(*_: Any, **__: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    monkeypatch.setattr(S3FileSystem, "isdir", refuse)
    monkeypatch.setenv("MIEN_STORAGE_PATIENCE_S", "0")
    with pytest.raises(ManifestError, match=r"s3://no-such-bucket/m\.parquet.*AWS_ENDPOINT_URL"):
        Manifest.read("s3://no-such-bucket/m.parquet")


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ManifestError, match="nosuch"):
        Manifest.read("nosuch://bucket/m.parquet")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.parquet"
    manifest.write(str(path))
    before = path.read_bytes()

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(ManifestError, match="No space left"):
        manifest.filter([True, False, False]).write(str(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["manifest.parquet"]


def test_an_empty_manifest_is_one(tmp_path: Path) -> None:
    empty = Manifest.from_rows([]).write(str(tmp_path / "m.parquet"))
    assert len(Manifest.read(str(tmp_path / "m.parquet"))) == len(empty) == 0
    assert list(empty) == []
    assert empty.content_hash() == Manifest.from_rows(ROWS).filter([False] * 3).content_hash()
