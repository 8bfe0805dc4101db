"""The tree that design.md promises: source roots, sizes, nothing of one machine in a file."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {"platform": "mien", "models": "mien_models", "jobs": "mien_jobs"}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 500


def committed_files(*suffixes: str) -> list[Path]:
    """Files in git's index, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / os.fsdecode(name) for name in listing.split(b"\0") if name]
    return [path for path in paths if path.is_file() and path.name.endswith(suffixes or ("",))]


def python_files() -> Iterator[Path]:
    for root in (*SOURCE_ROOTS, "tests", "benchmarks"):
        yield from sorted((ROOT / root).rglob("*.py"))


@pytest.mark.parametrize(("root", "package"), SOURCE_ROOTS.items())
def test_source_root_holds_exactly_its_package(root: str, package: str) -> None:
    folder = ROOT / root
    assert not (folder / "__init__.py").exists(), f"{root}/__init__.py would shadow a module"
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    assert packages == [package]
    loose = [path.name for path in folder.glob("*.py")]
    assert loose == []


def test_standard_platform_is_importable_from_the_checkout() -> None:
    code = "import platform, uuid; print(platform.system())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip()


def test_no_packages_among_the_tests_and_unique_module_names() -> None:
    tests = ROOT / "tests"
    assert list(tests.rglob("__init__.py")) == []
    names = [path.stem for path in tests.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_module_has_a_name_of_the_standard_library() -> None:
    # The first level only: `mien.platform` would be fine, a file that is run puts its folder first.
    standard = sys.stdlib_module_names
    roots = [ROOT / root / package for root, package in SOURCE_ROOTS.items()]
    clashes = [path for root in roots for path in root.glob("*.py") if path.stem in standard]
    assert [path for path in clashes if path.stem != "__init__"] == []


FORBIDDEN = {
    "an absolute path of one machine": re.compile(r"(?<![\w.])/(work|root|home)/\w"),
    "a temporary folder of one machine": re.compile(r"(?<![\w.])/tmp/(?!\.)\w"),
    "a package registry": re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org"),
    "the address of an index": re.compile(r"(index-url|find-links)[=\s]+(https?|file):"),
    "a link to a local file": re.compile(r"(@ |\s-f )file:"),
}


def test_patterns_find_planted_lines() -> None:
    planted = [
        "open('/work/" + "shared/x')",
        "cd /tmp/" + "h5",
        "see https://pypi." + "org/simple",
        "--index-url " + "https://host/simple",
        "mien @ " + "file:///x",
    ]
    for line in planted:
        assert any(pattern.search(line) for pattern in FORBIDDEN.values()), line
    for line in ["platform/work/x", "../shared/clips", "k8s/home/", "https://work/"]:
        assert not any(pattern.search(line) for pattern in FORBIDDEN.values()), line


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in committed_files():
        data = path.read_bytes()
        if b"\0" in data or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            for what, pattern in FORBIDDEN.items():
                if pattern.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {what}: {line.strip()[:80]}")
    assert found == []


def functions_over_the_limit(source: str, limit: int) -> list[str]:
    """Names of functions with more than ``limit`` lines, docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0]
            is_doc = isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
            doc_lines = (doc.end_lineno or 0) - doc.lineno + 1 if is_doc else 0
            if (node.end_lineno or 0) - node.lineno + 1 - doc_lines > limit:
                found.append(node.name)
    return found


def test_function_limit_counts_lines_without_the_docstring() -> None:
    source = 'def f():\n    """Says.\n\n    More.\n    """\n' + "    x = 1\n" * 3
    assert functions_over_the_limit(source, 4) == []
    assert functions_over_the_limit(source, 3) == ["f"]


def test_functions_and_files_are_short() -> None:
    found = []
    for path in python_files():
        source = path.read_text()
        name = path.relative_to(ROOT)
        if (lines := source.count("\n")) > MAX_FILE_LINES:
            found.append(f"{name}: {lines} lines, at most {MAX_FILE_LINES}")
        for function in functions_over_the_limit(source, MAX_FUNCTION_LINES):
            found.append(f"{name}: {function} has more than {MAX_FUNCTION_LINES} lines")
    assert found == []


def test_lock_pins_everything_once_and_no_local_version() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert [line for line, pin in zip(lines, pins, strict=True) if pin is None] == []
    names = [re.sub(r"[-_.]+", "-", pin[1].lower()) for pin in pins if pin]
    assert len(names) == len(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [want for group in groups for want in group]
    missing = {re.split(r"[\[<>=~! ]", want, maxsplit=1)[0].lower() for want in wanted} - set(names)
    assert missing == set()


def test_version_is_the_same_everywhere() -> None:
    source = (ROOT / "platform" / "mien" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert found is not None
    assert citation is not None
    assert found[1] == citation[1]
