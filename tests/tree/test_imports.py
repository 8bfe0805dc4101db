"""Who may import whom: the contracts hold on our tree, and they catch planted faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORT_ALL_BLOCKED = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "mlflow", "optuna", "mien", "mien_jobs"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import mien_models
names = [m.name for m in pkgutil.walk_packages(mien_models.__path__, "mien_models.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    roots = os.pathsep.join(str(folder / root) for root in ("platform", "models", "jobs"))
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """The three packages in small, keeping every contract, with our pyproject.toml."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    files = {
        "platform/mien/__init__.py": "from mien_models import companions",
        "platform/mien/train/__init__.py": "",
        "platform/mien/train/loop.py": "from mien_models.contract import Method\nimport ray",
        "models/mien_models/__init__.py": "from mien_models import companions",
        "models/mien_models/companions.py": "",
        "models/mien_models/contract.py": "Method = 1",
        "models/mien_models/layers/__init__.py": "",
        "models/mien_models/layers/blocks.py": "",
        "jobs/mien_jobs/__init__.py": "",
        "jobs/mien_jobs/cli.py": "import mien.train.loop",
    }
    for name in independent_methods():
        package = name.replace(".", "/")
        files[f"models/{package}/__init__.py"] = ""
        files[f"models/{package}/method.py"] = "from mien_models.layers import blocks"
        files["jobs/mien_jobs/cli.py"] += f"\nimport {name}.method"
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path


def independent_methods() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(item for item in config["contracts"] if item["type"] == "independence")
    return list(contract["modules"])


def test_every_method_package_is_in_the_independence_contract() -> None:
    folders = (ROOT / "models" / "mien_models").glob("*/method.py")
    found = {f"mien_models.{path.parent.name}" for path in folders} - {"mien_models.contract"}
    assert found <= set(independent_methods())


def test_contracts_hold_on_our_tree() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout[-3000:]


def test_contracts_hold_on_the_small_tree(small_tree: Path) -> None:
    result = lint_imports(small_tree)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("models/mien_models/layers/blocks.py", "import ray", "models know neither"),
        ("models/mien_models/layers/blocks.py", "import mien.train.loop", "models know neither"),
        ("platform/mien/train/loop.py", "import mien_models.layers.blocks", "knows the contract"),
        ("platform/mien/train/loop.py", "import mien_jobs.cli", "jobs tie"),
    ],
)
def test_contracts_catch_a_planted_import(
    small_tree: Path, file: str, line: str, broken: str
) -> None:
    path = small_tree / file
    path.write_text(f"{path.read_text()}\ndef late():\n    {line}\n")
    result = lint_imports(small_tree)
    assert result.returncode == 1
    assert any(broken in text and "BROKEN" in text for text in result.stdout.splitlines()), (
        result.stdout[-3000:]
    )


def test_models_import_without_ray_mlflow_optuna() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_BLOCKED],
        cwd=ROOT / "models",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout) >= 2
