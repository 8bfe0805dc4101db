"""Nodes that come and go with the work: Ray's autoscaler on this machine, its nodes real raylets.

The cluster starts with a head that has no CPUs. A training that fits nowhere is started: it waits,
a node that trains and nodes that decode come, it trains, and the nodes go again. Then the same
training with more decoding tasks: decoding must ask for nodes that decode, and for no more that
train. Then a search of four trials, two at a time: two nodes that train must come and go. The
courses are kept as a picture, docs/images/autoscaling.png.

    python benchmarks/autoscaling.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from report import finish
from small_training import STEP, small_clips, training_command

from mien.cluster.groups import LABEL
from mien.evaluate.plot_style import INK, QUIET
from mien.train.local_ray import QUIET_RAY

HEAD_ID = "f" * 51 + "00000"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "autoscaling.png"
IDLE_S = 15
TIME_LIMIT_S = 420.0
GROUPS = ("train", "decode")
TRIAL = re.compile(r"trial \d+: val/uar")


@dataclass
class Course:
    """What was seen from the start of a training on."""

    started: float = field(default_factory=time.monotonic)
    nodes: list[tuple[float, Counter[str]]] = field(default_factory=list)
    """Time and nodes of each group, whenever they were counted."""
    steps: list[float] = field(default_factory=list)
    """Time of each step's line, or each trial's end."""
    ended: float = 0.0
    code: int = -1

    def most(self, group: str) -> int:
        """Nodes of a group at once, at most."""
        return max(count[group] for _, count in self.nodes)

    def gone_after(self) -> float | None:
        """Seconds from the training's end to the last working node's; None: some stayed."""
        if any(self.nodes[-1][1][group] for group in GROUPS):
            return None
        last = max(time for time, count in self.nodes if sum(count[group] for group in GROUPS))
        return last - self.ended


def cluster_config(gcs_address: str, most: int) -> dict[str, Any]:
    """What the autoscaler may start: nodes that train, nodes that decode."""
    kinds = {
        group: {
            # On paper: what trains is told to use the CPU.
            "resources": {"CPU": 1} | ({"GPU": 1} if group == "train" else {}),
            "labels": {LABEL: group},
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        }
        for group in GROUPS
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": gcs_address,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": HEAD_ID,
    }
    # What Ray's own defaults would fill in, but for a provider of another type than `external`.
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    commands: dict[str, list[str]] = {f"{name}_commands": [] for name in lists}
    return {
        **commands,
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "auth": {},
        "cluster_name": "mien",
        "max_workers": 2 * most,
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": {"ray.head.default": head, **kinds},
        "head_node_type": "ray.head.default",
    }


@contextmanager
def autoscaling_cluster(folder: Path, most: int) -> Iterator[str]:
    """A head with an autoscaler in a process group of its own; gives its address."""
    import ray

    address = f"{ray.util.get_node_ip_address()}:{_free_port()}"
    config = folder / "cluster.yaml"
    config.write_text(yaml.safe_dump(cluster_config(address, most)))
    environment = os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    beside = Path(sys.executable).parent / "ray"
    command = [str(beside), "start", "--head", "--block"]
    command += [f"--port={address.split(':')[1]}", "--num-cpus=0", "--include-dashboard=false"]
    command += [f"--autoscaling-config={config}", f"--temp-dir={folder / 'ray'}"]
    command += [f"--object-store-memory={80 << 20}"]
    with open(folder / "head.log", "w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _join(address, head, folder / "head.log")
        yield address
    finally:
        ray.shutdown()
        if head.poll() is None:
            os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _join(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Joins the cluster as soon as it can be joined."""
    import ray

    reason: Exception | None = None
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and head.poll() is None:
        try:
            ray.init(address=address, logging_level="error", log_to_driver=False)
            return
        except (ConnectionError, RuntimeError) as error:
            reason = error
            time.sleep(1)
    raise SystemExit(f"the head did not start ({reason}):\n{log.read_text()[-2000:]}")


def count_nodes() -> Counter[str]:
    """Living nodes of each group."""
    import ray

    return Counter(node["Labels"].get(LABEL, "head") for node in ray.nodes() if node["Alive"])


def train(address: str, data: Path, folder: Path, tasks: int, epochs: int) -> Course:
    """One training with so many decoding tasks, each of which fills a node that decodes."""
    settings = ["train.workers=1", f"train.decode_tasks={tasks}", "track.uri=off"]
    settings += ["train.cpus_per_decode_task=1"]
    settings += [f"config.epochs={epochs}", f"storage={folder / 'runs'}"]
    command = training_command(f"with-{tasks}", data, settings)
    return follow(command, STEP, address, folder / f"with-{tasks}.log")


