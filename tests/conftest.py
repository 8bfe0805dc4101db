"""Real clips and a real Ray for every test that wants them, made once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Small networks: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)

CLASSES = ("happiness", "sadness", "anger")


@pytest.fixture(scope="session")
def synth_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people, three classes, one short clip each: H.264 + AAC at 64 px."""
    from mien.synth import SynthSpec, write_dataset

    spec = SynthSpec(
        num_subjects=12, classes=CLASSES, size_px=64, duration_s=0.6, supersample=False, seed=3
    )
    return write_dataset(spec, tmp_path_factory.mktemp("synth"), num_workers=0)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for the whole session, with more CPUs on paper than a small machine has."""
    import ray

    from mien.train.local_ray import QUIET_RAY

    os.environ |= QUIET_RAY
    ray.init(
        address="local",
        num_cpus=6,
        object_store_memory=300 << 20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
