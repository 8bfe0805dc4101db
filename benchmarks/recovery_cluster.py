"""The cluster and the servers that `recovery.py` kills parts of."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from mien.cluster.groups import LABEL
from mien.media import storage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mlflow_server import MlflowServer
from s3_server import BUCKET, S3Server

STORE_BYTES = 80 << 20
TRAINER, DECODER = "ray::RayTrainWorker", "ray::MapBatches"
DOWN_S = 10.0
"""How long a killed server stays away."""
_PATIENCE_S = 120.0


class Server(Protocol):
    """What can be killed and started again."""

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Nodes:
    """A Ray cluster: a head without CPUs, and nodes that train or decode with one CPU each."""

    def __init__(self, groups: Sequence[str] = ("train", "train", "decode", "decode")) -> None:
        self._cluster: Any = None
        self._nodes: list[Any] = []
        self._groups = tuple(groups)
        self._owed: list[str] = []
        self.start()

    @property
    def address(self) -> str:
        """Where a driver joins."""
        return str(self._cluster.address)

    def start(self) -> None:
        """A new cluster, in the place of the last one."""
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = []
        for label in self._groups:
            self.add(label)

    def shutdown(self) -> None:
        """Ends all nodes."""
        self._cluster.shutdown()

    def add(self, label: str) -> None:
        """Starts another node of a group."""
        self._nodes.append(
            self._cluster.add_node(
                num_cpus=1, object_store_memory=STORE_BYTES, labels={LABEL: label}
            )
        )

    def kill_newest(self) -> None:
        """Kills the raylet of the node that came last."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def kill_with(self, title: str, label: str) -> None:
        """Kills the raylet whose child has the title; `replace_killed` brings another node."""
        parents = {process.ppid() for process in awaited(title)}
        for node in self._nodes:
            (raylet,) = [info.process.pid for info in node.all_processes["raylet"]]
            if raylet in parents:
                self._nodes.remove(node)
                self._cluster.remove_node(node, allow_graceful=False)
                self._owed.append(label)
                return
        raise RuntimeError(f"no node runs {title}")

    def replace_killed(self) -> None:
        """Starts the nodes that are owed; from the main thread, as Ray wants it."""
        while self._owed:
            self.add(self._owed.pop())

    def kill_head(self) -> None:
        """Kills everything that the head node runs; the other nodes are left to find out."""
        for infos in self._cluster.head_node.all_processes.values():
            for info in infos:
                info.process.send_signal(signal.SIGKILL)


def processes(title: str) -> list[psutil.Process]:
    """Processes of this benchmark's own cluster with a title, oldest first."""
    own = psutil.Process().children(recursive=True)
    named = [one for one in own if one.is_running() and title in " ".join(_command_of(one))]
    return sorted(named, key=lambda one: one.create_time())


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def awaited(title: str) -> list[psutil.Process]:
    """The same, as soon as there are any: decoding processes come and go with the work."""
    until = time.monotonic() + _PATIENCE_S
    while not (found := processes(title)):
        if time.monotonic() > until:
            raise RuntimeError(f"no process {title} came")
        time.sleep(0.01)
    return found


def kill_process(title: str) -> None:
    """Kills the oldest process with a title."""
    awaited(title)[0].send_signal(signal.SIGKILL)


def take_away(server: Server) -> threading.Thread:
    """Kills a server, and starts it again on the same data after ``DOWN_S``."""
    server.kill()

    def bring_back() -> None:
        time.sleep(DOWN_S)
        server.start()
        # The kernel ends the server with the thread that started it.
        threading.Event().wait()

    back = threading.Thread(target=bring_back, daemon=True)
    back.start()
    return back


def upload(data: Path) -> str:
    """The clips of a manifest in the server's bucket; returns the manifest there."""
    for file in data.parent.rglob("*"):
        if file.is_file():
            place = f"s3://{BUCKET}/set/{file.relative_to(data.parent).as_posix()}"
            storage.write_bytes_atomically(place, file.read_bytes())
    return f"s3://{BUCKET}/set/{data.name}"


def start_servers(folder: Path) -> tuple[S3Server, MlflowServer]:
    """Both, running; the S3 server's address and keys are in the environment."""
    s3, mlflow = S3Server(folder / "s3"), MlflowServer(folder / "mlflow")
    os.environ |= s3.environment
    s3.start()
    mlflow.start()
    return s3, mlflow
