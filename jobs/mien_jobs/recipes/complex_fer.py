"""Runs of complex_fer."""

from __future__ import annotations

from mien_jobs.recipe import Recipe
from mien_jobs.recipes.mma_dfer import laptop_plan
from mien_models.complex_fer import ComplexFerConfig

PROFILES = {
    "robust": ComplexFerConfig.robust,
    "paper": ComplexFerConfig.paper,
    "tiny": ComplexFerConfig.tiny,
}


def recipe(profile: str = "robust") -> Recipe:
    """A run of complex_fer in one of its profiles."""
    config = PROFILES[profile]()
    name = f"complex_fer-{profile}"
    if profile == "tiny":
        return Recipe(name=name, method="complex_fer", config=config, train=laptop_plan())
    return Recipe(name=name, method="complex_fer", config=config)
