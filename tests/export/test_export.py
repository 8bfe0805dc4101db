"""``mien export``: the files say what the package says, or there are none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export.export_cases import CLASSES, BrightnessMethod, info_of, write_package

from mien.export.check import Comparison, compare, windows_of
from mien.export.graph import open_graph, trace, write_graph
from mien.export.preprocessing import preprocessing_contract
from mien.export.write import export_package
from mien.infer.package import load_package
from mien.media.sampling import uniform_segments
from mien.stream.plan import DEFAULT
from mien.track.export import ExportError
from mien_jobs.cli import main
from mien_jobs.methods import METHODS, load_method


@pytest.fixture(scope="module")
def films(synth_manifest: Path) -> list[str]:
    return [str(path) for path in sorted(synth_manifest.parent.rglob("*.mp4"))[:3]]


def test_a_small_model_as_a_user_exports_it(
    tmp_path: Path, films: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_package("clp", tmp_path)
    out = tmp_path / "exported"
    assert main(["export", str(package), "--out", str(out), "--check", *films]) == 0
    told = capsys.readouterr().out
    assert "same class in 100%" in told
    assert "90th percentile" in told
    assert "1 threads" in told
    assert sorted(path.name for path in out.iterdir()) == [
        "check.json",
        "model.onnx",
        "model.pt2",
        "preprocessing.json",
    ]
    contract = json.loads((out / "preprocessing.json").read_text())
    assert contract["classes"] == list(CLASSES)
    assert contract["calibration"]["temperature_by_input"] == {"video": 1.7}
    assert contract["model"]["package_weights_sha256"] == load_package(package)[0].weights_sha256
    checked = json.loads((out / "check.json").read_text())
    assert {(b["way"], b["batch_size"]) for b in checked["latency"]["batches"]} == {
        (way, size)
        for way in ("package (eager PyTorch)", "ONNX (onnxruntime)", "torch.export")
        for size in (1, 8)
    }
    for name, found in checked["files"].items():
        assert found["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert found["largest_difference"] <= 1e-4
        assert found["num_windows"] == 3
    _check_by_the_contract(out, contract, package)
    # A second time it would mix two exports.
    assert main(["export", str(package), "--out", str(out), "--check", *films]) == 2


def _check_by_the_contract(out: Path, contract: dict, package: Path) -> None:
    """Runs the ONNX file with inputs made from the contract alone, five clips at once."""
    _, method = load_method(package)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == [i["name"] for i in contract["inputs"]]
    assert [item.name for item in session.get_outputs()] == [i["name"] for i in contract["outputs"]]
    (video,) = contract["inputs"]
    clips = np.random.default_rng(1).integers(
        0, 256, (5, *video["shape"][1:]), dtype=video["dtype"]
    )
    outputs = session.run(None, {video["name"]: clips})
    for output, described in zip(outputs, contract["outputs"], strict=True):
        assert list(output.shape) == [5, *described["shape"][1:]]
    assert outputs[1].shape[2] == len(contract["action_units"]) == len(method.action_units) > 0


def test_the_choice_of_frames_that_the_contract_tells(tmp_path: Path) -> None:
    method = BrightnessMethod()
    contract = preprocessing_contract(info_of(method), method, DEFAULT)
    assert "floor(n * (2k + 1) / (2 * frames))" in contract["video"]["frame_choice"]
    frames = contract["video"]["frames"]
    by_hand = [13 * (2 * k + 1) // (2 * frames) for k in range(frames)]
    assert uniform_segments(13, frames).tolist() == by_hand
    assert contract["audio"] is None
    assert contract["video"]["face"] is None
    assert contract["calibration"]["temperature_by_input"] == {}


@pytest.mark.parametrize(
    ("fault", "told"), [("random", "differs from the package"), ("looks_at_times", "differs")]
)
def test_a_file_that_says_something_else_is_not_kept(
    fault: str, told: str, tmp_path: Path, films: list[str]
) -> None:
    method = BrightnessMethod(fault)
    with pytest.raises(ExportError, match=told):
        export_package(
            info_of(method), method, tmp_path / "out", formats=["torch"], films=films, plan=DEFAULT
        )
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_fixes_the_number_of_clips_is_refused() -> None:
    with pytest.raises(ExportError, match="number of clips"):
        trace(BrightnessMethod("fixed_batch"))


def test_the_comparison_finds_a_planted_fault(tmp_path: Path, films: list[str]) -> None:
    method = BrightnessMethod()
    rows = windows_of(films, method, DEFAULT)
    write_graph(trace(method), method, tmp_path / "model.pt2", "torch")
    run = open_graph(tmp_path / "model.pt2", "torch", threads=1)
    expected = Comparison(num_windows=3, largest_difference=0.0, class_agreement=1.0)
    assert compare(run, method, rows, name="model.pt2") == expected
    with torch.no_grad():
        method.scale += 1e-4
    with pytest.raises(ExportError, match=r"differs from the package by 0\.0"):
        compare(run, method, rows, name="model.pt2")
    with pytest.raises(ExportError, match="by nan"):
        compare(lambda arrays: (run(arrays)[0] * np.nan,), method, rows, name="model.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_can_be_exported(name: str, tmp_path: Path, films: list[str]) -> None:
    package = write_package(name, tmp_path)
    assert main(["export", str(package), "--out", str(tmp_path / "out"), "--check", *films]) == 0
    checked = json.loads((tmp_path / "out" / "check.json").read_text())
    assert set(checked["files"]) == {"model.onnx", "model.pt2"}
