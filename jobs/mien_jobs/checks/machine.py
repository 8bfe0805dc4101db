"""Python, cores, memory, shared memory, disk, open files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from pathlib import Path

from mien_jobs.checks.result import GIB, Check, fail, gib, ok, warn

_CGROUP_MEMORY = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SHARED_MEMORY = Path("/dev/shm")
RAY_STORE_SHARE = 0.3
"""Share of the memory that Ray takes for its object store unless told otherwise."""


def check_python() -> Check:
    """The interpreter (packaging refuses versions that are too old)."""
    return ok("python", f"{platform.python_version()} ({sys.executable})")


def check_cores() -> Check:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    found = f"{cores} of {os.cpu_count()} usable"
    if cores < 2:
        return warn(
            "cores",
            found,
            "training needs a core besides the one that decodes: give the container --cpus=2 or "
            "more",
        )
    return ok("cores", found)


def memory_limit_bytes() -> int:
    """The machine's memory, or the container's limit where that is lower."""
    import psutil

    limit = int(psutil.virtual_memory().total)
    for path in _CGROUP_MEMORY:
        if path.exists() and (text := path.read_text().strip()).isdigit():
            limit = min(limit, int(text))
    return limit


def check_memory() -> Check:
    """Memory in all and free now."""
    import psutil

    total, available = memory_limit_bytes(), int(psutil.virtual_memory().available)
    found = f"{gib(total)}, {gib(available)} free"
    if total < 4 * GIB:
        return warn("memory", found, "the demo wants 4 GiB: give the container --memory=8g")
    if available < 2 * GIB:
        return warn("memory", found, "less than 2 GiB are free: close other programs first")
    return ok("memory", found)


def check_shared_memory(folder: Path = _SHARED_MEMORY, minimum_bytes: int = GIB) -> Check:
    """Where Ray's object store lives; Docker's default of 64 MB is too little."""
    if not folder.is_dir():
        return warn(
            "shared memory",
            f"no {folder}",
            "Ray will use a slow store on disk: mount a tmpfs there",
        )
    total = shutil.disk_usage(folder).total
    found = f"{gib(total)} in {folder}"
    if total < minimum_bytes:
        return warn(
            "shared memory",
            found,
            "start the container with: docker run --shm-size=4g ... (Kubernetes: an emptyDir "
            f"with medium Memory on {folder})",
        )
    return ok("shared memory", found)


def check_object_store(folder: Path = _SHARED_MEMORY) -> Check:
    """The store that Ray would make by default, against the shared memory that is free."""
    wanted = int(RAY_STORE_SHARE * memory_limit_bytes())
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    found = f"Ray would take {gib(wanted)}, {gib(free)} of shared memory are free"
    if free < wanted:
        return warn(
            "object store",
            found,
            f"give more shared memory, or less store: ray start --object-store-memory={free // 2}",
        )
    return ok("object store", found)


def check_disk(folder: Path) -> Check:
    """Free space where runs are written."""
    free = shutil.disk_usage(folder).free
    found = f"{gib(free)} free in {folder.resolve()}"
    if free < GIB:
        return fail("disk", found, "free some space, or work in another folder: cd FOLDER")
    if free < 5 * GIB:
        return warn("disk", found, "data, checkpoints and the tracking store may want 5 GiB")
    return ok("disk", found)


def check_open_files(minimum: int = 4096) -> Check:
    """The limit on open files; Ray keeps many sockets and files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (at most {hard})"
    if 0 <= soft < minimum:
        return warn("open files", found, "ulimit -n 65536 (docker run --ulimit nofile=65536:65536)")
    return ok("open files", found)
