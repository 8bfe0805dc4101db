"""``mien doctor`` finds real faults, and says what to type."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien_jobs.checks import codecs, compute, machine, services
from mien_jobs.checks.result import Check, fail, ok, warn
from mien_jobs.verbs import doctor


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mien_jobs.cli", "doctor", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_report_has_a_line_for_each_check_and_ends_with_counts(tmp_path: Path) -> None:
    result = run_doctor("--folder", str(tmp_path), "--storage", "memory://bucket/runs")
    lines = result.stdout.splitlines()
    named = [line[6:20].strip() for line in lines if line[:5].strip() in ("ok", "warn", "fail")]
    assert named == [
        *list(doctor.CHECKS)[:6],
        "disk",
        *list(doctor.CHECKS)[6:],
        "storage",
    ]
    statuses = [line[:5].strip() for line in lines if not line.startswith(" ")][:-1]
    counts = [statuses.count(word) for word in ("ok", "warn", "fail")]
    assert lines[-1] == f"{counts[0]} ok, {counts[1]} to look at, {counts[2]} failed"
    assert result.returncode == (1 if counts[2] else 0)
    assert result.stderr == ""


def test_a_missing_folder_is_a_user_error() -> None:
    result = run_doctor("--folder", "no/such/folder")
    assert result.returncode == 2
    assert result.stderr == "error: --folder no/such/folder: there is no such folder\n"


def test_failed_check_makes_exit_code_1_and_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mien_jobs import cli

    monkeypatch.setattr(doctor, "CHECKS", {"python": "machine:check_python", "x": "none:check"})
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "fail  x              ModuleNotFoundError: No module named 'mien_jobs.checks.none'" in (
        printed
    )
    assert "-> reinstall what belongs together: pip install" in printed
    assert printed.splitlines()[-1] == "1 ok, 0 to look at, 1 failed"


def test_advice_belongs_to_what_is_not_ok() -> None:
    assert doctor.format_check(ok("disk", "much")) == "ok    disk           much"
    assert doctor.format_check(warn("disk", "little", "free some")).splitlines() == [
        "warn  disk           little",
        "                     -> free some",
    ]
    assert "\033[31mfail" in doctor.format_check(fail("a", "b", "c"), colour=True)
    with pytest.raises(ValueError, match="advice"):
        Check(name="a", status="ok", found="b", advice="c")
    with pytest.raises(ValueError, match="advice"):
        Check(name="a", status="fail", found="b")


def test_small_shared_memory_is_warned_about(tmp_path: Path) -> None:
    outcome = machine.check_shared_memory(tmp_path, minimum_bytes=1 << 60)
    assert outcome.status == "warn"
    assert "--shm-size" in outcome.advice
    assert machine.check_shared_memory(tmp_path, minimum_bytes=1).status == "ok"
    assert machine.check_shared_memory(tmp_path / "none").status == "warn"


def test_store_larger_than_shared_memory_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_limit_bytes", lambda: 1 << 60)
    outcome = machine.check_object_store(tmp_path)
    assert outcome.status == "warn"
    assert "--object-store-memory=" in outcome.advice


def test_container_limit_counts_as_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CGROUP_MEMORY", (limit,))
    limit.write_text("max\n")
    machine_bytes = machine.memory_limit_bytes()
    limit.write_text(f"{3 << 30}\n")
    assert machine_bytes > machine.memory_limit_bytes() == 3 << 30
    assert machine.check_memory().status == "warn"


def test_low_limit_on_open_files_is_warned_about() -> None:
    assert machine.check_open_files(minimum=1 << 62).advice.startswith("ulimit -n")


def test_torch_computes_on_the_device_named() -> None:
    outcome = compute.check_torch()
    if torch.cuda.is_available():
        assert "cuda (" in outcome.found
    elif not compute.nvidia_cards():
        assert outcome.status == "ok"
        assert "on the CPU" in outcome.found


def test_wrong_products_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_synchronised", lambda compute, device: compute() + 1)
    outcome = compute.check_torch()
    assert outcome.status == "fail"
    assert "wrong by 1" in outcome.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch uses the card")
def test_card_that_torch_does_not_use_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    cards = compute.nvidia_cards(tmp_path)
    assert cards == "2 NVIDIA cards"
    monkeypatch.setattr(compute, "nvidia_cards", lambda: cards)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = compute.check_torch()
    assert outcome.status == "fail"
    assert outcome.advice.startswith("unset CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    advice = compute.check_torch().advice
    assert ("CPU build" in advice) == (torch.version.cuda is None)


def test_companions_are_used_not_only_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute.check_companions().status == "ok"

    def broken() -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(compute, "_use_torchvision", broken)
    outcome = compute.check_companions()
    assert outcome.status == "fail"
    assert "torchvision::nms" in outcome.found
    assert "pip install -c constraints.txt" in outcome.advice


def test_codecs_survive_a_round_trip() -> None:
    outcome = codecs.check_codecs()
    assert outcome.status == "ok"
    for name in ("h264", "hevc", "vp9", "mpeg1video", "aac", "mp3", "mp2"):
        assert name in outcome.found


def test_codec_that_is_missing_or_damages_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    trip = codecs.VIDEO["h264"]
    missing = codecs.check_codecs({"no_such_codec": trip}, {})
    assert (missing.status, missing.found) == ("fail", "no decoder no_such_codec")
    only_read = codecs.check_codecs({"h264": replace(trip, encoder="no_such_encoder")}, {})
    assert "h264 can be read" in only_read.found
    other = codecs.check_codecs({"vp9": trip}, {})
    assert other.found == "vp9: read back by h264"
    coarse = codecs.check_codecs({"h264": replace(trip, options={"crf": "51", "qp": "51"})}, {})
    assert "damaged" in coarse.found


def test_tone_of_the_wrong_pitch_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = codecs._audio_fault("aac", codecs.AUDIO["aac"])
    assert fault == ""
    monkeypatch.setattr(codecs, "_mono", lambda frame: frame.to_ndarray()[0][::2])
    monkeypatch.setattr(codecs, "_TONE_TOLERANCE_HZ", 10.0)
    assert "samples came back" in codecs._audio_fault("aac", codecs.AUDIO["aac"])


def test_storage_is_written_read_and_cleared(tmp_path: Path) -> None:
    outcome = services.check_storage(str(tmp_path))
    assert outcome.status == "ok"
    assert list(tmp_path.iterdir()) == []
    assert services.check_storage(f"file://{tmp_path}").status == "ok"
    import fsspec

    assert services.check_storage("memory://doctor/runs").status == "ok"
    assert fsspec.filesystem("memory").find("/doctor") == []


def test_storage_that_loses_content_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, **_: b"other")
    outcome = services.check_storage("memory://doctor/runs")
    assert outcome.status == "fail"
    assert "read 5 different ones" in outcome.found


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("no/such/folder", "FileNotFoundError"),
        ("nosuch://bucket", "Protocol not known"),
        ("s3://bucket/runs", "redentials"),
    ],
)
def test_storage_that_cannot_be_used_is_a_failure(
    uri: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    outcome = services.check_storage(uri)
    assert outcome.status == "fail"
    assert words in outcome.found
    if uri.startswith("s3"):
        assert "export AWS_ACCESS_KEY_ID" in outcome.advice


def test_missing_s3_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    outcome = services.check_storage("s3://bucket/runs")
    assert outcome.advice == "pip install 'mien[s3]'"
    assert "dashboard" in services.check_ray_installed().found


def test_mlflow_round_trip_and_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.telemetry.utils

    for is_disabled, status in ((True, "ok"), (False, "warn")):
        monkeypatch.setattr(
            mlflow.telemetry.utils, "is_telemetry_disabled", lambda answer=is_disabled: answer
        )
        assert services.check_mlflow().status == status
    monkeypatch.setattr(services, "_mlflow_round_trip", lambda folder: 0.25)
    assert services.check_mlflow().found == "wrote 0.5, read 0.25"


@pytest.mark.ray
def test_ray_starts_and_runs_a_task() -> None:
    assert services.check_ray_runs().status == "ok"


@pytest.mark.ray
def test_ray_that_does_not_answer_is_a_failure() -> None:
    outcome = services.check_ray_runs(timeout_s=0.2)
    assert (outcome.status, outcome.found) == ("fail", "no answer within 0 s")
