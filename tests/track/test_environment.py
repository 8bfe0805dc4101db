"""What a run records about where it happened, against real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import mien
from mien.track.environment import (
    describe_environment,
    device_name,
    git_state,
    installed_version,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path) -> str:
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return git(folder, "rev-parse", "HEAD")


def test_clean_and_changed_repository(tmp_path: Path) -> None:
    sha = repository(tmp_path / "clean")
    assert git_state(tmp_path / "clean") == (sha, False)
    sha = repository(tmp_path / "changed")
    (tmp_path / "changed" / "code.py").write_text("x = 2\n")
    assert git_state(tmp_path / "changed") == (sha, True)


def test_a_repository_around_an_installed_package_does_not_count(tmp_path: Path) -> None:
    repository(tmp_path / "project")
    installed = tmp_path / "project" / ".venv" / "mien"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("x = 1\n")
    assert git_state(installed) == ("unknown", None)


def test_no_repository_takes_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_GIT_SHA", "abc123")
    (tmp_path / "job").mkdir()
    assert git_state(tmp_path / "job") == ("abc123", None)


def test_facts_are_flat_strings() -> None:
    facts = describe_environment("cpu")
    assert facts["mien.version"] == mien.__version__
    assert facts["mien.device"] == "cpu"
    assert facts["mien.package.torch"] == torch.__version__
    assert all(isinstance(value, str) and value for value in facts.values())


def test_unknown_package() -> None:
    assert installed_version("no-such-distribution") == "not installed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_has_its_make() -> None:
    assert device_name(torch.device("cuda", 0)).startswith("cuda:0 (")
