"""Runs of MMA-DFER."""

from __future__ import annotations

from mien.train.plan import TrainPlan
from mien_jobs.recipe import Recipe
from mien_models.mma_dfer import MmaDferConfig

PROFILES = {
    "robust": MmaDferConfig.robust,
    "paper": MmaDferConfig.paper,
    "tiny": MmaDferConfig.tiny,
}


def recipe(profile: str = "robust") -> Recipe:
    """A run of MMA-DFER in one of its profiles."""
    config = PROFILES[profile]()
    name = f"mma_dfer-{profile}"
    if profile == "tiny":
        return Recipe(name=name, method="mma_dfer", config=config, train=laptop_plan())
    return Recipe(name=name, method="mma_dfer", config=config)


def laptop_plan() -> TrainPlan:
    """Two workers with a decoding task each on a machine with two CPU cores."""
    return TrainPlan(
        workers=2,
        cpus_per_worker=0.5,
        decode_tasks=1,
        cpus_per_decode_task=0.5,
        threads_per_worker=1,
    )
