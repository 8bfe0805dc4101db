"""The HTTP side: routes, limits, and which error is which status.

::

    GET  /          the page
    GET  /healthz   {"status": "ok"}
    GET  /model     name, method, classes, hash, licence ...
    POST /predict   multipart with a field `file`, or JSON {"uri": ...} -> JSON;
                    beside it `window_s` and `step_s`, as of ``mien predict``

Errors are JSON: ``{"error": {"reason": ..., "message": ...}}``. A film that can't be used is a 422
with the words of ``mien predict``; one without a face or without sound is no error.
"""

from __future__ import annotations

import hmac
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.infer.windows import Windowing
from mien.media.errors import ClipError
from mien.serve.answer import FilmTooLongError
from mien.serve.reader import FilmReader
from mien.serve.settings import ServeSettings, is_loopback

_PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_LEAST_STEP_S = 0.1
_FORM_BYTES = 64 << 10
"""What a form may hold beside the film."""


class RequestError(Exception):
    """A request that can't be answered."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def make_app(reader: FilmReader) -> Starlette:
    """The web application in front of a reader."""
    settings = reader.settings

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def model(request: Request) -> Response:
        _check_token(request, settings)
        limits = {"max_upload_bytes": settings.max_upload_bytes, "max_film_s": settings.max_film_s}
        return JSONResponse({**settings.card, "limits": limits})

    async def predict(request: Request) -> Response:
        _check_token(request, settings)
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return JSONResponse(await _uploaded(request, reader))
        return JSONResponse(await _named(request, reader))

    routes = [Route(path, _page(*file)) for path, file in _PAGE_FILES.items()]
    routes += [
        Route("/healthz", health),
        Route("/model", model),
        Route("/predict", predict, methods=["POST"]),
    ]
    middleware = [Middleware(UploadLimit, max_bytes=settings.max_upload_bytes + _FORM_BYTES)]
    if is_loopback(settings.host):
        # Else a web page could reach this server under a name of its own (DNS rebinding).
        hosts = ["localhost", "127.0.0.1", "[::1]", settings.host]
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=hosts))
    handlers: Any = {
        RequestError: _refused,
        ClipError: _unusable,
        FilmTooLongError: _too_long,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


class UploadLimit:
    """Refuses a request's body that is larger than allowed, before or while it comes in.

    What a client still sends is read and thrown away, up to three times the limit: whoever is cut
    off while sending sees a broken connection, and not why.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if int(length) > self._max_bytes:
            await self._drain(receive)
            await _error(413, "too_large", _too_large(self._max_bytes))(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_bytes:
                if message.get("more_body"):
                    await self._drain(receive)
                raise RequestError(413, "too_large", _too_large(self._max_bytes))
            return message

        await self._app(scope, counted, send)

    async def _drain(self, receive: Receive) -> None:
        taken, is_more = 0, True
        while is_more and taken < 3 * self._max_bytes:
            message = await receive()
            taken += len(message.get("body", b""))
            is_more = message.get("more_body", False)


async def _uploaded(request: Request, reader: FilmReader) -> dict[str, Any]:
    """Answers about the film in a form's field ``file``."""
    async with request.form(max_files=1, max_fields=2) as form:
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise RequestError(
                400, "no_film", "expected a form with a field `file`, as curl -F file=@FILM.mp4"
            )
        windowing = asked_windowing(form)
        name = plain_name(upload.filename or "")
        with tempfile.TemporaryDirectory(prefix="mien-serve-") as folder:
            path = Path(folder) / name
            await run_in_threadpool(_copy, upload, path)
            try:
                return {"input": name, **await reader.read(str(path), windowing)}
            except ClipError as error:
                # Where an upload lies here is nobody's business.
                message = str(error).replace(f"{folder}/", "")
                raise ClipError(error.reason, message) from error


async def _named(request: Request, reader: FilmReader) -> dict[str, Any]:
    """Answers about a film that the server may read from where it lies."""
    try:
        asked = await request.json()
    except ValueError:
        asked = None
    uri = asked.get("uri") if isinstance(asked, dict) else None
    if not isinstance(uri, str):
        raise RequestError(
            400,
            "no_film",
            'expected a multipart form with a field `file`, or JSON such as {"uri": "s3://..."}',
        )
    if not reader.settings.allows(uri):
        raise RequestError(
            403,
            "uri_not_allowed",
            f"{uri} may not be read here: `mien serve --allow-uri PREFIX` says which may; upload "
            "the film instead",
        )
    return {"input": uri, **await reader.read(uri, asked_windowing(asked))}


def asked_windowing(asked: Mapping[str, Any]) -> Windowing:
    """The windows that a request asks for with ``window_s`` and ``step_s``, else the usual ones.

    Raises:
        RequestError: no numbers, or such that a film would take for ever.
    """
    try:
        wanted = {name: float(asked[name]) for name in ("window_s", "step_s") if asked.get(name)}
        windowing = Windowing(**wanted)
    except (TypeError, ValueError) as error:
        raise RequestError(400, "bad_window", f"window_s or step_s: {error}") from error
    if min(wanted.values(), default=_LEAST_STEP_S) < _LEAST_STEP_S:
        raise RequestError(
            400, "bad_window", f"window_s and step_s must be at least {_LEAST_STEP_S:g} s"
        )
    return windowing


def plain_name(name: str) -> str:
    """A client's file name as one that is safe in a folder of our own."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w.-]+", "_", last).strip(".")[-80:] or "film"


def _copy(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)


def _check_token(request: Request, settings: ServeSettings) -> None:
    if not settings.token:
        return
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(
        token.strip().encode(), settings.token.encode()
    ):
        raise RequestError(
            401, "no_token", "this server wants a token, as in Authorization: Bearer TOKEN"
        )


def _page(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    text = resources.files("mien.serve").joinpath(name).read_text(encoding="utf-8")

    async def page(request: Request) -> Response:
        return Response(text, media_type=media_type, headers=_PAGE_HEADERS)

    return page


def _error(status: int, reason: str, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"reason": reason, "message": message}}, status, headers=headers)


async def _refused(request: Request, error: RequestError) -> Response:
    return _error(error.status, error.reason, str(error))


async def _unusable(request: Request, error: ClipError) -> Response:
    return _error(422, error.reason, str(error))


async def _too_long(request: Request, error: FilmTooLongError) -> Response:
    return _error(413, "too_long", str(error))


def _too_large(max_bytes: int) -> str:
    return (
        f"the film is larger than {(max_bytes - _FORM_BYTES) / (1 << 20):g} MiB, the most that is "
        "taken here (`mien serve --max-upload-mb`); `mien predict` reads films of any size"
    )
