"""Hosts on one machine: network namespaces on a closed bridge, each with its own processes.

What a host runs sees no process of another, has a folder for Ray's session and shared memory of its
own, and reaches the others by their addresses alone. Needs root, ``ip`` (iproute2), ``unshare`` and
``nsenter`` (util-linux).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

BRIDGE, NETWORK = "mien-br", "10.77.0"
INTERFACE = "eth0"
_TOOLS = ("ip", "unshare", "nsenter")


def missing() -> str | None:
    """Why there can be no hosts here, or None."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"no {', '.join(lacking)} on this machine"
    return None if os.geteuid() == 0 else "network namespaces need root"


class Host:
    """One host; its link can be cut and mended."""

    def __init__(self, name: str, number: int) -> None:
        """Joins the bridge.

        Args:
            name: unlike those of other hosts, at most 8 letters.
            number: last part of its address, 2 to 254.
        """
        self.name, self.address = name, f"{NETWORK}.{number}"
        self._link = f"mien-{name}"
        self._space = f"mien-{name}"
        _ip("netns", "add", self._space)
        _ip("link", "add", self._link, "type", "veth", "peer", INTERFACE, "netns", self._space)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        for command in (
            ("addr", "add", f"{self.address}/24", "dev", INTERFACE),
            ("link", "set", INTERFACE, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self._space, *command)
        self._private = tempfile.TemporaryDirectory(prefix="mien-host-", ignore_cleanup_errors=True)
        self._first = self._boot()

    def _boot(self) -> subprocess.Popen[bytes]:
        """The process whose end ends all others of the host."""
        session = f"{tempfile.gettempdir()}/ray"  # where Ray puts it by itself
        prepare = (
            f"hostname {self.name} && mount -t tmpfs tmpfs /dev/shm && mkdir -p {session} && "
            f"mount --bind {self._private.name} {session} && touch {session}/up && "
            "exec sleep infinity"
        )
        own = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        outside = ["nsenter", f"--net=/run/netns/{self._space}"]
        first = subprocess.Popen([*outside, "unshare", *own, "sh", "-c", prepare])
        until = time.monotonic() + 30
        while not (Path(self._private.name) / "up").exists():
            if first.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"host {self.name} did not start")
            time.sleep(0.05)
        return first

    def enter(self) -> list[str]:
        """What to put in front of a command that is to run on this host."""
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        (inside,) = children.read_text().split()
        return ["nsenter", "--target", inside, "--mount", "--uts", "--ipc", "--pid", "--net"]

    def start(
        self,
        command: list[str],
        *,
        env: Mapping[str, str],
        out: IO[str] | int,
    ) -> subprocess.Popen[str]:
        """Starts a command on this host; its output goes into ``out``."""
        return subprocess.Popen(
            [*self.enter(), *command],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def cut(self) -> None:
        """Pulls the plug of its network."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Puts it back."""
        _ip("link", "set", self._link, "up")

    def end(self) -> None:
        """Ends all its processes and leaves the bridge."""
        self._first.kill()
        self._first.wait(30)
        _ip("netns", "del", self._space)
        self._private.cleanup()


class Network:
    """The bridge; this machine itself is 10.77.0.1 on it."""

    def __enter__(self) -> Network:
        self.hosts: list[Host] = []
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        return self

    def add(self, name: str) -> Host:
        """Another host."""
        self.hosts.append(Host(name, len(self.hosts) + 2))
        return self.hosts[-1]

    def __exit__(self, *error: object) -> None:
        for host in self.hosts:
            host.end()
        _ip("link", "del", BRIDGE)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
