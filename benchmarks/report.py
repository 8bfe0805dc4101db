"""How every benchmark ends: one line of JSON, and a file under results/ for full runs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mien.track.environment import describe_environment

RESULTS = Path(__file__).parent / "results"


def finish(
    name: str,
    figures: Mapping[str, Any],
    targets: Mapping[str, tuple[str, str, float]],
    *,
    quick: bool,
) -> None:
    """Prints the result and, for a full run, keeps it.

    Args:
        name: of the benchmark.
        figures: what was measured.
        targets: by name, (figure, ``<=`` or ``>=``, limit).
        quick: a short run, whose figures are not kept.
    """
    met = {
        target: figures[figure] <= limit if sign == "<=" else figures[figure] >= limit
        for target, (figure, sign, limit) in targets.items()
    }
    record = {
        "benchmark": name,
        "quick": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_sha": describe_environment()["mien.git_sha"],
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "environment": describe_environment(),
        },
        "figures": dict(figures),
        "targets": {
            target: f"{figure} {sign} {limit}" for target, (figure, sign, limit) in targets.items()
        },
        "met": met,
    }
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    line = {key: record[key] for key in ("benchmark", "quick", "figures", "targets", "met")}
    print(json.dumps(line))


def _cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
