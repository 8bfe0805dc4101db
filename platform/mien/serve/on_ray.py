"""The server on Ray Serve: replicas with a network each, behind one address."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from starlette.applications import Starlette

from mien.infer.many_films import ModelParts
from mien.serve.reader import FilmReader, threads_of_replica
from mien.serve.settings import ServeSettings
from mien.serve.web import make_app

APP_NAME = "mien"
_MOST_QUEUED = 64
"""Requests that wait for a replica; more are answered with 503 at once."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A model in the object store."""

    model: ray.ObjectRef[ModelParts]


@serve.ingress()
class FilmServer:
    """One replica."""

    def __init__(self, sent: _Sent, settings: ServeSettings) -> None:
        threads_of_replica(settings.device, settings.films_at_once)
        self._reader = FilmReader(ray.get(sent.model), settings)

    def __serve_build_asgi_app__(self) -> Starlette:
        return make_app(self._reader)


@contextmanager
def serving(
    model: ModelParts, settings: ServeSettings, *, port: int, num_replicas: int
) -> Iterator[None]:
    """Serves while the block runs, on the Ray that is running.

    Raises:
        RuntimeError: the replicas don't start; their log says why.
    """
    quiet: Any = {"log_level": "WARNING"}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        http_options={"host": settings.host, "port": port, "location": "HeadOnly"},
        logging_config=quiet,
    )
    deployment = serve.deployment(FilmServer).options(
        num_replicas=num_replicas,
        # A replica takes more than it reads at once, so that small requests don't wait for films.
        max_ongoing_requests=4 * settings.films_at_once + 8,
        max_queued_requests=_MOST_QUEUED,
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": 1 if settings.device.startswith("cuda") else 0,
        },
        logging_config=quiet,
    )
    sent = _Sent(ray.put(model))
    serve.run(deployment.bind(sent, settings), name=APP_NAME, route_prefix="/")
    try:
        yield
    finally:
        serve.delete(APP_NAME)
