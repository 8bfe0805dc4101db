"""Reading published checkpoints: tensors come out, programs do not run."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mien.weights.torch_file import WeightsError, read_tensors


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, generator=generator)
    return {"a.weight": weight, "a.half": weight.half(), "a.steps": torch.tensor(7)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


class Recorder:
    """Like the class of a training script, which is not there when the file is read."""

    def __init__(self) -> None:
        self.accuracy = [1.0, 2.0]


class RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_state_dicts_come_out_whole(tmp_path: Path, is_zip: bool, key: str | None) -> None:
    tensors = some_tensors()
    path = tmp_path / "weights.pth"
    torch.save(
        tensors if key is None else {key: tensors, "epoch": 3},
        path,
        _use_new_zipfile_serialization=is_zip,
    )

    assert_same(read_tensors(path), tensors)


def test_what_a_training_script_leaves_in_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.pth"
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(
        {
            "epoch": 25,
            "state_dict": state,
            "best_acc": torch.tensor(77.5),
            "optimizer": optimizer.state_dict(),
            "recorder": Recorder(),
            "args": argparse.Namespace(lr=1e-4, path=Path("x")),
        },
        path,
    )

    assert_same(read_tensors(path), dict(network.state_dict()))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_no_program_in_a_file_runs(tmp_path: Path, is_zip: bool) -> None:
    trace = tmp_path / "it-ran"
    tensors = some_tensors()
    path = tmp_path / "evil.pth"
    torch.save(
        {"state_dict": tensors, "recorder": RunsACommand(f"touch {trace}")},
        path,
        _use_new_zipfile_serialization=is_zip,
    )

    assert_same(read_tensors(path), tensors)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file of this test is harmless: it proves nothing"


def test_a_bare_pickle_that_is_a_program_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(RunsACommand(f"touch {trace}")))

    with pytest.raises(WeightsError):
        read_tensors(path)

    assert not trace.exists()


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "w.safetensors")

    assert_same(read_tensors(tmp_path / "w.safetensors"), some_tensors())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<!DOCTYPE html>", "an HTML page"), (b"", "neither"), (b"\x80\x02}q\x00", "damaged")],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)

    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path / "w.pth")


def test_a_file_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(some_tensors(), path)
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(WeightsError):
        read_tensors(path)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)

    with pytest.raises(WeightsError, match="TorchScript"):
        read_tensors(path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, tmp_path / "w.pth")

    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_tensors(tmp_path / "w.pth")
