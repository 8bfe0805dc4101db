"""Emulators of Azure's and Google's object stores on this machine, for the time of a test."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BUCKET = "clips"
_START_S = 120
_AZURE_KEY = base64.b64encode(b"very-secret-key-of-the-trainer").decode()


class CloudServer:
    """An emulator with its own folder, on a free port of the loopback interface."""

    scheme: str
    name: str

    def __init__(self, folder: Path) -> None:
        """Chooses a port; nothing runs before `running`."""
        self.folder = folder
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        raise NotImplementedError

    @property
    def folder_uri(self) -> str:
        """A place for a test's files."""
        return f"{self.scheme}://{BUCKET}/synth"

    def command(self) -> list[str]:
        """Starts it."""
        raise NotImplementedError

    def own_environment(self) -> dict[str, str]:
        """What the emulator itself is told by its environment."""
        return {}

    @staticmethod
    def missing() -> str | None:
        """Why there can be no server, or None."""
        raise NotImplementedError

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The server answers until the end of the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with open(self.folder / "server.log", "ab") as log:
            process = subprocess.Popen(
                [*guard, *self.command()],
                cwd=self.folder,
                env=os.environ | self.own_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait(process)
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=2),
            ):
                return
            time.sleep(0.1)
        log = (self.folder / "server.log").read_text(errors="replace")
        raise AssertionError(f"{self.name} does not answer:\n{log[-3000:]}")


class AzureServer(CloudServer):
    """Azurite, Microsoft's own emulator: it checks signatures, as Azure does."""

    scheme, name = "abfs", "Azurite"

    @staticmethod
    def missing() -> str | None:
        """Why there can be no server, or None."""
        if importlib.util.find_spec("adlfs") is None:
            return "no file system for abfs://: `pip install 'mien[azure]'`"
        if shutil.which("azurite-blob") is None:
            return "no Azure emulator: `npm install -g azurite` brings `azurite-blob`"
        return None

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection_string()}

    def connection_string(self, account: str = "trainer", key: str = _AZURE_KEY) -> str:
        """How clients reach it: as whom, with which key."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
            f"BlobEndpoint={self.endpoint}/{account};"
        )

    def command(self) -> list[str]:
        """Starts it."""
        binary = shutil.which("azurite-blob")
        assert binary is not None
        flags = ["--disableTelemetry", "--silent", "--skipApiVersionCheck"]
        return [binary, "--blobPort", str(self.port), "--location", str(self.folder), *flags]

    def own_environment(self) -> dict[str, str]:
        """The one account that it has."""
        return {"AZURITE_ACCOUNTS": f"trainer:{_AZURE_KEY}"}


class GoogleServer(CloudServer):
    """An emulator of Cloud Storage; it takes every credential."""

    scheme, name = "gs", "gcp-storage-emulator"

    @staticmethod
    def missing() -> str | None:
        """Why there can be no server, or None."""
        if importlib.util.find_spec("gcsfs") is None:
            return "no file system for gs://: `pip install 'mien[gcs]'`"
        if importlib.util.find_spec("gcp_storage_emulator") is None:
            return "no Google emulator: `pip install gcp-storage-emulator`"
        return None

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it; gcsfs else asks Google what kind of bucket it is."""
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def command(self) -> list[str]:
        """Starts it."""
        module = [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(self.folder)]
        return [*module, "start", "--host", "127.0.0.1", "--port", str(self.port), "--quiet"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
