"""Training on encoders that others trained: they are loaded, stay as they are, and have papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mien.infer.package import PackageError, load_slim
from mien.weights.part_file import PartFacts, read_part, write_part
from mien_jobs.cli import main
from mien_jobs.methods import load_method
from mien_jobs.recipe import Recipe
from mien_jobs.training import prepare, run_training
from mien_models.layers.vit_weights import published_names
from mien_models.mma_dfer import MmaDfer

MakeRecipe = Callable[..., Recipe]
PARTS = ("video_encoder", "audio_encoder")


def write_encoder(folder: Path, part: str, recipe: Recipe) -> str:
    method = MmaDfer(recipe.config, ("a", "b"))
    torch.manual_seed(5)
    tensors = {
        name: torch.randn_like(tensor) * 0.05
        for name, tensor in published_names(getattr(method.network, part)).items()
    }
    facts = PartFacts(kind="test", part=part, licence="none", source_sha256="0" * 64)
    location = str(folder / f"{part}.safetensors")
    write_part(location, facts, tensors)
    return location


def test_given_encoders_are_used_and_stay_frozen(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    bare = small_recipe("mma_dfer", "config.autoencoder=none", "config.epochs=1")
    files = {part: write_encoder(tmp_path, part, bare) for part in PARTS}
    given = [f"weights.{part}={file}" for part, file in files.items()]
    recipe = small_recipe("mma_dfer", "config.autoencoder=none", "config.epochs=1", *given)

    model = run_training(prepare(recipe), say=lambda _: None)

    info, method = load_method(model.package)
    published = read_part(files["video_encoder"]).tensors
    assert isinstance(method, MmaDfer)
    found = published_names(method.network.video_encoder)
    trained = {name for name in published if not torch.equal(found[name], published[name])}
    assert trained == {"pos_embed"}
    assert info.pretrained["video_encoder"]["licence"] == "none"
    assert info.pretrained["audio_encoder"]["sha256"] == read_part(files["audio_encoder"]).sha256


def test_a_slim_package_is_small_and_becomes_whole_again(
    small_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = small_recipe("mma_dfer", "config.autoencoder=none", "config.epochs=1")
    files = {part: write_encoder(tmp_path, part, bare) for part in PARTS}
    given = [f"weights.{part}={file}" for part, file in files.items()]
    recipe = small_recipe("mma_dfer", "config.autoencoder=none", "config.epochs=1", *given)
    package = Path(run_training(prepare(recipe), say=lambda _: None).package)
    slim, whole = tmp_path / "slim", tmp_path / "whole"

    assert main(["weights", "slim", str(package), "--out", str(slim)]) == 0
    _, kept = load_slim(slim)
    _, method = load_method(package)
    frozen = {name for name, parameter in method.named_parameters() if "_encoder.blocks" in name}
    assert frozen
    assert not frozen & set(kept)
    assert "network.video_encoder.cls_token" not in kept
    assert {name for name in kept if "prompt" in name}
    with pytest.raises(PackageError, match="mien weights complete"):
        load_method(slim)

    moved = tmp_path / "moved.safetensors"
    Path(files["audio_encoder"]).rename(moved)
    command = ["weights", "complete", str(slim), "--out", str(whole)]
    assert main(command) == 2
    assert "audio_encoder" in capsys.readouterr().err
    assert main([*command, "--with", f"audio_encoder={files['video_encoder']}"]) == 2
    assert "is not the audio_encoder that this model was trained on" in capsys.readouterr().err
    assert not whole.exists()
    assert main([*command, "--with", f"audio_encoder={moved}"]) == 0
    for name in ("model.json", "weights.safetensors"):
        assert (whole / name).read_bytes() == (package / name).read_bytes()


def test_training_without_them_is_refused(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe("mma_dfer", "config.autoencoder=none")

    with pytest.raises(ValueError, match="mien weights import") as caught:
        prepare(recipe)

    assert "weights.video_encoder=FILE weights.audio_encoder=FILE" in str(caught.value)


def test_weights_for_nothing_are_refused(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe("mma_dfer", "weights.nose=x.safetensors")

    with pytest.raises(ValueError, match=r"weights.nose: .* takes no such weights"):
        prepare(recipe)


def test_weights_of_another_part_are_refused(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    bare = small_recipe("mma_dfer", "config.autoencoder=none")
    sound = write_encoder(tmp_path, "audio_encoder", bare)
    recipe = small_recipe(
        "mma_dfer",
        "config.autoencoder=none",
        f"weights.video_encoder={sound}",
        "weights.audio_encoder=random",
    )

    with pytest.raises(ValueError, match="holds the weights of audio_encoder"):
        run_training(prepare(recipe), say=lambda _: None)
