"""A protocol's folds are run once each, scored together, and tracked below one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mien.clips.manifest import Manifest
from mien.evaluate.protocols import Protocol, Published
from mien.track.mlflow_tracker import open_client
from mien.track.tracker import embedded_uri
from mien_jobs import overrides
from mien_jobs.benchmarking import run_benchmark
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import Recipe

PROTOCOL = Protocol(
    name="toy",
    data="dfew",
    label_set="dfew7",
    num_folds=2,
    scores=("uar", "war"),
    test_sizes={1: 18, 2: 20},
    published=(Published(method="Somebody", scores={"uar": 50.0}, source="a table"),),
)


def with_two_folds(synth_manifest: Path) -> Path:
    """The clips of twelve people, the first six of whom are fold 1."""
    whole = Manifest.read(str(synth_manifest))
    people = sorted(set(whole.column("subject_id")))
    folds = pa.array([1 + (people.index(who) >= 6) for who in whole.column("subject_id")], "int32")
    place = whole.table.column_names.index("fold")
    table = whole.table.set_column(place, "fold", folds)
    location = synth_manifest.parent / "folds.parquet"
    Manifest(table, base=whole.base).write(str(location))
    return location


def recipe(synth_manifest: Path, tmp_path: Path) -> Recipe:
    """A short run."""
    base = make_recipe("mma_dfer", "tiny")
    base = replace(base, name="toy", storage=str(tmp_path / "runs"))
    return overrides.apply_overrides(
        base,
        [
            f"data.manifest={with_two_folds(synth_manifest)}",
            "data.val_fraction=0.3",
            "train.workers=0",
            "config.epochs=1",
            "config.autoencoder.epochs=1",
            "config.batch_size=4",
            "config.autoencoder.batch_size=4",
            f"data.cache={tmp_path / 'cache'}",
        ],
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folds_are_run_once_and_scored_together(synth_manifest: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = recipe(synth_manifest, tmp_path)
    first = run_benchmark(PROTOCOL, wanted, said.append)
    assert first.test_sizes == {1: 18, 2: 18}
    text = first.report().to_markdown()
    assert "Somebody" in text
    assert "fold 2 has 18 test clips, published are 20." in text
    assert f"{100 * first.scores.mean('uar'):.2f}" in text
    assert (tmp_path / "runs" / "toy" / "benchmark.html").exists()
    assert not any("finished already" in line for line in said)

    (tmp_path / "runs" / "toy-fold2" / "finished.json").unlink()
    said.clear()
    second = run_benchmark(PROTOCOL, wanted, said.append)
    assert [line.partition(":")[0] for line in said if "finished already" in line] == ["fold1"]
    assert second.scores.mean("uar") == first.scores.mean("uar")

    client = open_client(embedded_uri(tmp_path / "runs"))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    names = {run.info.run_id: run.info.run_name for run in runs}
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs}
    assert {name: names.get(parent) for name, parent in parents.items()} == {
        "toy": None,
        "toy-fold1": "toy",
        "toy-fold2": "toy",
    }
