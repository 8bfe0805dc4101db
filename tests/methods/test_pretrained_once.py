"""A pretraining without any label, and readouts that start from its trunk on other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from mien.clips.manifest import Manifest
from mien.infer.package import PackageError, load_package
from mien.track.mlflow_tracker import open_client
from mien.track.registry import STARTED_FROM_TAG, WEIGHTS_TAG
from mien.track.tracker import embedded_uri
from mien.weights.part_file import read_part
from mien_jobs.cli import main
from mien_jobs.methods import load_method
from mien_jobs.recipe import Recipe, TrackPlan
from mien_jobs.training import prepare, run_training, with_data

MakeRecipe = Callable[..., Recipe]
ALONE = ("config.probe=none", "config.finetune=none")


@pytest.fixture
def bare_clips(synth_manifest: Path, tmp_path: Path) -> str:
    """The shared clips as VoxCeleb has them: who is who, and nothing else."""
    whole = Manifest.read(str(synth_manifest))
    table = whole.table
    for name in ("label", "soft_label", "action_units"):
        at = table.column_names.index(name)
        table = table.set_column(
            at, table.schema.field(name), pa.nulls(len(table), table[name].type)
        )
    place = tmp_path / "bare.parquet"
    Manifest(table, base=str(synth_manifest.parent)).write(str(place))
    return str(place)


def test_a_trunk_is_pretrained_once_and_read_out_elsewhere(
    bare_clips: str, small_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    tracked = TrackPlan(uri=embedded_uri(tmp_path / "tracked"))
    recipe = replace(with_data(small_recipe("clp", *ALONE), bare_clips, "bare"), track=tracked)
    package = run_training(prepare(recipe), say=lines.append).package
    assert any(line.startswith("no scores: nothing was read out") for line in lines)
    _, tensors = load_package(package)
    # Neither keys of training people nor what only the losses needed.
    parts = {".".join(name.split(".")[:2]) for name in tensors}
    assert parts >= {"network.encoder", "readout.classes"}
    assert not any(part.startswith(("pretraining.", "network.projector")) for part in parts)

    trunk = tmp_path / "trunk.safetensors"
    command = ["weights", "extract", str(package), "--part", "trunk", "--out", str(trunk)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"config.pretrain=none config.trunk.given=true weights.trunk={trunk}" in told

    assert main(["weights", "show", str(trunk)]) == 0
    assert "is: trunk of clp:bare, licence of its training's clips" in capsys.readouterr().out

    settings = ("config.pretrain=none", "config.finetune=none", "config.trunk.given=true")
    recipe = small_recipe("clp", *settings, f"weights.trunk={trunk}", run="probe")
    info, read_out = load_method(run_training(prepare(replace(recipe, track=tracked))).package)
    assert info.pretrained["trunk"]["kind"] == "clp:bare"
    prefix = "network.encoder.trunk."
    kept = {
        name.removeprefix(prefix): tensor
        for name, tensor in read_out.state_dict().items()
        if name.startswith(prefix)
    }
    given = read_part(str(trunk)).tensors
    assert kept.keys() == given.keys()
    # A probe leaves the trunk as it was given, to the last bit.
    assert all(torch.equal(kept[name], given[name]) for name in given)
    assert all(torch.equal(tensors[prefix + name], given[name]) for name in given)
    # Whoever is to be forgotten is in the readout as well.
    client = open_client(tracked.uri)
    tags = {
        run.info.run_name: run.data.tags
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    }
    assert tags["probe"][STARTED_FROM_TAG] == tags["bare"][WEIGHTS_TAG]
    assert tags["bare"][STARTED_FROM_TAG] == ""


def test_a_pretrained_trunk_alone_is_not_asked_for_answers(
    synth_manifest: Path,
    small_recipe: MakeRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = str(run_training(prepare(small_recipe("clp", *ALONE))).package)
    with pytest.raises(PackageError, match=r"was only pretrained.*mien weights extract"):
        load_method(package)
    film = str(Manifest.read(str(synth_manifest)).ref(0).uri)
    for command in (["predict", film, "--model", package], ["evaluate", package]):
        assert main(command) == 2
        assert "was only pretrained" in capsys.readouterr().err
    # What its features tell of who it is can be asked.
    probe = ["probe", "identity", package, "--decode-tasks", "0", "--split", "all"]
    assert main([*probe, "--out", str(tmp_path / "probe")]) == 0
    assert "identity, linear" in capsys.readouterr().out
    extract = ["weights", "extract", package, "--part", "head", "--out", str(tmp_path / "x.pt")]
    assert main(extract) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    extract[-1] = str(tmp_path / "x.safetensors")
    assert main(extract) == 2
    assert "no weights for 'head'" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_features_alone_are_not_registered(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe("clp", *ALONE)
    with pytest.raises(ValueError, match="tells nothing that a registered model could be asked"):
        prepare(replace(recipe, track=TrackPlan(uri="off", model="faces")))


def test_without_labels_nothing_else_is_trained(bare_clips: str, small_recipe: MakeRecipe) -> None:
    for name in ("rdfer", "clp"):
        with pytest.raises(ValueError, match=r"has a label or coded action units.*probe=none"):
            prepare(with_data(small_recipe(name), bare_clips, "bare"))
