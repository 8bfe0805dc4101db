"""What is uploaded: what git tracks, as it is on disk, and nothing that is secret or large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster_cases import git

from mien.cluster.errors import ClusterError
from mien.cluster.working_tree import read_working_tree


def test_tracked_files_and_nothing_else(repository: Path) -> None:
    tree = read_working_tree(repository / "src", {})
    assert [file.path for file in tree.files] == [".gitignore", "kept.txt", "src/model.py"]
    assert tree.untracked == ("notes.md",)
    assert tree.num_bytes == sum((repository / file.path).stat().st_size for file in tree.files)
    assert "notes.md" in tree.summary()
    assert "NOT uploaded" in tree.summary()
    assert tree.has("src/model.py")
    assert tree.has("src")
    assert not tree.has("data/clip.mp4")


def test_hash_is_that_of_the_contents_on_disk(repository: Path) -> None:
    before = read_working_tree(repository, {}).content_hash
    assert read_working_tree(repository, {}).content_hash == before
    os.utime(repository / "src" / "model.py", (0, 0))
    assert read_working_tree(repository, {}).content_hash == before
    (repository / "src" / "model.py").write_text("x = 2\n")  # not committed, and used all the same
    changed = read_working_tree(repository, {}).content_hash
    assert changed != before
    (repository / "src" / "model.py").rename(repository / "src" / "other.py")
    assert read_working_tree(repository, {}).content_hash not in (before, changed)


def test_staged_copy_is_the_tree(repository: Path, tmp_path: Path) -> None:
    tree = read_working_tree(repository, {})
    staged = tree.stage(tmp_path / "staged")
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert found == {file.path for file in tree.files}
    (repository / "src" / "model.py").write_text("x = 3\n")
    with pytest.raises(ClusterError, match=r"src/model\.py was changed"):
        tree.stage(tmp_path / "again")


def test_large_tree_is_refused_with_its_largest_files(repository: Path) -> None:
    (repository / "src" / "weights.bin").write_bytes(b"0" * 2_000_000)
    git(repository, "add", "-f", "src/weights.bin")
    assert read_working_tree(repository, {}, max_mb=2.1).num_bytes > 2_000_000
    with pytest.raises(ClusterError, match=r"2\.0 MB, at most 1 MB.*src/weights\.bin \(2\.0 MB\)"):
        read_working_tree(repository, {}, max_mb=1)


@pytest.mark.parametrize("name", [".env", "id_rsa", "certs/server.pem", "kubeconfig", "a/.netrc"])
def test_files_of_keys_are_refused_by_name(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("x")
    git(repository, "add", "-f", name)
    with pytest.raises(ClusterError, match="looks like a file of keys"):
        read_working_tree(repository, {})


def test_file_with_a_secret_of_this_environment_is_refused(repository: Path) -> None:
    (repository / "src" / "model.py").write_text("KEY = 'very-secret-value'\n")
    assert read_working_tree(repository, {"UNRELATED": "very-secret-value"})
    with pytest.raises(ClusterError, match=r"model\.py holds the value of \$S3_SECRET") as caught:
        read_working_tree(repository, {"S3_SECRET": "very-secret-value"})
    assert "very-secret-value" not in str(caught.value)


def test_link_out_of_the_tree_is_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (repository / "link").symlink_to(tmp_path / "outside")
    git(repository, "add", "-f", "link")
    with pytest.raises(ClusterError, match="link out of the working tree"):
        read_working_tree(repository, {})


def test_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="--code installed"):
        read_working_tree(tmp_path, {})
