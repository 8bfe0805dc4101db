"""How a space is searched: what is wanted, who suggests, who is stopped early, what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mien.search.space import Space, SpaceError

SamplerName = Literal["tpe", "cmaes", "nsga2", "random", "grid"]
PrunerName = Literal["asha", "median", "none"]
Goal = Literal["maximize", "minimize"]


class SearchError(ValueError):
    """A search that can't be made, gone on with, or that failed too often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """A figure of a trial that is wanted as large, or as small, as possible."""

    metric: str
    goal: Goal = "maximize"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """Everything about a search that is neither the space nor what a trial does.

    Raises:
        SearchError: settings that don't fit each other.
    """

    objectives: tuple[Objective, ...]
    trials: int
    """Trials that end somehow; refused draws don't count."""
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "asha"
    """``asha``: asynchronous successive halving over the values that trials report."""
    grace: int = 2
    """Reports of a trial before it may be stopped early."""
    seed: int = 0
    max_failed: int = 5
    """More failed trials than this end the search."""
    retries: int = 2
    """Restarts of a trial whose process died, each from its newest checkpoint."""
    concurrent: int | None = None
    """Trials at once; None: as many as the cluster has room for."""
    cpus: float = 1.0
    """Ray CPUs that a trial's own process reserves."""
    gpus: float = 0.0
    """GPUs, or a share of one, that a trial's own process reserves."""
    hours: float | None = None
    """No new trials after so many hours of search, counted over all restarts."""
    gpu_hours: float | None = None
    """No new trials after the trials have held GPUs for so many hours together."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.objectives) <= 2:
            raise SearchError(f"a search has one objective or two, not {len(self.objectives)}")
        if len({objective.metric for objective in self.objectives}) < len(self.objectives):
            raise SearchError(f"both objectives are {self.objectives[0].metric}")
        if self.trials < 1 or self.grace < 1 or self.max_failed < 0 or self.retries < 0:
            raise SearchError(
                f"trials={self.trials} and grace={self.grace} must be at least 1, max_failed="
                f"{self.max_failed} and retries={self.retries} at least 0"
            )
        if self.sampler not in get_args(SamplerName) or self.pruner not in get_args(PrunerName):
            raise SearchError(f"there is no sampler {self.sampler!r} or pruner {self.pruner!r}")
        if len(self.objectives) == 2 and self.pruner != "none":
            raise SearchError("trials with two objectives can't be stopped early: --prune none")
        if len(self.objectives) == 2 and self.sampler == "cmaes":
            raise SearchError("cmaes searches for one objective; take nsga2 or tpe for two")
        if self.gpu_hours is not None and self.gpus <= 0:
            raise SearchError("a budget in GPU-hours needs trials that hold GPUs (--gpus)")

    def check_space(self, space: Space) -> None:
        """Refuses a space that the sampler can't search.

        Raises:
            SearchError: cmaes with fewer than two numeric settings.
            SpaceError: a grid over endlessly many values.
        """
        if self.sampler == "grid":
            space.grid()
        numeric = [dimension for dimension in space.dimensions if dimension.is_numeric]
        if self.sampler == "cmaes" and len(numeric) < 2:
            raise SearchError(
                f"cmaes needs two settings or more with uniform, loguniform or int ranges; this "
                f"space has {len(numeric)} ({', '.join(map(str, space.dimensions))})"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "objectives": [[item.metric, item.goal] for item in self.objectives]}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> SearchPlan:
        """The inverse of :meth:`to_json`."""
        objectives = tuple(
            Objective(metric=metric, goal=goal) for metric, goal in plain["objectives"]
        )
        return cls(**{**plain, "objectives": objectives})


__all__ = ["Objective", "SearchError", "SearchPlan", "SpaceError"]
