"""Optuna's samplers and pruners by name, without a state of their own.

A sampler is made anew for every trial, seeded by the search's seed and the trial's number; all else
that it needs it reads from the study. So a search that was killed and goes on suggests what it
would have suggested, and two runs of a search with one trial at a time are the same.
"""

from __future__ import annotations

import warnings

import optuna

from mien.search.plan import SearchPlan
from mien.seeds import derive_seed

NSGA2_POPULATION = 10
_FIRST_AT_RANDOM = 8
"""Random trials before TPE has anything to go by."""


def make_sampler(plan: SearchPlan, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial."""
    seed = derive_seed(plan.seed, "trial", number) % 2**32
    with warnings.catch_warnings():
        # `group`, without which settings of conditional spaces are drawn one by one.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if plan.sampler == "tpe":
            return optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=_FIRST_AT_RANDOM,
                seed=seed,
            )
        if plan.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if plan.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)
        # A grid's trials wait in the study; nothing is drawn for them.
        return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(plan: SearchPlan) -> optuna.pruners.BasePruner:
    """The pruner of a search."""
    if plan.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=plan.grace, reduction_factor=2, min_early_stopping_rate=0
        )
    if plan.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=plan.grace)
    return optuna.pruners.NopPruner()
