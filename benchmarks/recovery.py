"""What a run loses when a part of its cluster is killed, and how long it takes to go on.

A Ray cluster of five nodes on this machine (a head without CPUs, two that train, two that decode);
the same small training is run undisturbed and then once for each part that is killed by SIGKILL in
the middle of it: the process that trains, a process that decodes, the raylet of the node that
trains, the raylet of a node that decodes, and the driver (whose command is then typed again). Every
run must end with the same bits as the undisturbed one. Written to results/recovery.json.

    python benchmarks/recovery.py [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from report import finish

from mien.cluster.groups import LABEL
from mien.synth import SynthSpec, write_dataset
from mien.train.local_ray import QUIET_RAY

KILL_AT_STEP = 4
TIME_LIMIT_S = 900.0
STORE_BYTES = 80 << 20
TRAINER, DECODER = "ray::RayTrainWorker", "ray::MapBatches"


@dataclass(kw_only=True)
class Outcome:
    """One run."""

    seconds: float = 0.0
    recovered_s: float | None = None
    """From the kill to the first step that the run had not made before."""
    steps_again: int = 0
    """Steps that were made twice."""
    digest: str = ""
    steps: list[int] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one kill only")
    quick = parser.parse_args().quick
    os.environ |= {**QUIET_RAY, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="mien-rec-", ignore_cleanup_errors=True) as folder:
        figures = measure(Path(folder), quick)
    kills = [name for name in figures["runs"] if name != "nothing"]
    figures["same_bits_share"] = sum(figures["runs"][name]["same_bits"] for name in kills) / len(
        kills
    )
    figures["most_steps_again"] = max(figures["runs"][name]["steps_again"] for name in kills)
    targets = {
        "every run ends with the bits of the undisturbed one": ("same_bits_share", ">=", 1.0),
        "at most one checkpoint interval is lost": ("most_steps_again", "<=", 1),
    }
    finish("recovery", figures, targets, quick=quick)


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """All runs on one cluster; what is killed is put back before the next."""
    import ray
    from ray.cluster_utils import Cluster

    classes = ("happiness", "sadness", "anger")
    spec = SynthSpec(
        num_subjects=12, classes=classes, size_px=64, duration_s=0.6, supersample=False, seed=3
    )
    data = write_dataset(spec, folder / "clips", num_workers=0)
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = Nodes(cluster)
    for label in ("train", "train", "decode", "decode"):
        nodes.add(label)
    kills: dict[str, Callable[[subprocess.Popen[str]], None]] = {
        "train worker": lambda _: kill_process(TRAINER),
        "decode task": lambda _: kill_process(DECODER),
        "node that decodes": lambda _: nodes.kill_with(DECODER, "decode"),
        "node that trains": lambda _: nodes.kill_with(TRAINER, "train"),
        "driver": lambda process: process.kill(),
    }
    chosen = dict(list(kills.items())[:1]) if quick else kills
    outcomes = {"nothing": run_once(cluster.address, data, folder, "nothing", None)}
    say("nothing", outcomes["nothing"])
    for name, kill in chosen.items():
        outcomes[name] = run_once(cluster.address, data, folder, name, kill)
        say(name, outcomes[name])
    ray.shutdown()
    cluster.shutdown()
    expected = outcomes["nothing"].digest
    return {
        "runs": {
            name: {
                "seconds": round(found.seconds, 1),
                "recovered_s": found.recovered_s and round(found.recovered_s, 1),
                "steps_again": found.steps_again,
                "same_bits": found.digest == expected,
            }
            for name, found in outcomes.items()
        },
        "load_average": round(os.getloadavg()[0], 1),
    }


class Nodes:
    """The cluster's nodes that work."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._nodes: list[Any] = []

    def add(self, label: str) -> None:
        self._nodes.append(
            self._cluster.add_node(
                num_cpus=1, object_store_memory=STORE_BYTES, labels={LABEL: label}
            )
        )

    def kill_with(self, title: str, label: str) -> None:
        """Kills the raylet whose child has the title, and starts another node of its group."""
        parents = {process.ppid() for process in processes(title)}
        for node in self._nodes:
            (raylet,) = [info.process.pid for info in node.all_processes["raylet"]]
            if raylet in parents:
                self._nodes.remove(node)
                self._cluster.remove_node(node, allow_graceful=False)
                self.add(label)
                return
        raise RuntimeError(f"no node runs {title}")


def processes(title: str) -> list[psutil.Process]:
    """Processes of this benchmark's own cluster with a title, oldest first."""
    own = psutil.Process().children(recursive=True)
    named = [one for one in own if one.is_running() and title in " ".join(command_of(one))]
    return sorted(named, key=lambda one: one.create_time())


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill_process(title: str) -> None:
    # Decoding processes come and go with the work there is.
    until = time.monotonic() + TIME_LIMIT_S
    while not (found := processes(title)):
        if time.monotonic() > until:
            raise RuntimeError(f"no process {title} came")
        time.sleep(0.01)
    found[0].send_signal(signal.SIGKILL)


def run_once(
    address: str,
    data: Path,
    folder: Path,
    name: str,
    kill: Callable[[subprocess.Popen[str]], None] | None,
) -> Outcome:
    """One training, disturbed once; the driver is started again where it died."""
    run = name.replace(" ", "-")
    settings = ["train.workers=1", "train.decode_tasks=1", "track.uri=off", "train.device=cpu"]
    settings += ["train.log_every_steps=1", "train.checkpoint_every_steps=1"]
    settings += ["config.epochs=3", "config.batch_size=8", "train.threads_per_worker=1"]
    settings += ["cluster.train.label=train", "cluster.decode.label=decode"]
    settings += [f"storage={folder / 'runs'}"]
    command = [sys.executable, "-m", "mien_jobs.cli", "train", "rdfer", "--profile", "tiny"]
    command += ["--name", run, "--data", str(data), "--set", *settings]
    outcome, started = Outcome(), time.monotonic()
    killed_at: float | None = None
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"}
    while True:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watchdog = threading.Timer(TIME_LIMIT_S, process.kill)
        watchdog.start()
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if (found := re.match(r"\w+ step (\d+)/", line)) is None:
                continue
            step = int(found[1])
            if killed_at is not None and outcome.recovered_s is None and step > KILL_AT_STEP:
                outcome.recovered_s = time.monotonic() - killed_at
            outcome.steps.append(step)
            if step == KILL_AT_STEP and killed_at is None and kill is not None:
                kill(process)
                killed_at = time.monotonic()
        code = process.wait()
        watchdog.cancel()
        if code == 0:
            break
        if name != "driver" or code != -signal.SIGKILL:
            raise SystemExit(f"run {name!r} ended with {code}:\n{''.join(lines[-30:])}")
    outcome.seconds = time.monotonic() - started
    outcome.steps_again = len(outcome.steps) - len(set(outcome.steps))
    package = folder / "runs" / run / "package" / "weights.safetensors"
    outcome.digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return outcome


def say(name: str, outcome: Outcome) -> None:
    print(
        f"killed: {name:<20} {outcome.seconds:6.1f} s, went on after {outcome.recovered_s}, "
        f"{outcome.steps_again} steps again, weights {outcome.digest[:12]}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
