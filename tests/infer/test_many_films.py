"""Folders of films to folders of tables: resumed, exactly once, bad files told, on Ray and S3."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from s3_server import BUCKET, S3Server

from mien.clips.labels import LabelSet
from mien.infer import one_film
from mien.infer.inputs import InputError, find_inputs, table_name
from mien.infer.many_films import Crew, ModelParts, PredictionStoppedError, predict_many
from mien.infer.one_film import FilmRecord, FolderJob
from mien.infer.package import PackageInfo
from mien.infer.rows import Columns
from mien.media.storage import StorageUnusableError
from mien_jobs.methods import MethodBuilder
from mien_models.mma_dfer import MmaDferConfig

CLASSES = ("joy", "grief")
HERE = Crew(workers=0)


@pytest.fixture(scope="module")
def model() -> ModelParts:
    """An audio-visual network with random weights."""
    config = dataclasses.replace(MmaDferConfig.tiny(), autoencoder=None)
    builder = MethodBuilder(name="mma_dfer", config=config, classes=CLASSES)
    torch.manual_seed(0)
    method = builder()
    method.begin_stage(0)
    info = PackageInfo(
        method="mma_dfer",
        config={},
        label_set=LabelSet(name="two", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=1,
    )
    tensors = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    return ModelParts(build_method=builder, info=info, tensors=tensors, action_units=())


@pytest.fixture
def films(synth_manifest: Path, tmp_path: Path) -> Path:
    """Three good films, one cut off, a text and an empty file that are called films."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number, source in enumerate(sorted(synth_manifest.parent.rglob("*.mp4"))[:3]):
        shutil.copy(source, folder / f"good{number}.mp4")
    (folder / "text.mp4").write_text("hello\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def job(out: Path | str, asked: str = "this") -> FolderJob:
    return FolderJob(out=str(out), columns=Columns(classes=CLASSES), asked=asked)


def statuses(records: list[FilmRecord]) -> dict[str, str]:
    return {Path(r.input).name: r.reason or r.status for r in records}


EXPECTED = {
    "good0.mp4": "done",
    "good1.mp4": "done",
    "good2.mp4": "done",
    "text.mp4": "not_a_video",
    "empty.mp4": "empty_file",
}


def check_tables(out: str, inputs: list[str]) -> None:
    """Every good input has each of its frames once; the list names all inputs."""
    fs, path = fsspec.core.url_to_fs(out)
    text = fs.cat_file(f"{path}/inputs.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["input"] for row in rows] == inputs
    good = [row for row in rows if row["status"] == "done"]
    assert len(fs.ls(f"{path}/frames")) == len(fs.ls(f"{path}/windows")) == len(good) == 3
    for row in good:
        with fs.open(f"{path}/frames/{table_name(row['input'])}.parquet") as file:
            table = pq.read_table(file)
        assert table["frame"].to_pylist() == list(range(int(row["num_frames"])))
        assert set(table["input"].to_pylist()) == {row["input"]}
        assert all(p is not None for p in table["p_joy"].to_pylist())


def test_bad_inputs_are_listed_and_good_ones_done(
    films: Path, tmp_path: Path, model: ModelParts
) -> None:
    inputs = find_inputs([str(films)])
    records = list(predict_many(inputs, job(tmp_path / "out"), model, HERE))
    assert statuses(records) == EXPECTED
    check_tables(str(tmp_path / "out"), inputs)


def test_killed_and_run_again(
    films: Path, tmp_path: Path, model: ModelParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = find_inputs([str(films / "good*.mp4")])
    running = predict_many(inputs, job(tmp_path / "out"), model, HERE)
    first = next(running)
    running.close()
    # The second input died between its tables and its record.
    (tmp_path / "out" / "frames" / f"{table_name(inputs[1])}.parquet").write_bytes(b"half")
    read: list[str] = []
    reading = one_film.FilmReading

    def noted(location: str, *rest: object) -> object:
        read.append(location)
        return reading(location, *rest)

    monkeypatch.setattr(one_film, "FilmReading", noted)
    records = list(predict_many(inputs, job(tmp_path / "out"), model, HERE))
    assert read == inputs[1:]
    assert records[0] == first
    check_tables(str(tmp_path / "out"), inputs)
    assert list(predict_many(inputs, job(tmp_path / "out"), model, HERE)) == records
    assert read == inputs[1:]


def test_what_changed_is_done_again(films: Path, tmp_path: Path, model: ModelParts) -> None:
    inputs = find_inputs([str(films / "good0.mp4"), str(films / "good1.mp4")])
    old = list(predict_many(inputs, job(tmp_path / "out"), model, HERE))
    shutil.copy(films / "good2.mp4", films / "good0.mp4")
    (films / "good1.mp4").write_text("damaged since")
    new = list(predict_many(inputs, job(tmp_path / "out"), model, HERE))
    assert new[0].source_version != old[0].source_version
    assert (new[0].status, new[1].reason) == ("done", "not_a_video")
    left = [path.name for path in (tmp_path / "out" / "windows").iterdir()]
    assert left == [f"{table_name(inputs[0])}.parquet"]
    others = list(predict_many(inputs[:1], job(tmp_path / "out", "other"), model, HERE))
    assert others[0].asked == "other"


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_from_s3_to_s3(
    films: Path, model: ModelParts, s3_server: S3Server, local_ray: None
) -> None:
    fs = fsspec.filesystem("s3")
    fs.put(str(films), f"{BUCKET}/predict/films", recursive=True)
    inputs = find_inputs([f"s3://{BUCKET}/predict/films/"])
    assert len(inputs) == 5
    assert find_inputs([f"s3://{BUCKET}/predict/films/g*.mp4"]) == inputs[1:4]
    out = f"s3://{BUCKET}/predict/out"
    crew = Crew(workers=2, films_at_once=2)
    records = list(predict_many(inputs, job(out), model, crew))
    assert statuses(records) == EXPECTED
    check_tables(out, inputs)
    again = list(predict_many(inputs, job(out), model, crew))
    done = {r.input: r for r in records if r.status == "done"}
    assert {r.input: r for r in again if r.status == "done"} == done
    check_tables(out, inputs)


def test_an_unusable_place_for_results_stops_the_run(
    films: Path, model: ModelParts, s3_server: S3Server
) -> None:
    inputs = find_inputs([str(films / "good0.mp4")])
    with pytest.raises(StorageUnusableError, match="there is no bucket"):
        list(predict_many(inputs, job("s3://no-such-bucket/out"), model, HERE))


@pytest.mark.slow
@pytest.mark.ray
def test_a_broken_network_stops_the_run(
    films: Path, tmp_path: Path, model: ModelParts, local_ray: None
) -> None:
    inputs = find_inputs([str(films)])
    tensors = {name: torch.full_like(value, torch.nan) for name, value in model.tensors.items()}
    broken = dataclasses.replace(model, tensors=tensors)
    with pytest.raises(PredictionStoppedError, match="logits are not finite"):
        list(predict_many(inputs, job(tmp_path / "out"), broken, Crew(workers=1)))
    assert not (tmp_path / "out" / "inputs.csv").exists()


def test_inputs(tmp_path: Path, films: Path) -> None:
    shots = films / "shots" / "a"
    shots.mkdir(parents=True)
    (shots / "1.jpg").write_bytes(b"x")
    (shots / "2.jpg").write_bytes(b"x")
    found = find_inputs([str(films), str(films / "text.mp4"), str(tmp_path / "missing.mp4")])
    assert [Path(location).name for location in found] == [
        *("empty.mp4", "good0.mp4", "good1.mp4", "good2.mp4", "a", "text.mp4", "missing.mp4")
    ]
    assert len({table_name(location) for location in found}) == len(found)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none holds no film: it is empty"):
        find_inputs([str(tmp_path / "none")])
    (tmp_path / "none" / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no film: 1 \.txt; expected files that end in"):
        find_inputs([str(tmp_path / "none")])
    with pytest.raises(InputError, match="matches nothing"):
        find_inputs([str(tmp_path / "*.mkv")])
