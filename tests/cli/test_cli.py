"""The command line as a user meets it: speed, exit codes, words."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import mien_jobs.overrides
from mien_jobs import cli
from mien_jobs.field_options import add_field_options, config_from_options, field_docs


def mien(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mien_jobs.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def children_cpu_s() -> float:
    """Processor seconds of finished child processes: unlike wall time, other load adds nothing."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys; from mien_jobs import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch','ray','mlflow','numpy','rich','av','mien'} & set(sys.modules)))"
    )
    before = children_cpu_s()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
    for verb in cli.VERBS:
        assert re.search(rf"^    {verb}\s", result.stdout, re.MULTILINE)
    assert children_cpu_s() - before < 0.3


def test_console_script_runs_this_command_line() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="mien")
    assert script.load() is cli.main


def test_version_is_the_package_s() -> None:
    import mien as package

    result = mien("--version")
    assert result.stdout.strip() == f"mien {package.__version__}"


def test_no_verb_and_a_wrong_verb_are_exit_code_2() -> None:
    assert mien().returncode == 2
    result = mien("trian")
    assert result.returncode == 2
    assert "'train'" in result.stderr


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Puts a verb ``probe`` whose ``run`` is the given function into the command line."""

    def put(run: Callable[[], int]) -> None:
        module = types.ModuleType("mien_jobs.verbs.probe")
        module.__dict__.update(add_arguments=lambda parser: None, run=lambda args: run())
        monkeypatch.setitem(sys.modules, "mien_jobs.verbs.probe", module)
        monkeypatch.setitem(cli.VERBS, "probe", ("probe", "a verb of this test"))

    return put


def refuse_override() -> int:
    mien_jobs.overrides.apply_overrides(_Settings(num_clips=1), ["num_clips=\nx"])
    return 0


def fail_inside_numpy() -> int:
    np.zeros(3).reshape(2, 2)
    return 0


def miss_a_file() -> int:
    return len(Path("no/such file").read_bytes())


def fill_the_disk() -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lose_a_connection() -> int:
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def interrupt() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (refuse_override, "error: num_clips= x: expected a whole number"),
        (miss_a_file, "error: No such file or directory: no/such file"),
        (fill_the_disk, "error: No space left on device"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(
    run: Callable[[], int],
    words: str,
    verb: Callable[[Callable[[], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(run)
    assert cli.main(["probe"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(words)
    assert printed.count("\n") == 1


@pytest.mark.parametrize("run", [fail_inside_numpy, lose_a_connection])
def test_faults_stay_tracebacks(
    run: Callable[[], int], verb: Callable[[Callable[[], int]], None]
) -> None:
    verb(run)
    with pytest.raises((ValueError, ConnectionRefusedError)):
        cli.main(["probe"])


def test_debug_variable_shows_the_traceback_of_user_errors(
    verb: Callable[[Callable[[], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_DEBUG", "1")
    verb(refuse_override)
    with pytest.raises(mien_jobs.overrides.OverrideError):
        cli.main(["probe"])


def test_interrupt_is_exit_code_130(
    verb: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(interrupt)
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_exit_code_of_the_verb_is_passed_on(verb: Callable[[Callable[[], int]], None]) -> None:
    verb(lambda: 1)
    assert cli.main(["probe"]) == 1


def test_usage_statistics_are_off_unless_asked_for(
    verb: Callable[[Callable[[], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    seen: list[str | None] = []
    verb(lambda: seen.append(os.environ.get("MLFLOW_DISABLE_TELEMETRY")) or 0)
    cli.main(["probe"])
    assert seen == ["true"]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    num_clips: int
    """How many clips, 100 % of them."""
    classes: tuple[str, ...] = ("a", "b")
    rate: float | None = None
    kind: Literal["x", "y"] = "x"
    is_loud: bool = False
    """Whether it is ``loud``."""

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ValueError("num_clips must be at least 1")


def settings_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="p")
    add_field_options(parser, _Settings)
    return parser


def test_options_come_from_fields() -> None:
    line = ["--num-clips", "3", "--classes", "c", "--rate", "0.5", "--kind", "y", "--is-loud"]
    options = settings_parser().parse_args(line)
    assert config_from_options(_Settings, options) == _Settings(
        num_clips=3, classes=("c",), rate=0.5, kind="y", is_loud=True
    )
    defaults = settings_parser().parse_args(["--num-clips", "3"])
    assert config_from_options(_Settings, defaults) == _Settings(num_clips=3)


def test_help_of_options_is_the_docstring_under_the_field() -> None:
    assert field_docs(_Settings)["is_loud"] == "Whether it is loud."
    printed = io.StringIO()
    settings_parser().print_help(printed)
    text = " ".join(printed.getvalue().split())
    assert "How many clips, 100 % of them. (required)" in text
    assert "each text (default: a,b)" in text
    assert "--is-loud, --no-is-loud Whether it is loud. (default: false)" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--num-clips", "x"], "expected a whole number, not 'x'"),
        (["--num-clips", "1", "--kind", "z"], "expected one of x, y, not 'z'"),
        ([], "--num-clips"),
    ],
)
def test_wrong_options_say_what_fits(
    line: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        settings_parser().parse_args(line)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_checks_of_the_configuration_pass_through() -> None:
    options = settings_parser().parse_args(["--num-clips", "0"])
    with pytest.raises(ValueError, match="num_clips must be at least 1"):
        config_from_options(_Settings, options)
