"""Runs of DTM."""

from __future__ import annotations

from dataclasses import replace

from mien_jobs.recipe import Recipe
from mien_jobs.recipes.mma_dfer import laptop_plan
from mien_models.dtm import DtmConfig

PROFILES = {
    "robust": DtmConfig.robust,
    "paper": DtmConfig.paper,
    "tiny": DtmConfig.tiny,
}


def recipe(profile: str = "robust") -> Recipe:
    """A run of DTM in one of its profiles; the best epoch is chosen by macro-F1, as EXPR scores."""
    made = Recipe(name=f"dtm-{profile}", method="dtm", config=PROFILES[profile]())
    plan = laptop_plan() if profile == "tiny" else made.train
    return replace(made, train=replace(plan, select="val/macro_f1"))
