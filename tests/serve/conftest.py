"""Films for servers, and servers without Ray: the same application behind uvicorn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from infer.colour_method import COLOURS, ColourMethod
from infer.conftest import film

from mien.infer.many_films import ModelParts
from mien.infer.package import PackageInfo
from mien.serve.reader import FilmReader
from mien.serve.settings import ServeSettings
from mien.serve.web import make_app
from mien_models.contract import Method

__all__ = ["film"]


def parts_of(build_method: Callable[[], Method]) -> ModelParts:
    """A model that tells colours, as a server gets it."""
    method = build_method()
    info = PackageInfo(
        method="colours",
        config={},
        label_set=COLOURS,
        prediction_stream=method.prediction_stream(),
        stages_begun=0,
    )
    return ModelParts(
        build_method=build_method, info=info, tensors=method.state_dict(), action_units=()
    )


@contextmanager
def serving(settings: ServeSettings, model: ModelParts | None = None) -> Iterator[str]:
    """The address of a server that runs while the block does, by default one of colours."""
    reader = FilmReader(model or parts_of(ColourMethod), settings)
    config = uvicorn.Config(make_app(reader), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def tell_when_started(*args: object, **options: object) -> None:
        await startup(*args, **options)  # type: ignore[arg-type]
        started.set()

    server.startup = tell_when_started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(120)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        reader.close()


@pytest.fixture(scope="module")
def face_film(synth_manifest: Path) -> Path:
    """A talking face with sound, 0.6 s."""
    return sorted(synth_manifest.parent.rglob("*.mp4"))[0]
