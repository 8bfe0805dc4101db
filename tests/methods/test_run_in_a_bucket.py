"""A run whose folder lies in a bucket leaves there what a local one leaves."""

from __future__ import annotations

import dataclasses
import json

from s3_server import BUCKET, S3Server

from mien.infer.package import load_package, read_info
from mien.media.storage import exists, join, list_files, read_bytes
from mien.track.references import fetch_remote
from mien_jobs.training import prepare, run_training


def test_its_package_is_complete(small_recipe, s3_server: S3Server):
    recipe = small_recipe("rdfer", "config.epochs=1")
    recipe = dataclasses.replace(recipe, storage=f"s3://{BUCKET}/runs")
    model = run_training(prepare(recipe), say=lambda line: None)
    assert model.location == f"s3://{BUCKET}/runs/run/package"
    assert sorted(list_files(model.location)) == [
        "MODEL_CARD.md",
        "model.json",
        "monitor-reference.parquet",
        "weights.safetensors",
    ]
    assert b"Model card: rdfer" in read_bytes(join(model.location, "MODEL_CARD.md"))
    there = json.loads(read_bytes(join(model.location, "model.json")))
    assert there["temperatures"] == read_info(model.package).temperatures
    fetched = fetch_remote(model.location)
    load_package(fetched)
    assert exists(join(f"s3://{BUCKET}/runs/run", "scorecard-test.html"))
