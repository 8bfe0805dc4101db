"""Runs of CLP."""

from __future__ import annotations

from mien_jobs.recipe import Recipe
from mien_jobs.recipes.mma_dfer import laptop_plan
from mien_models.clp import ClpConfig

PROFILES = {
    "robust": ClpConfig.robust,
    "paper": ClpConfig.paper,
    "tiny": ClpConfig.tiny,
}


def recipe(profile: str = "robust") -> Recipe:
    """A run of CLP in one of its profiles."""
    config, name = PROFILES[profile](), f"clp-{profile}"
    if profile == "tiny":
        return Recipe(name=name, method="clp", config=config, train=laptop_plan())
    return Recipe(name=name, method="clp", config=config)
