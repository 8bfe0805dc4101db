"""Clips with action units and without any expression label: BP4D, DISFA, GFT as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.clips.manifest import Manifest
from mien.evaluate.unit_intensities import score_intensities
from mien_jobs.cli import main
from mien_jobs.overrides import apply_overrides
from mien_jobs.probing import POSE_COLUMNS
from mien_jobs.recipe import Recipe
from mien_jobs.training import prepare, run_training, with_data

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def units_alone(synth_manifest: Path, tmp_path: Path) -> Path:
    whole = Manifest.read(str(synth_manifest))
    table = whole.table
    for name in ("label", "soft_label"):
        at = table.column_names.index(name)
        table = table.set_column(
            at, table.schema.field(name), pa.nulls(len(table), table[name].type)
        )
    place = tmp_path / "units.parquet"
    Manifest(table, base=str(synth_manifest.parent)).write(str(place))
    assert pq.read_table(place)["label"].null_count == len(table)
    return place


def test_they_train_and_are_scored(
    units_alone: Path,
    small_recipe: MakeRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = with_data(small_recipe("clp"), str(units_alone), "units")
    recipe = apply_overrides(recipe, ["train.select=val/au_f1", "config.units.intensity_weight=1"])
    lines: list[str] = []
    model = run_training(prepare(recipe), say=lines.append)
    assert model.scorecard is None
    assert list(model.fit.metrics) == ["val/au_f1"]
    assert model.fit.best_epoch in (1, 2)
    assert any(line.startswith("# Action units, test split") for line in lines)
    own = json.loads((tmp_path / "runs" / "units" / "action-units-test.json").read_text())
    assert f"Mean F1 {own['pooled_f1']:.3f}." in "".join(lines)
    card = (Path(model.package) / "MODEL_CARD.md").read_text()
    assert card.startswith("# Model card: clp")
    assert f"Mean F1 {own['pooled_f1']:.3f}." in card
    assert "12 action units: AU1, AU2" in card
    scored = [unit for unit in own["action_units"]["pooled"] if unit["f1"] is not None]
    weakest = min(scored, key=lambda unit: unit["f1"])
    assert f"{weakest['name']}: F1 {weakest['f1']:.3f}" in card
    assert "not what the person feels" in card
    out = tmp_path / "out"
    command = ["evaluate", str(model.package), "--decode-tasks", "0", "--out", str(out)]
    assert main([*command, "--split", "all", "--probe", "identity", "pose"]) == 0
    told = capsys.readouterr().out
    figures = json.loads((out / "action-units-all.json").read_text())
    assert f"Mean F1 {figures['pooled_f1']:.3f}." in told
    identity = figures["probes"]["identity"]
    assert (identity["num_people"], identity["num_clips"]) == (12, 36)
    assert identity["chance"] == pytest.approx(1 / 12)
    assert f"identity, linear       | {identity['linear']['value']:.3f}" in told
    assert [pose["name"] for pose in figures["probes"]["pose"]] == list(POSE_COLUMNS)
    page = (out / "action-units-all.html").read_text()
    assert "a linear probe names" in page
    frames = pq.read_table(out / "action-units-all.parquet")
    assert frames["AU12_coded"].null_count == 0
    assert 0 <= min(frames["AU12"].to_pylist()) <= max(frames["AU12"].to_pylist()) <= 1
    assert not (out / "scorecard-all.html").exists()
    units = [unit["name"] for unit in figures["intensities"]["units"]]
    read, coded = (
        np.stack([frames[f"{unit}{suffix}"].to_numpy() for unit in units], axis=1)
        for suffix in ("_intensity", "_coded")
    )
    again = score_intensities(read, coded, units)
    assert asdict(again.mean) == figures["intensities"]["mean"]
    for text in (told, page, (out / "MODEL_CARD.md").read_text()):
        assert again.sentence() in text
    film = str(Manifest.read(str(units_alone)).ref(0).uri)
    rows = tmp_path / "frames.parquet"
    predict = ["predict", film, "--model", str(model.package), "--out", str(rows)]
    assert main([*predict, "--rows", "frames"]) == 0
    assert {"AU12", "p_not_learnt"} <= set(pq.read_table(rows).column_names)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rdfer", "config.epochs=1", "rdfer with these settings tells no action units; choose by"),
        ("clp", "config.units.weight=0", "clp with these settings tells no action units"),
        ("clp", "config.units.names=AU98,AU99", r"validation clips is coded for AU98, AU99"),
    ],
)
def test_units_to_choose_by_have_to_be_there(
    small_recipe: MakeRecipe, name: str, change: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(small_recipe(name, change, "train.select=val/au_f1"))


def test_a_method_without_units_needs_labels(units_alone: Path, small_recipe: MakeRecipe) -> None:
    for name, change in (("rdfer", "config.epochs=1"), ("clp", "config.units.weight=0")):
        with pytest.raises(ValueError, match=f"has a label, and {name} can't do without: "):
            prepare(with_data(small_recipe(name, change), str(units_alone), "units"))
