"""The model package: round trip, refusals, and no half package after a failure."""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mien.clips.labels import DFEW7, LabelSet
from mien.infer import package as package_module
from mien.infer.package import (
    PackageError,
    PackageInfo,
    load_package,
    read_info,
    save_package,
    set_temperatures,
)
from mien.infer.stream_json import stream_spec_from_json, stream_spec_to_json
from mien_models.contract import AudioSpec, Augmentation, StreamSpec, ViewSpec

STREAM = StreamSpec(
    labels=("anger", "fear"),
    views=(ViewSpec(augmentation=Augmentation(flip_probability=0.5)), ViewSpec(same_frames_as=0)),
    audio=AudioSpec(num_frames=64),
)


def info(**changes: Any) -> PackageInfo:
    base = PackageInfo(
        method="probe",
        config={"width": 8},
        label_set=DFEW7,
        prediction_stream=STREAM,
        stages_begun=1,
        json_state={"clips": {"a": 0.5}},
        metrics={"val/uar": 0.5},
    )
    return dataclasses.replace(base, **changes)


def tensors() -> dict[str, torch.Tensor]:
    tied = torch.arange(6.0).reshape(2, 3)
    return {"a": tied, "b": tied, "c": tied.T, "half": torch.ones(3, dtype=torch.bfloat16)}


def test_round_trip(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "deep" / "package", info(), tensors())
    loaded, weights = load_package(folder)
    assert dataclasses.replace(loaded, weights_sha256="") == info(created=loaded.created)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert set(weights) == set(tensors())
    for name, tensor in tensors().items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name], tensor)


def test_temperatures_come_later_and_are_missing_in_older_packages(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "package", info(), tensors())
    older = json.loads((folder / "model.json").read_text())
    del older["temperatures"]
    (folder / "model.json").write_text(json.dumps(older))
    before, weights = load_package(folder)
    assert before.temperatures == {}
    set_temperatures(folder, {"video": 1.5})
    after, same = load_package(folder)
    assert after == dataclasses.replace(before, temperatures={"video": 1.5})
    assert all(torch.equal(same[name], tensor) for name, tensor in weights.items())


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "package", info(), tensors())
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(PackageError, match=r"does not belong.*copy it again"):
        load_package(folder)


def test_missing_weights_folder_and_other_folders(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "package", info(), tensors())
    (folder / "weights.safetensors").unlink()
    with pytest.raises(PackageError, match=r"weights\.safetensors is missing"):
        load_package(folder)
    with pytest.raises(PackageError, match="not a folder"):
        load_package(tmp_path / "nowhere")
    with pytest.raises(PackageError, match=r"not a model package: it holds no model\.json"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "has format 2"),
        ({"format_version": None}, "has format None"),
        ({"colour": "red"}, "unknown fields: colour"),
        ({"label_set": {"name": "x", "classes": ["a", "a"]}}, "names classes twice"),
        ({"prediction_stream": {"image_size": 8}}, "Did you mean 'image_size_px'"),
    ],
)
def test_bad_info_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = save_package(tmp_path / "package", info(), tensors())
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PackageError, match=message):
        read_info(folder)


def test_truncated_info_is_refused(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "package", info(), tensors())
    path = folder / "model.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(PackageError, match="is not JSON"):
        read_info(folder)


def test_failure_leaves_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_package(tmp_path / "package", info(method="old"), tensors())

    def disk_full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package_module, "_info_text", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_package(folder, info(method="new"), tensors())
    assert load_package(folder)[0].method == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A file size limit of the process stands for the full disk: writes really fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        with pytest.raises(OSError, match=f"can't write the weights to {tmp_path}"):
            save_package(tmp_path / "package", info(), {"big": torch.zeros(1 << 18)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_replaces_a_package_but_nothing_else(tmp_path: Path) -> None:
    folder = save_package(tmp_path / "package", info(method="old"), tensors())
    save_package(folder, info(method="new"), tensors())
    assert load_package(folder)[0].method == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
    precious = tmp_path / "videos"
    precious.mkdir()
    (precious / "clip.mp4").write_bytes(b"x")
    with pytest.raises(PackageError, match="is not a model package"):
        save_package(precious, info(), tensors())
    assert (precious / "clip.mp4").exists()


@pytest.mark.parametrize("config", [{"lr": float("nan")}, {"lr": object()}])
def test_values_that_are_not_json_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(PackageError, match="can't be written as JSON"):
        save_package(tmp_path / "package", info(config=config), tensors())
    assert list(tmp_path.iterdir()) == []


def test_label_order_travels(tmp_path: Path) -> None:
    order = LabelSet(name="mine", classes=("zorn", "angst", "überraschung"))
    folder = save_package(tmp_path / "package", info(label_set=order), tensors())
    assert load_package(folder)[0].label_set == order


@given(
    split=st.sampled_from(get_args(StreamSpec.__annotations__["split"]) or ("train", "val")),
    labels=st.none() | st.lists(st.text(min_size=1), max_size=3).map(tuple),
    cap=st.none() | st.integers(1, 9),
    audio=st.none() | st.builds(AudioSpec, num_frames=st.integers(1, 999), mean=st.floats(-9, 9)),
    flip=st.none() | st.builds(Augmentation, flip_probability=st.floats(0, 1)),
)
def test_stream_spec_round_trip(split: Any, labels: Any, cap: Any, audio: Any, flip: Any) -> None:
    views = (ViewSpec(augmentation=flip), ViewSpec(num_frames=3, same_frames_as=0))
    spec = StreamSpec(split=split, labels=labels, subject_cap=cap, audio=audio, views=views)
    text = json.dumps(stream_spec_to_json(spec))
    assert stream_spec_from_json(json.loads(text)) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"split": "dev"}, "stream.split: expected one of 'train', 'val', 'test', 'all'"),
        ({"batch_size": "8"}, "stream.batch_size: expected int, got '8'"),
        ({"batch_size": True}, "stream.batch_size: expected int, got True"),
        ({"views": [{"num_frame": 2}]}, r"views\[0\]: unknown setting 'num_frame'. Did you mean"),
        ({"views": 3}, "stream.views: expected a list"),
        ([], "stream: expected an object"),
        ({"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_stream_spec_refuses(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream_spec_from_json(data)
