"""Action units under a protocol: folds, averages by hand, published rows unit by unit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli.test_benchmark import with_two_folds
from methods.conftest import SMALLEST

from mien.clips.manifest import Manifest
from mien.evaluate.action_units import score_action_units
from mien.evaluate.protocols import BP4D, DISFA, GFT, Protocol, Published
from mien_jobs.benchmarking import run_benchmark
from mien_jobs.methods import make_recipe
from mien_jobs.overrides import apply_overrides
from mien_jobs.unit_benchmarking import UnitBenchmarkResult, recipe_for_units

UNITS = ("AU6", "AU12")
PROTOCOL = Protocol(
    name="toy",
    data="bp4d",
    num_folds=2,
    scores=("au_f1",),
    units=UNITS,
    present_from=2.0,
    practice=("Nobody else does this.",),
    published=(
        Published(
            method="Somebody", scores={"au_f1": 60.0}, by_unit={"AU12": 70.0}, source="a table"
        ),
    ),
)


def test_averages_by_hand_stand_beside_published_units() -> None:
    hit, miss = [0.9], [0.1]
    folds = {
        # AU6: one hit, one miss; AU12: one hit.
        "fold1": (np.array([hit * 2, miss + hit]), np.array([[1.0, 1.0], [1.0, np.nan]])),
        # AU6: a hit; AU12: a false alarm and a miss.
        "fold2": (np.array([hit * 2, miss * 2]), np.array([[1.0, 0.0], [0.0, 1.0]])),
    }
    result = UnitBenchmarkResult(
        protocol=PROTOCOL,
        recipe=replace(make_recipe("clp", "tiny"), name="mine"),
        scores=score_action_units(folds, UNITS),
    )
    # AU6: 2/3 and 1, together 2 hits of 3 = 4/5; AU12: 1 and 0, together 2/(2+1+1) = 1/2.
    text = result.report().to_markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["mine (ours)", "83.33", "50.00", "66.67", "this run, mean of folds"] in rows
    assert ["mine (ours)", "80.00", "50.00", "65.00", "this run, pooled"] in rows
    assert ["Somebody", "-", "70.0", "60.0", "a table"] in rows
    assert ["fold1", "2", "83.33"] in rows
    assert ["fold2", "2", "50.00"] in rows
    assert ["Nobody else does this."] in rows
    assert result.to_metrics() == pytest.approx(
        {
            "benchmark/au_f1_fold_mean": 2 / 3,
            "benchmark/au_f1_pooled": 0.65,
            "benchmark/au_f1/AU6": 5 / 6,
            "benchmark/au_f1/AU12": 0.5,
        }
    )


def test_a_fixed_split_has_one_row_and_no_mean_of_folds() -> None:
    scores = score_action_units({"fixed": (np.array([[0.9], [0.9]]), np.array([[1.0], [0.0]]))},
                                ("AU1",))  # fmt: skip
    recipe = replace(make_recipe("clp", "tiny"), name="mine")
    protocol = replace(GFT, units=("AU1",))
    result = UnitBenchmarkResult(protocol=protocol, recipe=recipe, scores=scores)
    text = result.report().to_markdown()
    assert "AU F1 66.67 % (mean of units, fixed split; clp)." in text
    assert text.count("mine (ours)") == 1
    assert GFT.units == ("AU1", "AU2", "AU4", "AU6", "AU10", "AU12", "AU14", "AU15", "AU23", "AU24")
    split = {"train": ["a"], "test": ["b"]}
    manifest = Manifest.from_rows(
        [
            {"clip_id": clip, "uri": f"{clip}.mp4", "split": part, "subject_id": clip}
            for part, clips in split.items()
            for clip in clips
        ]
    )
    assert GFT.folds_of(manifest) == (None,)
    with pytest.raises(ValueError, match=r"protocol gft has a fixed split.*mien ingest \.\.\. gft"):
        GFT.folds_of(manifest.by_ids(["a"]))


def test_the_protocol_sets_units_threshold_and_choice() -> None:
    said: list[str] = []
    recipe = recipe_for_units(DISFA, make_recipe("clp", "tiny"), said.append)
    assert recipe.config.units.names == ("AU1", "AU2", "AU4", "AU6", "AU9", "AU12", "AU25", "AU26")
    assert recipe.config.units.present_from == 2.0
    assert recipe.train.select == "val/au_f1"
    assert "config.units.present_from=2.0" in said[0]
    with pytest.raises(ValueError, match=r"bp4d scores action units, which rdfer .* take clp"):
        recipe_for_units(BP4D, make_recipe("rdfer", "tiny"), said.append)


def test_published_units_average_to_the_published_mean() -> None:
    for protocol in (BP4D, DISFA):
        (clp,) = (row for row in protocol.published if row.by_unit)
        assert tuple(clp.by_unit) == protocol.units
        mean = sum(clp.by_unit.values()) / len(clp.by_unit)
        assert mean == pytest.approx(clp.scores["au_f1"], abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folds_are_trained_once_and_scored_together(synth_manifest: Path, tmp_path: Path) -> None:
    settings = [
        f"data.manifest={with_two_folds(synth_manifest)}",
        "data.val_fraction=0.3",
        "train.workers=0",
        "track.uri=off",
        f"storage={tmp_path / 'runs'}",
        "name=toy",
    ]
    recipe = apply_overrides(make_recipe("clp", "tiny"), [*SMALLEST["clp"], *settings])
    said: list[str] = []
    first = run_benchmark(PROTOCOL, recipe, said.append)
    tables = [
        pq.read_table(tmp_path / "runs" / f"toy-fold{fold}" / "action-units-test.parquet")
        for fold in (1, 2)
    ]
    people = [set(table["subject_id"].to_pylist()) for table in tables]
    assert len(people[0]) == len(people[1]) == 6
    assert not people[0] & people[1]
    told = [line for line in said if "train.select=val/au_f1" in line]
    assert len(told) == 1
    started = json.loads((tmp_path / "runs" / "toy-fold1" / "recipe.json").read_text())
    assert started["config"]["units"]["names"] == list(UNITS)
    assert "Somebody" in (tmp_path / "runs" / "toy" / "benchmark.html").read_text()

    said.clear()
    second = run_benchmark(PROTOCOL, recipe, said.append)
    assert [line.partition(":")[0] for line in said if "finished already" in line] == [
        "fold1",
        "fold2",
    ]
    assert second.to_metrics() == first.to_metrics()
