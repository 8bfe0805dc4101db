"""A proxy before an S3 server that refuses some requests and limits how fast bytes flow."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
_CHUNK = 16 << 10
_HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive")


class ThrottlingProxy:
    """Forwards requests unchanged (signatures hold), but some answers are 503 SlowDown."""

    def __init__(self, upstream: str, *, refuse_first: int = 0, bytes_per_s: float | None) -> None:
        """Each object is refused ``refuse_first`` times before it is given out."""
        self.requests: Counter[str] = Counter()
        """Forwarded requests by method and path."""
        self.refused = 0
        self.sent_bytes = 0
        """Of the answers that were given out."""
        self._refusals: Counter[str] = Counter()
        self._refuse_first = refuse_first
        self._bytes_per_s = bytes_per_s
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ThrottlingProxy:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _is_refused(self, request: str) -> bool:
        with self._lock:
            if self._refusals[request] < self._refuse_first:
                self._refusals[request] += 1
                self.refused += 1
                return True
            self.requests[request] += 1
            return False

    def _forward(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if self._is_refused(f"{handler.command} {urlsplit(handler.path).path}"):
            _answer(handler, 503, [("Content-Type", "application/xml")], SLOW_DOWN)
            return
        upstream = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            upstream.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in handler.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            given = answer.read()
            with self._lock:
                self.sent_bytes += len(given)
            _answer(handler, answer.status, answer.getheaders(), given, self._bytes_per_s)
        finally:
            upstream.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", lambda handler: proxy._forward(handler))
        return Handler


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    bytes_per_s: float | None = None,
) -> None:
    handler.send_response_only(status)
    stated = {name.lower() for name, _ in headers}
    for name, value in headers:
        if name.lower() not in _HOP_BY_HOP:
            handler.send_header(name, value)
    if "content-length" not in stated:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    for start in range(0, len(body), _CHUNK):
        chunk = body[start : start + _CHUNK]
        handler.wfile.write(chunk)
        if bytes_per_s is not None:
            time.sleep(len(chunk) / bytes_per_s)
