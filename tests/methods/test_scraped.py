"""Gauges of a training, as Prometheus scrapes them from the node that trains."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mien.train.on_ray import train_on_ray
from mien.train.prometheus import GAUGES
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
    job = prepare(small_recipe("mma_dfer", run="scraped", workers=1)).job
    seen: dict[str, float] = {}

    def say(line: str) -> None:
        seen.update(scraped("scraped"))

    train_on_ray(job, say)
    assert set(seen) == {f"ray_{name}" for name, _ in GAUGES.values()}
