"""Gauges of a training, as Prometheus scrapes them from the node that trains."""

from __future__ import annotations

import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mien.train.on_ray import train_on_ray
from mien.train.prometheus import GAUGES
from mien_jobs.overrides import apply_overrides
from mien_jobs.training import prepare

pytestmark = pytest.mark.ray


def scraped(run: str) -> dict[str, float]:
    """The newest value of each of a run's gauges, over all nodes."""
    import ray

    found = {}
    for node in ray.nodes():
        url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            found |= {one.name: one.value for one in family.samples if one.labels.get("run") == run}
    return found


def test_a_training_is_scraped_with_its_name(small_recipe, local_ray):
    recipe = small_recipe("mma_dfer", run="scraped", workers=1)
    job = prepare(apply_overrides(recipe, ["config.epochs=6"])).job
    wanted = {f"ray_{name}" for name, _ in GAUGES.values()}
    seen: dict[str, float] = {}

    def say(line: str) -> None:
        seen.update(scraped("scraped"))

    train_on_ray(job, say)
    # Workers report every few seconds, on a busy machine after the training's last line.
    patience_until = time.monotonic() + 30
    while set(seen) != wanted and time.monotonic() < patience_until:
        time.sleep(1)
        seen.update(scraped("scraped"))
    assert set(seen) == wanted
