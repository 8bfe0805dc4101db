"""Where a run happened: commit, packages, device. Part of every run and every package."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import mien

PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "timm",
    "ray",
    "mlflow",
    "av",
    "numpy",
    "pyarrow",
    "safetensors",
    "opencv-python-headless",
)
"""Distributions whose version can change a result."""
PACKAGE_FACT = "mien.package."
"""What names of facts about packages start with."""
GIT_SHA_VARIABLE = "MIEN_GIT_SHA"
"""Holds the commit where the code is shipped without its repository (a cluster job)."""


def describe_environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """The facts as flat names and strings, for tags and JSON.

    Args:
        device: the device that is really used.
    """
    sha, is_dirty = git_state(Path(mien.__file__).parent)
    facts = {
        "mien.version": mien.__version__,
        "mien.git_sha": sha,
        "mien.git_dirty": {True: "true", False: "false", None: "unknown"}[is_dirty],
        "mien.device": device_name(torch.device(device)),
        "mien.python": platform.python_version(),
        "mien.platform": platform.platform(),
        "mien.cpu_count": str(os.cpu_count()),
    }
    return facts | {f"{PACKAGE_FACT}{name}": installed_version(name) for name in PACKAGES}


def device_name(device: torch.device) -> str:
    """Type and, of an accelerator, the make: ``cuda:0 (NVIDIA H200)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def installed_version(distribution: str) -> str:
    """The version of an installed package, or ``not installed``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def git_state(folder: Path) -> tuple[str, bool | None]:
    """Commit of the repository that ``folder``'s files belong to, and whether it has changes.

    A repository that only happens to lie around an installed package (``.venv`` in somebody's
    project) does not count: the folder's files must be tracked.

    Returns:
        The commit's hash and whether tracked files differ from it. ``("unknown", None)`` outside
        a repository or without git; there the variable ``MIEN_GIT_SHA`` gives the hash.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", ".")
    sha = _git(folder, "rev-parse", "HEAD") if tracked else None
    if sha is None:
        return os.environ.get(GIT_SHA_VARIABLE) or "unknown", None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", ":/")
    return sha, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not installed, which means "no repository"."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
