"""Trials that are Ray Train runs of two workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "several_workers.py"

# Dozens of processes start: minutes on two cores that do other things too.
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]


def searched(folder: Path, manifest: Path, case: str) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), str(folder), str(manifest), case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_trial_goes_on_when_one_of_its_workers_is_killed(
    synth_manifest: Path, tmp_path: Path
) -> None:
    found = searched(tmp_path, synth_manifest, "killed")
    assert found == {"states": ["complete"], "curves": [8], "steps": 32, "deaths": 1}


def test_a_trial_that_is_stopped_early_gives_its_workers_back(
    synth_manifest: Path, tmp_path: Path
) -> None:
    found = searched(tmp_path, synth_manifest, "stopped")
    # Without the workers of trial 1, trial 2 would wait for ever.
    assert found["states"] == ["complete", "pruned", "pruned"]
    assert found["curves"] == [1, 1, 1]
