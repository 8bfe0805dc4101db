"""The files that a job takes along: what git tracks, as it is on disk, listed, hashed, limited."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mien.cluster.errors import ClusterError
from mien.cluster.leaks import looks_secret, secrets_in

MAX_UPLOAD_MB = 64
"""Code is small; what is larger is data, and data belong on storage that the cluster reaches."""
_PACKAGES = ("platform/mien", "models/mien_models", "jobs/mien_jobs")
"""Where a checkout of Mien has its packages; each is importable on the cluster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeFile:
    """One file of the tree."""

    path: str
    """Below the tree's root, with ``/``."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingTree:
    """Files below a root, and what they hold."""

    root: Path
    files: tuple[TreeFile, ...]
    """Sorted by path."""
    untracked: tuple[str, ...]
    """Files that git neither tracks nor ignores: they are not taken along."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def content_hash(self) -> str:
        """Names the tree: the same files with the same contents, the same hash."""
        lines = "".join(f"{file.sha256} {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def has(self, path: str) -> bool:
        """Whether a file, or a folder with files, is among them."""
        name = os.path.normpath(path)
        return any(file.path == name or file.path.startswith(f"{name}/") for file in self.files)

    def packages(self) -> list[str]:
        """Mien's own packages in this tree."""
        return [name for name in _PACKAGES if self.has(f"{name}/__init__.py")]

    def stage(self, folder: Path) -> Path:
        """Copies the files below a new folder, and checks that they are still those listed.

        Raises:
            ClusterError: a file was changed meanwhile.
        """
        for file in self.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file.path, target)
            if _sha256(target.read_bytes()) != file.sha256:
                raise ClusterError(f"{file.path} was changed while it was copied; submit again")
        return folder

    def summary(self) -> str:
        """What is uploaded, a line for each top folder, and what is not."""
        folders: dict[str, list[int]] = {}
        for file in self.files:
            top = file.path.split("/", 1)[0] + "/" if "/" in file.path else "./"
            folders.setdefault(top, []).append(file.num_bytes)
        lines = [
            f"working tree {self.content_hash} of {self.root}: {len(self.files)} files, "
            f"{self.num_bytes / 1e6:.2f} MB"
        ]
        lines += [
            f"  {name:<20} {len(sizes):>5} files {sum(sizes) / 1e3:>9.1f} kB"
            for name, sizes in sorted(folders.items())
        ]
        if self.untracked:
            names = ", ".join(self.untracked[:5]) + (", ..." if len(self.untracked) > 5 else "")
            lines.append(f"  NOT uploaded, as git does not track them (git add): {names}")
        return "\n".join(lines)

    def listing(self) -> str:
        """Every file with its size."""
        return "\n".join(f"  {file.num_bytes:>10}  {file.path}" for file in self.files)


def read_working_tree(
    folder: Path, environ: Mapping[str, str], *, max_mb: float = MAX_UPLOAD_MB
) -> WorkingTree:
    """The working tree of the git repository around a folder.

    Args:
        folder: somewhere in a repository.
        environ: whose secrets must not be in any file.
        max_mb: the most that may be uploaded, in MB.

    Raises:
        ClusterError: no repository, too much, a link out of the tree, or a file with a secret.
    """
    root = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
    paths = [path for path in _listed(root, "--cached") if os.path.lexists(root / path)]
    _refuse_large([(path, (root / path).stat().st_size) for path in paths], max_mb)
    files = tuple(_read(root, path, environ) for path in paths)
    untracked = tuple(_listed(root, "--others", "--exclude-standard"))
    return WorkingTree(root=root, files=files, untracked=untracked)


def _read(root: Path, path: str, environ: Mapping[str, str]) -> TreeFile:
    file = root / path
    if not file.resolve().is_relative_to(root.resolve()):
        raise ClusterError(f"{path} is a link out of the working tree; put a copy in its place")
    if not file.is_file():
        raise ClusterError(f"{path} is no file (a submodule?); such trees can't be uploaded")
    if looks_secret(path):
        raise ClusterError(
            f"{path} looks like a file of keys and would be uploaded: `git rm --cached {path}` "
            "and name it in .gitignore"
        )
    data = file.read_bytes()
    if found := secrets_in(data, environ):
        raise ClusterError(f"{path} holds the value of ${found[0]} and would be uploaded")
    return TreeFile(path=path, num_bytes=len(data), sha256=_sha256(data))


def _refuse_large(sizes: list[tuple[str, int]], max_mb: float) -> None:
    total = sum(size for _, size in sizes)
    if total <= max_mb * 1e6:
        return
    largest = sorted(sizes, key=lambda item: -item[1])[:5]
    raise ClusterError(
        f"the working tree has {total / 1e6:.1f} MB, at most {max_mb:g} MB are uploaded. Its "
        "largest files: "
        + ", ".join(f"{path} ({size / 1e6:.1f} MB)" for path, size in largest)
        + ". Keep data on storage that the cluster reaches, or allow more with --max-upload-mb"
    )


def _listed(root: Path, *options: str) -> list[str]:
    names = _git(root, "ls-files", "-z", *options).split("\0")
    return sorted({name for name in names if name})


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise ClusterError(
            "git is not installed, so it can't be said what belongs to the working tree; install "
            "it, or use the Mien that the cluster has: --code installed"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ClusterError(
            f"{folder} is not in a git repository ({error.stderr.strip()}), so it can't be said "
            "what to upload; submit from a repository, or use the Mien that the cluster has: "
            "--code installed"
        ) from error
    return done.stdout


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
