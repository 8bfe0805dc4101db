"""Runs of RDFER."""

from __future__ import annotations

from mien_jobs.recipe import Recipe
from mien_jobs.recipes.mma_dfer import laptop_plan
from mien_models.rdfer import RdferConfig

PROFILES = {
    "robust": RdferConfig.robust,
    "paper": RdferConfig.paper,
    "tiny": RdferConfig.tiny,
}


def recipe(profile: str = "robust") -> Recipe:
    """A run of RDFER in one of its profiles."""
    config = PROFILES[profile]()
    name = f"rdfer-{profile}"
    if profile == "tiny":
        return Recipe(name=name, method="rdfer", config=config, train=laptop_plan())
    return Recipe(name=name, method="rdfer", config=config)
