"""``mien weights`` as its user types it, on files like the published ones but smaller."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from mien.weights.part_file import read_part
from mien.weights.torch_file import WeightsError
from mien_jobs import pretrained
from mien_jobs.cli import main
from mien_models.layers.patch_encoder import EncoderConfig
from mien_models.layers.vit_weights import vit_shapes

SMALL = EncoderConfig(dim=24, num_heads=2)


@pytest.fixture(autouse=True)
def small_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B is 340 MB a file; the same names with 24 features show the same."""
    monkeypatch.setattr(pretrained, "EncoderConfig", lambda: dataclasses.replace(SMALL))


def published_encoder(channels: int, num_positions: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = vit_shapes(SMALL, channels=channels, patch=(16, 16), num_positions=num_positions)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_like_mae(path: Path, tensors: dict[str, Tensor]) -> None:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pred.weight": torch.zeros(4, 8)}
    torch.save({"model": tensors | decoder, "args": argparse.Namespace(lr=0.1)}, path)


def test_an_encoder_is_imported_with_its_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = published_encoder(1, 513)
    save_like_mae(tmp_path / "a.pth", tensors)
    out = tmp_path / "audio.safetensors"

    code = main(
        ["weights", "import", str(tmp_path / "a.pth"), "--as", "audiomae", "--out", str(out)]
    )

    part = read_part(str(out))
    assert code == 0
    assert part.facts.part == "audio_encoder"
    assert part.facts.licence == "CC-BY-NC-4.0"
    assert part.tensors.keys() == tensors.keys()
    assert all(torch.equal(part.tensors[name], tensor) for name, tensor in tensors.items())
    printed = capsys.readouterr().out
    assert f"--set weights.audio_encoder={out}" in printed
    assert part.sha256[:12] in printed


def test_a_wrong_file_is_refused_with_what_does_not_match(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_like_mae(tmp_path / "v.pth", published_encoder(3, 197))
    out = tmp_path / "audio.safetensors"

    code = main(
        ["weights", "import", str(tmp_path / "v.pth"), "--as", "audiomae", "--out", str(out)]
    )

    error = capsys.readouterr().err
    assert code == 2
    assert "148 of 150 tensors match" in error
    assert "patch_embed.proj.weight is [24, 3, 16, 16], expected [24, 1, 16, 16]" in error
    assert not out.exists()


def test_show_says_what_a_file_could_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_like_mae(tmp_path / "v.pth", published_encoder(3, 197))

    assert main(["weights", "show", str(tmp_path / "v.pth")]) == 0

    printed = capsys.readouterr().out
    assert "152 tensors" in printed
    assert "fits: mae_face, mae" in printed


def test_unknown_kinds_name_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["weights", "import", "x.pth", "--as", "maeface", "--out", "x.safetensors"])

    assert code == 2
    assert "did you mean mae_face?" in capsys.readouterr().err


def test_a_part_must_say_what_it_is(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")

    with pytest.raises(WeightsError, match="mien weights import"):
        read_part(str(tmp_path / "bare.safetensors"))


def test_a_part_cut_short_is_refused(tmp_path: Path) -> None:
    save_like_mae(tmp_path / "v.pth", published_encoder(3, 197))
    out = tmp_path / "v.safetensors"
    main(["weights", "import", str(tmp_path / "v.pth"), "--as", "mae", "--out", str(out)])
    out.write_bytes(out.read_bytes()[:-100])

    with pytest.raises(WeightsError, match="no whole safetensors file"):
        read_part(str(out))


def test_the_verb_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Other tests may have imported what needs help on machines with CUDA builds of torchvision."""
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "r.pth")
    command = [sys.executable, "-m", "mien_jobs.cli", "weights", "import", "r.pth"]
    command += ["--as", "timm:resnet10t", "--out", "r.safetensors"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.safetensors").exists()


def test_a_trunk_is_imported_without_its_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = timm.create_model("resnet10t", num_classes=5)
    torch.save(network.state_dict(), tmp_path / "r.pth")
    out = tmp_path / "trunk.safetensors"
    command = ["weights", "import", str(tmp_path / "r.pth"), "--out", str(out), "--as"]

    assert main([*command, "timm:resnet10t"]) == 0

    part = read_part(str(out))
    assert part.facts.part == "trunk"
    assert "fc.weight" not in part.tensors
    assert torch.equal(part.tensors["conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    assert "weights.trunk=" in capsys.readouterr().out
    assert main([*command, "timm:resnet18"]) == 2
    assert "not the weights of timm's resnet18" in capsys.readouterr().err
    assert main([*command, "timm:resnet10x"]) == 2
    assert "did you mean resnet10t?" in capsys.readouterr().err
