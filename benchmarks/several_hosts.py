"""A training over several hosts whose links are cut, for ten seconds and for good.

Four hosts with addresses, processes and memory of their own (network namespaces): one with the
driver that decodes, two that train together (DDP over gloo), one with the S3 server that has the
clips. Runs lie in a folder that all of them see. The same training is run undisturbed and then with
each cut; a link that comes back must end with the same bits. A link cut for good is seen twice:
by a training that may go on with one worker (``train.least_workers=1``), and by one that may not,
which has to say what it waits for and to end with the same bits once another host has come.

    python benchmarks/several_hosts.py [--quick] [--cut NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hosts import INTERFACE, Host, Network, missing
from recovery_cluster import STORE_BYTES, S3Server, upload
from report import finish
from small_training import STEP, WORKERS, small_clips, training_command

from mien.cluster.groups import LABEL
from mien.train.local_ray import QUIET_RAY

PORT, CUT_AT_STEP, CUT_S = 6379, 4, 10.0
TIME_LIMIT_S = 900.0
WAITS = "waiting for nodes: 2 training worker(s)"


@dataclass
class Outcome:
    """One run."""

    seconds: float = 0.0
    cut_at: float | None = None
    recovered_s: float | None = None
    """From the cut to the first step that the run had not made before."""
    said_s: float | None = None
    """From the cut to the line that says what it waits for."""
    workers: list[int] = field(default_factory=list)
    """Of each start."""
    steps: list[int] = field(default_factory=list)
    digest: str = ""


class Site:
    """The hosts, Ray on three of them, the clips on the fourth."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network, self.folder = network, folder
        self.head, store = network.add("head"), network.add("store")
        self.store = store
        self.trainers: list[Host] = []
        self.s3 = S3Server(folder / "s3", address=store.address, enter=store.enter())
        os.environ |= self.s3.environment
        self.s3.start()
        self.environment = os.environ | {"GLOO_SOCKET_IFNAME": INTERFACE, "HOME": str(folder)}
        self._ray(self.head, 2, "decode", "--head", f"--port={PORT}", "--include-dashboard=false")
        self._wait_for(self.head, 1)
        for _ in range(2):
            self.add_trainer()
        self._wait_for(self.head, 3)

    def add_trainer(self) -> None:
        """Another host that trains."""
        host = self._network.add(f"train{len(self.trainers)}")
        self.trainers.append(host)
        self._ray(host, 1, "train", f"--address={self.head.address}:{PORT}")

    def _ray(self, host: Host, cpus: int, group: str, *flags: str) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *flags]
        command += [f"--node-ip-address={host.address}", f"--num-cpus={cpus}"]
        command += [f"--labels={LABEL}={group}", f"--object-store-memory={STORE_BYTES}"]
        with open(self.folder / f"{host.name}.log", "w") as log:
            host.start(command, env=self.environment, out=log)

    def _wait_for(self, host: Host, nodes: int) -> None:
        script = (
            "import ray; ray.init(logging_level='error'); "
            "print('alive', sum(node['Alive'] for node in ray.nodes()))"
        )
        until = time.monotonic() + 180
        said = ""
        while time.monotonic() < until:
            command = [*host.enter(), sys.executable, "-c", script]
            done = subprocess.run(
                command,
                env=self.environment | {"RAY_ADDRESS": f"{host.address}:{PORT}"},
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            found = re.search(r"alive (\d+)", done.stdout)
            if found and int(found[1]) >= nodes:
                return
            time.sleep(1)
        raise SystemExit(f"{nodes} nodes did not come:\n{said[-2000:]}")


def run_once(site: Site, name: str, data: str, settings: list[str], cut: Cut | None) -> Outcome:
    """One training on the head host, disturbed once."""
    run, outcome, lines = re.sub(r"\W+", "-", name), Outcome(), []
    common = ["train.workers=2", "train.cpus_per_worker=1", "train.decode_tasks=1"]
    common += ["train.checkpoint_every_steps=1", "config.epochs=12", "track.uri=off"]
    common += [f"storage={site.folder / 'runs'}"]
    command = training_command(run, data, [*common, *settings])
    environment = site.environment | {"RAY_ADDRESS": f"{site.head.address}:{PORT}"}
    started = time.monotonic()
    process = site.head.start(
        command, env=environment | {"PYTHONUNBUFFERED": "1"}, out=subprocess.PIPE
    )
    watchdog = threading.Timer(TIME_LIMIT_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        since = time.monotonic() - (outcome.cut_at or 0.0)
        if found := WORKERS.search(line):
            outcome.workers.append(int(found[1]))
        if WAITS in line and outcome.said_s is None and outcome.cut_at:
            outcome.said_s = since
            print(f"  it says: {line.strip()}", file=sys.stderr, flush=True)
            if cut is not None and cut.when_it_says_so is not None:
                cut.when_it_says_so(site)
        if found := STEP.match(line):
            step = int(found[1])
            if outcome.cut_at and outcome.recovered_s is None and step > max(outcome.steps):
                outcome.recovered_s = since
            outcome.steps.append(step)
            if step == CUT_AT_STEP and cut is not None and outcome.cut_at is None:
                outcome.cut_at = time.monotonic()
                cut.do(site)
    watchdog.cancel()
    if process.wait() != 0:
        raise SystemExit(f"run {name!r} ended with {process.returncode}:\n{''.join(lines[-30:])}")
    outcome.seconds = time.monotonic() - started
    weights = site.folder / "runs" / run / "package" / "weights.safetensors"
    outcome.digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    return outcome


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is cut, and what somebody does about it."""

    do: Callable[[Site], object]
    settings: tuple[str, ...] = ()
    when_it_says_so: Callable[[Site], object] | None = None
    same_bits: bool = True
    """Whether the run has to end with the bits of the undisturbed one."""


def _for_a_while(host: Host) -> None:
    host.cut()
    threading.Timer(CUT_S, host.mend).start()


CUTS = {
    "trainer for 10 s": Cut(do=lambda site: _for_a_while(site.trainers[-1])),
    "storage for 10 s": Cut(do=lambda site: _for_a_while(site.store)),
    "trainer for good": Cut(
        do=lambda site: site.trainers[-1].cut(),
        when_it_says_so=lambda site: site.add_trainer(),
    ),
    "trainer for good, elastic": Cut(
        do=lambda site: site.trainers[-1].cut(),
        settings=("train.least_workers=1",),
        same_bits=False,
    ),
}


def measure(folder: Path, chosen: list[str] | None) -> dict[str, Any]:
    """All runs on one site."""
    local = small_clips(folder / "clips")
    outcomes: dict[str, Outcome] = {}
    with Network() as network:
        site = Site(network, folder)
        data = upload(local)
        outcomes["nothing"] = run_once(site, "nothing", data, [], None)
        for name in chosen or CUTS:
            cut = CUTS[name]
            outcomes[name] = run_once(site, name, data, list(cut.settings), cut)
    expected = outcomes["nothing"]
    return {
        name: {
            "seconds": round(found.seconds, 1),
            "recovered_s": found.recovered_s and round(found.recovered_s, 1),
            "said_what_it_waits_for_s": found.said_s and round(found.said_s, 1),
            "workers_of_each_start": found.workers,
            "steps_again": len(found.steps) - len(set(found.steps)),
            "same_bits": found.digest == expected.digest,
        }
        for name, found in outcomes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one cut only")
    parser.add_argument("--cut", nargs="+", choices=tuple(CUTS), help="these only; nothing is kept")
    args = parser.parse_args()
    if reason := missing():
        raise SystemExit(f"no hosts can be made here: {reason}")
    os.environ |= {**QUIET_RAY, "OMP_NUM_THREADS": "1"}
    chosen = ["trainer for 10 s"] if args.quick else args.cut
    with tempfile.TemporaryDirectory(prefix="mien-mh-", ignore_cleanup_errors=True) as folder:
        runs = measure(Path(folder), chosen)
    exact = [
        runs[name]["same_bits"] for name, cut in CUTS.items() if name in runs and cut.same_bits
    ]
    figures = {
        "runs": runs,
        "same_bits_share": sum(exact) / max(1, len(exact)),
        "load_average": round(os.getloadavg()[0], 1),
    }
    targets = {"links that come back change no bit": ("same_bits_share", ">=", 1.0)}
    if "trainer for good" in runs:
        figures["said_s"] = runs["trainer for good"]["said_what_it_waits_for_s"] or TIME_LIMIT_S
        targets["what it waits for is said in time"] = ("said_s", "<=", 180.0)
    if "trainer for good, elastic" in runs:
        figures["elastic_recovered_s"] = (
            runs["trainer for good, elastic"]["recovered_s"] or TIME_LIMIT_S
        )
        targets["one worker goes on alone"] = ("elastic_recovered_s", "<=", 300.0)
    finish("several_hosts", figures, targets, quick=chosen is not None)


if __name__ == "__main__":
    main()
