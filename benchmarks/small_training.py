"""The training that the benchmarks of clusters disturb: of seconds, a line for each step."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mien.synth import SynthSpec, write_dataset

STEP = re.compile(r"\w+ step (\d+)/")
"""Matches the line of a step, and holds its number."""
WORKERS = re.compile(r" (\d+) worker\(s\) on ")
"""Is found in the line that says how many workers a stage begins with."""


def small_clips(folder: Path, *, clips_per_class: int = 1) -> Path:
    """The manifest of twelve people with three expressions, films of 64 px and 0.6 s."""
    spec = SynthSpec(
        num_subjects=12,
        classes=("happiness", "sadness", "anger"),
        clips_per_class=clips_per_class,
        size_px=64,
        duration_s=0.6,
        supersample=False,
        seed=3,
    )
    return write_dataset(spec, folder, num_workers=0)


def training_command(
    name: str, data: str | Path, settings: list[str], *, verb: str = "train"
) -> list[str]:
    """rdfer's tiny profile on the CPU, on nodes that train and nodes that decode."""
    common = ["train.device=cpu", "train.log_every_steps=1", "train.threads_per_worker=1"]
    common += ["config.batch_size=8"]
    common += ["cluster.train.label=train", "cluster.decode.label=decode"]
    command = [sys.executable, "-m", "mien_jobs.cli", verb, "rdfer", "--profile", "tiny"]
    return [*command, "--name", name, "--data", str(data), "--set", *common, *settings]
