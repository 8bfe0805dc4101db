"""Ends runs whose process is gone: one that was killed can't say so itself."""

from __future__ import annotations

from collections.abc import Mapping

from mien.track.mlflow_tracker import RUN_KEY_TAG, open_client


def end_children(uri: str, experiment: str, status_by_key: Mapping[str, str]) -> None:
    """Gives runs that MLflow still takes for running the status that they ended with.

    Args:
        uri: MLflow's tracking URI.
        experiment: the runs'.
        status_by_key: FINISHED, FAILED or KILLED by the run key of each.
    """
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return
    page = None
    while True:
        runs = client.search_runs(
            [found.experiment_id], "attributes.status = 'RUNNING'", page_token=page
        )
        for run in runs:
            status = status_by_key.get(run.data.tags.get(RUN_KEY_TAG, ""))
            if status is not None:
                client.set_terminated(run.info.run_id, status)
        page = runs.token
        if not page:
            return
