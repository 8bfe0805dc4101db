"""What a server may be asked, and by whom."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mien.infer.film_reading import FilmSettings
from mien.media.storage import absolute
from mien.stream.plan import DEFAULT, LoadPlan

TOKEN_VARIABLE = "MIEN_SERVE_TOKEN"


class ServeError(ValueError):
    """A server that can't be started as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How films are taken and read."""

    host: str = "127.0.0.1"
    token: str = ""
    """What requests must bring (``Authorization: Bearer TOKEN``); empty: nothing."""
    max_upload_bytes: int = 200 << 20
    max_film_s: float = 600.0
    """Longer films are refused: their answer is held in memory as a whole."""
    uri_prefixes: tuple[str, ...] = ()
    """Films below these may be named instead of uploaded; none: no film may."""
    film: FilmSettings = field(default_factory=FilmSettings)
    plan: LoadPlan = DEFAULT
    device: str = "cpu"
    batch_size: int = 16
    """Windows that a replica's network sees at once, of all films that it reads."""
    films_at_once: int = 2
    """That a replica reads in threads."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What ``/model`` tells."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise ServeError(
                f"--host {self.host} can be reached by others: set the environment variable "
                f"{TOKEN_VARIABLE} to a secret that requests then have to bring, or stay with "
                "127.0.0.1"
            )
        for name in ("max_upload_bytes", "max_film_s", "batch_size", "films_at_once"):
            if not getattr(self, name) > 0:
                raise ServeError(f"{name}={getattr(self, name)}: expected more than 0")

    def allows(self, uri: str) -> bool:
        """Whether a film may be read from there."""
        location = absolute(uri)
        if ".." in location.split("/"):
            return False
        return any(location.startswith(f"{root.rstrip('/')}/") for root in self.uri_prefixes)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """The port itself, or for 0 one that is free now.

    Raises:
        ServeError: something else listens there, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"can't listen on {host}:{port}: {error.strerror}; choose another --port (0: one "
                "that is free)"
            ) from error
        return int(probe.getsockname()[1])
