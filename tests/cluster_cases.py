"""What cluster tests share: git, and a Ray cluster with a dashboard to submit to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


class RayHead:
    """A Ray cluster of one node in a group of processes of its own, with its dashboard."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port, self.dashboard_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard_port}"
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self._folder = folder

    def start(self) -> None:
        command = ["ray", "start", "--head", "--block", f"--port={self.port}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}"]
        command += ["--dashboard-agent-listen-port=0", "--num-cpus=2", "--include-dashboard=true"]
        command += ["--object-store-memory=100000000", f"--temp-dir={self._folder}"]
        with (self._folder / "head.log").open("w") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait(120.0)

    def stop(self) -> None:
        """Ends this cluster and nobody else's."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                # 401: it is there, and wants a token.
                if requests.get(f"{self.address}/api/jobs/", timeout=5).status_code in (200, 401):
                    return
            except requests.exceptions.RequestException:
                pass
            time.sleep(0.3)
        raise TimeoutError((self._folder / "head.log").read_text()[-2000:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
