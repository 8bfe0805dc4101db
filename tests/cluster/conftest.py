"""A git repository to submit from, and a Ray cluster to submit to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_cases import RayHead, git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository with a package, an ignored and an untracked file."""
    root = tmp_path / "repository"
    (root / "src").mkdir(parents=True)
    (root / "src" / "model.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("data/\nkept.txt\n")
    (root / "kept.txt").write_text("tracked although it is ignored\n")
    git(root.parent, "init", "-q", str(root))
    git(root, "add", "-f", ".")
    (root / "data").mkdir()
    (root / "data" / "clip.mp4").write_bytes(b"0" * 1000)
    (root / "notes.md").write_text("new\n")
    return root


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """One cluster for the session's job tests."""
    # Not below pytest's folder: the paths of sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="mien-ray-", ignore_cleanup_errors=True) as folder:
        head = RayHead(Path(folder))
        head.start()
        yield head
        head.stop()
