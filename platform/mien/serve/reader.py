"""Films that are read in threads for one network."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mien.infer.many_films import ModelParts
from mien.infer.windows import Windowing
from mien.serve.answer import read_film
from mien.serve.settings import ServeSettings


class FilmReader:
    """A network and the threads that decode films for it.

    The network takes the windows of all films together, so that films which come in at the same
    time are computed in one batch.
    """

    def __init__(self, model: ModelParts, settings: ServeSettings) -> None:
        self.settings = settings
        self._network = model.network(settings.device, settings.batch_size)
        self._threads = ThreadPoolExecutor(settings.films_at_once, thread_name_prefix="film")

    async def read(self, location: str, windowing: Windowing) -> dict[str, Any]:
        """See `read_film`; decoding is stopped when nobody waits any more."""
        stopped = threading.Event()
        work = partial(
            read_film,
            location,
            self._network,
            replace(self.settings.film, windowing=windowing),
            self.settings.plan,
            max_film_s=self.settings.max_film_s,
            is_stopped=stopped.is_set,
        )
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            stopped.set()

    def close(self) -> None:
        """Waits for films that are being read, and ends the threads."""
        self._threads.shutdown()
        self._network.__exit__(None, None, None)


def threads_of_replica(device: str, films_at_once: int) -> None:
    """A replica on the CPU is one core; beside a GPU its threads decode."""
    torch.set_num_threads(1 if device == "cpu" else min(films_at_once, os.cpu_count() or 1))
