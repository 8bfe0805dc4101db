"""A training that loses a node, goes on with fewer workers, and grows back when the node returns.

A Ray cluster on this machine: a head without CPUs, a node that decodes, one that trains, and later
a second one. The same training is run with one worker from beginning to end and, allowed one or two
workers (``train.least_workers=1 train.workers=2``), with a node that comes, is killed by SIGKILL,
and comes back. Both must show the same losses step by step (up to rounding: gradients are summed in
another order), every step once in MLflow. The learning rate is small, or rounding would grow: at
the profile's own, weights that differ by 1e-7 give losses that differ by 0.015 after 27 steps. A
step's loss still tells its clips and their augmentation: from step to step it moves by 0.05.

    python benchmarks/elastic.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery_cluster import MlflowServer, Nodes
from report import finish
from small_training import STEP, WORKERS, small_clips, training_command

from mien.train.local_ray import QUIET_RAY

TIME_LIMIT_S = 1500.0


@dataclass
class Course:
    """One training, line by line."""

    workers: list[int] = field(default_factory=list)
    """Of each start of the workers."""
    steps: list[int] = field(default_factory=list)
    steps_of_start: list[int] = field(default_factory=list)
    """Lines of steps since each start."""
    seconds: float = 0.0

    @property
    def steps_again(self) -> int:
        """Steps that were made twice."""
        return len(self.steps) - len(set(self.steps))


def train(
    name: str,
    settings: list[str],
    *,
    folder: Path,
    mlflow: str,
    address: str,
    after_line: Callable[[Course], None],
) -> Course:
    """Runs one training to its end."""
    common = ["train.cpus_per_worker=1", "train.decode_tasks=1", "train.checkpoint_every_steps=4"]
    common += ["config.optim.lr=1e-5", "config.optim.min_lr=1e-6"]
    # Agreement and validation would take longer than all the steps.
    common += ["config.agreement.every_epochs=1000", "train.evaluate_every_epochs=1000"]
    common += [f"storage={folder / 'runs'}", f"track.uri={mlflow}"]
    data = folder / "clips" / "manifest.parquet"
    process = subprocess.Popen(
        training_command(name, data, [*common, *settings]),
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(TIME_LIMIT_S, process.kill)
    watchdog.start()
    course, lines, started = Course(), [], time.monotonic()
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if found := WORKERS.search(line):
            course.workers.append(int(found[1]))
            course.steps_of_start.append(0)
            print(f"  {name}: {found[1]} worker(s)", file=sys.stderr, flush=True)
        if found := STEP.match(line):
            course.steps.append(int(found[1]))
            course.steps_of_start[-1] += 1
        after_line(course)
    watchdog.cancel()
    if process.wait() != 0:
        raise SystemExit(f"run {name!r} ended with {process.returncode}:\n{''.join(lines[-30:])}")
    course.seconds = time.monotonic() - started
    return course


class ComingAndGoing:
    """Brings the second node, takes it away, and brings it back, after some steps of each state."""

    def __init__(self, nodes: Nodes, steps: int) -> None:
        self._nodes, self._steps, self._done = nodes, steps, 0

    def __call__(self, course: Course) -> None:
        """To be told of every line."""
        starts = len(course.workers)
        if starts != self._done + 1 or course.steps_of_start[-1] < self._steps or self._done > 2:
            return
        self._done += 1
        change = self._nodes.kill_newest if self._done == 2 else lambda: self._nodes.add("train")
        change()


def losses(uri: str, name: str) -> tuple[int, dict[int, float]]:
    """Number of MLflow runs of a name, and the newest one's loss by step."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    (key,) = [key for key in runs[0].data.metrics if key.endswith("/loss")]
    history = client.get_metric_history(runs[0].info.run_id, key)
    return len(runs), {point.step: point.value for point in history}


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Both trainings."""
    small_clips(folder / "clips", clips_per_class=2 if quick else 6)
    mlflow, nodes = MlflowServer(folder / "mlflow"), Nodes(("decode", "train"))
    mlflow.start()
    length = [f"config.epochs={4 if quick else 9}"]
    elastic = ["train.workers=2", "train.least_workers=1", "train.grow_check_s=3"]
    place: Mapping[str, Any] = {
        "folder": folder,
        "mlflow": mlflow.uri,
        "address": nodes.address,
    }
    try:
        steady = train("steady", [*length, "train.workers=1"], after_line=lambda _: None, **place)
        moving = ComingAndGoing(nodes, steps=3 if quick else 20)
        course = train("elastic", [*length, *elastic], after_line=moving, **place)
        _, expected = losses(mlflow.uri, "steady")
        runs, found = losses(mlflow.uri, "elastic")
    finally:
        nodes.shutdown()
        mlflow.stop()
    shared = [abs(found[step] - expected[step]) for step in expected if step in found]
    return {
        "workers_of_each_start": course.workers,
        "starts": len(course.workers),
        "grew_back": int(course.workers[-1] == 2 and 1 in course.workers[1:]),
        "steps_again": course.steps_again,
        "mlflow_runs": runs,
        "losses_missing": len(set(expected) - set(found)),
        "largest_difference_of_losses": max(shared),
        "first_loss": expected[min(expected)],
        "seconds": round(course.seconds, 1),
        "seconds_steady": round(steady.seconds, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs; no time to grow back")
    quick = parser.parse_args().quick
    os.environ |= {**QUIET_RAY, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory(prefix="mien-el-", ignore_cleanup_errors=True) as name:
        figures = measure(Path(name), quick=quick)
    targets = {
        "it goes on with one worker and grows back to two": ("grew_back", ">=", 1),
        "at most a checkpoint interval is made again at each change": ("steps_again", "<=", 12),
        "one run in MLflow": ("mlflow_runs", "<=", 1),
        "no loss is missing in MLflow": ("losses_missing", "<=", 0),
        "the losses are those of one worker, up to rounding": (
            "largest_difference_of_losses",
            "<=",
            0.002,
        ),
    }
    finish("elastic", figures, targets, quick=quick)


if __name__ == "__main__":
    main()
