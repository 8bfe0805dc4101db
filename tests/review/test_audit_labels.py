"""From a run's ledger to a reviewed manifest, as a user types it."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.infer.package import PackageInfo, save_package
from mien.train.checkpoint import Checkpoint, CheckpointStore
from mien_jobs import audit, overrides
from mien_jobs.cli import main
from mien_jobs.methods import make_recipe
from mien_jobs.training import with_data
from mien_models.rdfer import Rdfer
from mien_models.rdfer.ledger import Look

CLASSES = ("happiness", "sadness", "anger")
WRONG = 3


@pytest.fixture(scope="module")
def package(synth_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with a ledger in which three clips are plainly wrong, one is hard."""
    manifest = Manifest.read(str(synth_manifest)).filter(np.arange(36) < 12)
    place = tmp_path_factory.mktemp("audit")
    manifest.write(str(place / "manifest.parquet"))
    recipe = with_data(make_recipe("rdfer", "tiny"), str(place / "manifest.parquet"), "trial")
    recipe = overrides.apply_overrides(recipe, ["config.agreement.mitigate=nothing"])
    torch.manual_seed(0)
    method = Rdfer(recipe.config, CLASSES)
    looks = []
    for row, (clip, label) in enumerate(
        zip(manifest.column("clip_id"), manifest.column("label"), strict=True)
    ):
        given = CLASSES.index(label)
        shares = [0.04 + 0.001 * row] * 3
        shares[(given + 1) % 3 if row < WRONG else given] = 0.9 - 0.01 * row
        looks.append(Look(clip, given, 0.0 if row == 11 else 1.0, shares))
    assert method.ledger is not None
    method.ledger.update(0, looks, relabels=False)
    resolved = json.loads(overrides.to_json(recipe))
    info = PackageInfo(
        method="rdfer",
        config=resolved["config"],
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=0,
        json_state=method.json_state(),
        recipe=resolved,
    )
    run = place / "runs" / "trial"
    save_package(run / "package", info, method.state_dict())
    (run / "recipe.json").write_text(json.dumps(resolved))
    return run


def test_audited_decided_corrected(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = package.parents[1] / "manifest.parquet"
    out = tmp_path / "audit"
    assert main(["audit-labels", str(package), "--out", str(out), "--face-px", "48"]) == 0
    told = capsys.readouterr().out
    assert "12 clips: 3 noisy, 0 unsure, 1 hard, 8 clean" in told
    assert "agreement: precision 0.00" in told  # the labels of these clips are right, in truth
    rows = list(csv.DictReader((out / "ranked.csv").read_text().splitlines()))
    ids = Manifest.read(str(source)).column("clip_id")
    assert len(rows) == 12
    assert {row["clip_id"] for row in rows[:WRONG]} == set(ids[:WRONG])
    assert [row["reason"] for row in rows[: WRONG + 1]] == ["noisy"] * 3 + ["hard"]
    rows[0]["decision"], rows[1]["decision"] = rows[0]["suggested"], "keep"
    with open(tmp_path / "filled.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    new = tmp_path / "new.parquet"
    command = ["clips", "correct", str(source), str(tmp_path / "filled.csv"), "--out", str(new)]
    assert main(command) == 0
    assert "1 labels changed, 0 given, 0 taken away, 1 kept" in capsys.readouterr().out
    after = Manifest.read(str(new))
    place = after.column("clip_id").index(rows[0]["clip_id"])
    assert after.column("label")[place] == rows[0]["suggested"]
    assert after.column("label_before_review")[place] == rows[0]["given"]


def test_key_moments_come_from_the_network(package: Path) -> None:
    run = audit.read_run(str(package), None)
    manifest = Manifest.read(run.data.manifest)
    items = audit.audit_items(run)[:2]
    shown = audit.with_key_moments(items, run, manifest)
    assert all(len(item.moments) == 4 for item in shown)
    assert all(0 <= moment <= 1 for item in shown for moment in item.moments)
    assert [item.clip_id for item in shown] == [item.clip_id for item in items]


def test_a_run_that_is_still_trained(package: Path, tmp_path: Path) -> None:
    """Its newest checkpoint has the same ledger."""
    whole = audit.read_run(str(package), None)
    (tmp_path / "recipe.json").write_text((package / "recipe.json").read_text())
    with pytest.raises(ValueError, match="no checkpoint yet"):
        audit.read_run(str(tmp_path), None)
    state = {"method": {"clips": dict(whole.ledger)}}
    CheckpointStore(str(tmp_path)).save(0, 4, Checkpoint(model={}, optimizer={}, state=state))
    found = audit.read_run(str(tmp_path), None)
    assert found.package is None
    assert found.ledger == whole.ledger
    expected = [asdict(item) for item in audit.audit_items(whole)]
    # The classes are those of the manifest's labels, in another order.
    assert [item.clip_id for item in audit.audit_items(found)] == [
        item["clip_id"] for item in expected
    ]


def test_runs_that_keep_no_account(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"method": "dtm", "data": {}, "name": "x"}')
    state = {"method": {"epochs": []}}
    CheckpointStore(str(tmp_path)).save(0, 4, Checkpoint(model={}, optimizer={}, state=state))
    with pytest.raises(ValueError, match="model of dtm, which keeps no account"):
        audit.read_run(str(tmp_path), None)


def test_doubt_is_the_lead_of_the_best_other_class(package: Path) -> None:
    run = audit.read_run(str(package), None)
    doubt = audit.doubts(run)
    for clip, record in run.ledger.items():
        others = [p for index, p in enumerate(record["probabilities"]) if index != record["given"]]
        lead = max(others) - record["probabilities"][record["given"]]
        assert doubt[clip] == pytest.approx(lead / sum(record["probabilities"]), abs=1e-6)
