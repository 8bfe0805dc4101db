"""Settings of runs that are tracked in MLflow, to begin a search with."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mien.search.plan import Objective, SearchError
from mien.search.space import Dimension, Space, Value
from mien.track.mlflow_tracker import open_client

_MOST_RUNS = 1000


def settings_of_best_runs(
    uri: str, experiment: str, space: Space, objective: Objective, count: int
) -> list[dict[str, Value]]:
    """The settings of an experiment's best finished runs, as far as a space could draw them.

    Trainings and trials of searches count alike; of runs with the same settings, one.

    Args:
        uri: MLflow's tracking URI.
        experiment: its name.
        space: what is searched; runs whose settings lie outside are passed over.
        objective: orders the runs by the last value that they logged of it.
        count: how many at most.

    Returns:
        The best first.

    Raises:
        SearchError: there is no such experiment.
    """
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(one.name for one in client.search_experiments())
        raise SearchError(f"MLflow at {uri} has no experiment {experiment!r}; it has {names}")
    order = "DESC" if objective.goal == "maximize" else "ASC"
    runs = client.search_runs(
        [found.experiment_id],
        "attributes.status = 'FINISHED'",
        order_by=[f"metrics.`{objective.metric}` {order}"],
        max_results=_MOST_RUNS,
    )
    best: list[dict[str, Value]] = []
    for run in runs:
        values = _drawn(space, run.data.params)
        if objective.metric in run.data.metrics and values is not None and values not in best:
            best.append(values)
    return best[:count]


def _drawn(space: Space, params: Mapping[str, str]) -> dict[str, Value] | None:
    """A run's settings as a draw of the space; None: they are none."""
    values: dict[str, Value] = {}
    for dimension in space.dimensions:
        # A training's run has the whole recipe; a trial's the names of the search.
        text = params.get(f"config.{dimension.name}", params.get(dimension.name))
        if dimension.applies(values) and text is not None:
            values[dimension.name] = _read(dimension, text)
    return values if space.misfit(values) is None else None


def _read(dimension: Dimension, text: str) -> Value:
    """The value that MLflow keeps as a text: words as they are, all else as JSON."""
    if text in dimension.choices:
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float | None) else text
