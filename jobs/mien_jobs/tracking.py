"""Where runs are tracked."""

from __future__ import annotations

import os

from mien.media.storage import absolute, is_remote
from mien.track.tracker import embedded_uri


def tracking_uri(wish: str, storage: str) -> str | None:
    """The tracking URI for a wish; None: not tracked.

    Args:
        wish: ``auto``, ``off``, or a URI.
        storage: folder of the runs; ``auto`` keeps SQLite there unless MLFLOW_TRACKING_URI is set.

    Raises:
        ValueError: ``auto`` with runs in a bucket, where SQLite can't live.
    """
    if wish == "off":
        return None
    if wish != "auto":
        return wish
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"]
    if is_remote(storage):
        raise ValueError(
            f"runs go to {storage}, where MLflow's embedded database can't live: set "
            "MLFLOW_TRACKING_URI or --set track.uri=http://HOST:5000 (or track.uri=off)"
        )
    return embedded_uri(absolute(storage))
