"""Clips with action units and without any expression label: BP4D, DISFA, GFT as they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mien.clips.manifest import Manifest
from mien_jobs.cli import main
from mien_jobs.overrides import apply_overrides
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
    recipe = apply_overrides(recipe, ["data.label_set=dfew7"])
    told: list[str] = []
    model = run_training(prepare(recipe), say=told.append)
    assert model.scorecard is None
    assert any("no labelled clip to test on" in line for line in told)
    out = tmp_path / "out"
    command = ["evaluate", str(model.package), "--decode-tasks", "0", "--out", str(out)]
    assert main(command) == 0
    assert "AU12" in capsys.readouterr().out
    frames = pq.read_table(out / "action-units-test.parquet")
    assert frames["AU12_coded"].null_count == 0
    assert 0 <= min(frames["AU12"].to_pylist()) <= max(frames["AU12"].to_pylist()) <= 1
    assert not (out / "scorecard-test.html").exists()


def test_without_a_label_set_it_is_said_what_to_type(
    units_alone: Path, small_recipe: MakeRecipe
) -> None:
    with pytest.raises(ValueError, match=r"--set data\.label_set=dfew7"):
        prepare(with_data(small_recipe("clp"), str(units_alone), "units"))
