"""What a run loses when a part of its cluster is killed, and how long it takes to go on.

A Ray cluster of five nodes on this machine (a head without CPUs, two that train, two that decode),
clips in a real S3 server, a real MLflow server. The same small training is run undisturbed and then
once for each part that is killed by SIGKILL in the middle of it: the process that trains, one that
decodes, the raylet of the node that trains, of one that decodes, the driver, the whole head node
(for both of them the command is typed again, for the head on a new cluster), the S3 server and the
MLflow server (both back after ten seconds). Every run must end with the same bits as the
undisturbed one, and be one run in MLflow with a loss for every step.

    python benchmarks/recovery.py [--quick] [--kill NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import os
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

from recovery_cluster import (
    DECODER,
    TRAINER,
    Nodes,
    kill_process,
    start_servers,
    take_away,
    upload,
)
from report import finish
from small_training import STEP, small_clips, training_command

from mien.train.local_ray import QUIET_RAY

KILL_AT_STEP = 4
TIME_LIMIT_S = 900.0


@dataclass(kw_only=True)
class Outcome:
    """One run."""

    seconds: float = 0.0
    killed_at: float | None = None
    stood_still_s: float = 0.0
    """The longest time between two new steps, from the one on at which something is killed."""
    newest: float = 0.0
    """When the newest new step was."""
    steps_again: int = 0
    """Steps that were made twice."""
    digest: str = ""
    steps: list[int] = field(default_factory=list)
    mlflow_runs: int = 0
    """Runs of that name in MLflow."""
    losses: int = 0
    """Steps whose loss MLflow has."""

    def note(self, step: int) -> None:
        """Takes in the line of a step."""
        now = time.monotonic()
        if step > max(self.steps, default=-1):
            if step > KILL_AT_STEP:
                self.stood_still_s = max(self.stood_still_s, now - self.newest)
            self.newest = now
        self.steps.append(step)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What is killed, and whether somebody has to type the command again."""

    do: Callable[[subprocess.Popen[str]], object]
    before_again: Callable[[], None] | None = None
    """None: the run goes on by itself."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the runs are."""

    nodes: Nodes
    data: str
    folder: Path
    mlflow: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one kill only")
    parser.add_argument("--kill", nargs="+", help="these parts only; nothing is kept")
    args = parser.parse_args()
    os.environ |= {**QUIET_RAY, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    chosen = ["train worker"] if args.quick else args.kill
    with tempfile.TemporaryDirectory(prefix="mien-rec-", ignore_cleanup_errors=True) as folder:
        figures = measure(Path(folder), chosen)
    kills = [found for name, found in figures["runs"].items() if name != "nothing"]
    figures["same_bits_share"] = sum(found["same_bits"] for found in kills) / len(kills)
    figures["most_steps_again"] = max(found["steps_again"] for found in kills)
    figures["most_mlflow_runs"] = max(found["mlflow_runs"] for found in kills)
    figures["most_losses_missing"] = max(found["losses_missing"] for found in kills)
    targets = {
        "every run ends with the bits of the undisturbed one": ("same_bits_share", ">=", 1.0),
        "at most one checkpoint interval is lost": ("most_steps_again", "<=", 1),
        "one run in MLflow": ("most_mlflow_runs", "<=", 1),
        "no loss is missing in MLflow": ("most_losses_missing", "<=", 0),
    }
    finish("recovery", figures, targets, quick=chosen is not None)


def measure(folder: Path, chosen: list[str] | None) -> dict[str, Any]:
    """All runs on one cluster; what is killed is put back before the next."""
    local = small_clips(folder / "clips")
    s3, mlflow = start_servers(folder)
    nodes = Nodes()
    place = Place(nodes=nodes, data=upload(local), folder=folder, mlflow=mlflow.uri)

    def new_cluster() -> None:
        nodes.shutdown()
        nodes.start()

    kills = {
        "train worker": Kill(do=lambda _: kill_process(TRAINER)),
        "decode task": Kill(do=lambda _: kill_process(DECODER)),
        "node that decodes": Kill(do=lambda _: nodes.kill_with(DECODER, "decode")),
        "node that trains": Kill(do=lambda _: nodes.kill_with(TRAINER, "train")),
        "driver": Kill(do=lambda process: process.kill(), before_again=lambda: None),
        "S3 server": Kill(do=lambda _: take_away(s3)),
        "MLflow server": Kill(do=lambda _: take_away(mlflow)),
        "head node": Kill(do=lambda _: nodes.kill_head(), before_again=new_cluster),
    }
    try:
        outcomes = {"nothing": run_once(place, "nothing", None)}
        for name in chosen or kills:
            outcomes[name] = run_once(place, name, kills[name])
    finally:
        nodes.shutdown()
        s3.stop()
        mlflow.stop()
    expected = outcomes["nothing"]
    return {
        "runs": {name: _shown(found, expected) for name, found in outcomes.items()},
        "load_average": round(os.getloadavg()[0], 1),
    }


def _shown(found: Outcome, expected: Outcome) -> dict[str, Any]:
    return {
        "seconds": round(found.seconds, 1),
        "stood_still_s": round(found.stood_still_s, 1),
        "steps_again": found.steps_again,
        "same_bits": found.digest == expected.digest,
        "mlflow_runs": found.mlflow_runs,
        "losses_missing": expected.losses - found.losses,
    }


def run_once(place: Place, name: str, kill: Kill | None) -> Outcome:
    """One training, disturbed once; the driver is started again where it died with the kill."""
    run, outcome, started = name.replace(" ", "-"), Outcome(), time.monotonic()
    killer: threading.Thread | None = None
    while True:
        lines, process = [], _start(place, run)
        watchdog = threading.Timer(TIME_LIMIT_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            place.nodes.replace_killed()
            if (found := STEP.match(line)) is None:
                continue
            step = int(found[1])
            outcome.note(step)
            if step == KILL_AT_STEP and killer is None and kill is not None:
                killer = threading.Thread(target=_disturb, args=(kill, process, outcome))
                killer.start()
        code = process.wait()
        watchdog.cancel()
        if code == 0:
            break
        if not outcome.killed_at or kill is None or kill.before_again is None:
            raise SystemExit(f"run {name!r} ended with {code}:\n{''.join(lines[-30:])}")
        if code != -signal.SIGKILL:
            print(f"  its driver said: {lines[-1].strip()}", file=sys.stderr)
        kill.before_again()
        kill = Kill(do=kill.do)  # once
    if killer is not None and not outcome.killed_at:
        raise SystemExit(f"run {name!r} ended before there was anything to kill")
    outcome.seconds = time.monotonic() - started
    outcome.steps_again = len(outcome.steps) - len(set(outcome.steps))
    package = place.folder / "runs" / run / "package" / "weights.safetensors"
    outcome.digest = hashlib.sha256(package.read_bytes()).hexdigest()
    outcome.mlflow_runs, outcome.losses = in_mlflow(place.mlflow, run)
    say(name, outcome)
    return outcome


def _disturb(kill: Kill, process: subprocess.Popen[str], outcome: Outcome) -> None:
    """Beside the reading of the lines: some parts have to be waited for."""
    kill.do(process)
    outcome.killed_at = time.monotonic()


def _start(place: Place, run: str) -> subprocess.Popen[str]:
    settings = ["train.workers=1", "train.decode_tasks=1", "train.checkpoint_every_steps=1"]
    settings += ["config.epochs=6", f"storage={place.folder / 'runs'}", f"track.uri={place.mlflow}"]
    return subprocess.Popen(
        training_command(run, place.data, settings),
        env={**os.environ, "RAY_ADDRESS": place.nodes.address, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def in_mlflow(uri: str, run: str) -> tuple[int, int]:
    """Runs of a name, and the steps of which the newest has a loss."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_name = '{run}'")
    names = sorted(name for name in runs[0].data.metrics if name.endswith("/loss"))
    history = client.get_metric_history(runs[0].info.run_id, names[0]) if names else []
    return len(runs), len({point.step for point in history})


def say(name: str, outcome: Outcome) -> None:
    print(
        f"killed: {name:<18} {outcome.seconds:6.1f} s, stood still {outcome.stood_still_s:5.1f} s, "
        f"{outcome.steps_again} steps again, weights {outcome.digest[:12]}, "
        f"{outcome.mlflow_runs} run with {outcome.losses} losses",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
