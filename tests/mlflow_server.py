"""A real MLflow server on this machine for the time of a test or benchmark run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_S = 240


class MlflowServer:
    """`mlflow server` on SQLite with its own folder, on a free port of the loopback interface."""

    def __init__(self, folder: Path) -> None:
        """Chooses the port; nothing runs before `start`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the server, or starts it again on the same runs; returns when it answers."""
        assert self._process is None
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--workers", "1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._wait()

    def kill(self) -> None:
        """Ends the server and its workers as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, 9)
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        """Ends the server, if it runs."""
        if self._process is not None:
            self.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process is not None:
            if self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
            except OSError:
                time.sleep(0.2)
            else:
                return
        self.stop()
        log = (self._folder / "log").read_text(errors="replace")
        raise AssertionError(f"the MLflow server does not answer:\n{log[-3000:]}")


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server.uri
    finally:
        server.stop()