def search(address: str, data: Path, folder: Path) -> Course:
    """Four trials, two at a time; clips are cached by nodes that decode."""
    settings = ["config.epochs=1", "track.uri=off", f"storage={folder / 'runs'}"]
    command = training_command("search", data, settings, verb="tune")
    command += ["--trials", "4", "--concurrent", "2", "--sampler", "random", "--prune", "none"]
    return follow(command, TRIAL, address, folder / "search.log")


def follow(command: list[str], mark: re.Pattern[str], address: str, log: Path) -> Course:
    """A command from its start until the nodes are gone, or for the time limit."""
    course = Course()
    with open(log, "w") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1", "CI": "true"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    while time.monotonic() - course.started < TIME_LIMIT_S:
        now = time.monotonic() - course.started
        course.nodes.append((now, count_nodes()))
        seen = len([line for line in log.read_text().splitlines() if mark.match(line)])
        course.steps += [now] * (seen - len(course.steps))
        if not course.ended and process.poll() is not None:
            course.ended, course.code = now, process.returncode
        if course.ended and not any(course.nodes[-1][1][group] for group in GROUPS):
            break
        time.sleep(0.25)
    process.kill()
    if course.code != 0:
        raise SystemExit(f"{log.stem!r} ended with {course.code}:\n{log.read_text()[-3000:]}")
    return course


def draw(courses: dict[str, Course]) -> None:
    """Nodes over time, the steps as marks below."""
    figure = Figure(figsize=(9, 2.6 * len(courses)), layout="constrained", dpi=110)
    for axes, (title, course) in zip(
        figure.subplots(len(courses), 1, squeeze=False)[:, 0], courses.items(), strict=True
    ):
        times = [time for time, _ in course.nodes]
        for group, colour in zip(GROUPS, ("#2563eb", "#ea580c"), strict=True):
            counts = [count[group] for _, count in course.nodes]
            axes.step(times, counts, where="post", color=colour, lw=2, label=f"nodes that {group}")
        axes.plot(
            course.steps, [-0.25] * len(course.steps), "|", color=INK, ms=8, label="steps, trials"
        )
        axes.axvline(course.ended, color=QUIET, lw=1, ls=":")
        axes.text(course.ended, axes.get_ylim()[1], " ended", color=QUIET, va="top", fontsize=9)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("seconds from the command")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)


def main() -> None:
    """Both trainings, the picture, the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="the first training only, shorter")
    quick = parser.parse_args().quick
    os.environ |= {**QUIET_RAY, "OMP_NUM_THREADS": "1"}
    courses: dict[str, Course] = {}
    with tempfile.TemporaryDirectory(prefix="mien-as-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data = small_clips(folder / "clips")
        # Ray Data asks for another node after ten seconds in which its nodes were full.
        more_data = data if quick else small_clips(folder / "more-clips", clips_per_class=8)
        with autoscaling_cluster(folder, most=3) as address:
            for tasks in (1,) if quick else (1, 3):
                title = f"{tasks} decoding task{'s' if tasks > 1 else ''}, 1 worker that trains"
                clips = more_data if tasks > 1 else data
                courses[title] = train(address, clips, folder, tasks, 1 if quick else 4)
            if not quick:
                title = "a search: 4 trials, two at a time"
                courses[title] = search(address, data, folder)
    if not quick:
        draw(courses)
    report(list(courses.values()), quick=quick)


def report(courses: list[Course], *, quick: bool) -> None:
    """Figures and targets."""
    first, last = courses[0], courses[:2][-1]
    figures = {
        "nodes_at_start": sum(first.nodes[0][1][group] for group in GROUPS),
        "first_step_s": round(first.steps[0], 1),
        "trained_s": round(first.ended, 1),
        "nodes_gone_after_s": [
            course.gone_after() and round(course.gone_after() or 0.0, 1) for course in courses
        ],
        "nodes_left": sum(
            sum(course.nodes[-1][1][group] for group in GROUPS) for course in courses
        ),
        "train_nodes": [course.most("train") for course in courses],
        "decode_nodes": [course.most("decode") for course in courses],
        "most_train_nodes": max(course.most("train") for course in courses[:2]),
        "decode_nodes_gained": last.most("decode") - first.most("decode"),
        "load_average": round(os.getloadavg()[0], 1),
    }
    targets = {
        "it waits for nodes": ("nodes_at_start", "<=", 0),
        "all nodes go again": ("nodes_left", "<=", 0),
        "decoding asks for no node that trains": ("most_train_nodes", "<=", 1),
    }
    if not quick:
        targets["more decoding brings more nodes that decode"] = ("decode_nodes_gained", ">=", 1)
        figures["search_train_nodes"] = courses[2].most("train")
        targets["a search has the nodes of its two trials"] = ("search_train_nodes", ">=", 2)
    finish("autoscaling", figures, targets, quick=quick)


if __name__ == "__main__":
    main()
