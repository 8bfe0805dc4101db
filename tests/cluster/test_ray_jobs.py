"""Jobs on a real Ray cluster: submitted, followed, stopped, resumed, by its real dashboard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_cases import RayHead, git

from mien.cluster.errors import ClusterError
from mien.cluster.jobs import JobRequest
from mien.cluster.ray_jobs import RayJobs
from mien.cluster.working_tree import read_working_tree

SECRET = "wJalrXUtnFEMI-K7MDENG"


@pytest.fixture
def environment(ray_head: RayHead) -> dict[str, str]:
    """What a user's terminal has."""
    return {
        **os.environ,
        "RAY_API_SERVER_ADDRESS": ray_head.address,
        "RAY_AUTH_MODE": "disabled",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def mien(environment: dict[str, str], *arguments: str, cwd: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mien_jobs.cli", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def own_mien(repository: Path) -> Path:
    """A working tree whose own `mien_jobs` runs instead of the one that is installed."""
    package = repository / "jobs" / "mien_jobs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(
        "import os, sys, time\n"
        "import ray\n"
        "print('arguments', sys.argv[1:], os.path.exists('kept.txt'), os.path.exists('data'))\n"
        "ray.init(log_to_driver=False)\n"
        "where = ray.remote(lambda: __import__('mien_jobs').__file__)\n"
        "print('worker uses', ray.get(where.remote()), flush=True)\n"
        "if os.path.exists('wait'): time.sleep(600)\n"
        "sys.exit(3)\n"
    )
    git(repository, "add", "-f", "jobs")
    return repository


@pytest.mark.slow
def test_verb_of_the_installed_code_with_its_exit_code(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code, out, err = mien(environment, "submit", "--code", "installed", "--", "list", cwd=tmp_path)
    assert code == 0, (out, err)
    assert "rdfer" in out
    assert "succeeded" in err


@pytest.mark.slow
def test_uploaded_tree_runs_in_driver_and_workers_and_its_code_comes_back(
    environment: dict[str, str], own_mien: Path
) -> None:
    code, out, err = mien(environment, "submit", "--", "list", cwd=own_mien)
    assert code == 3, (out, err)
    assert "with exit code 3" in err
    assert "arguments ['list'] True False" in out  # tracked although ignored: there; data: not
    (line,) = [line for line in out.splitlines() if line.startswith("worker uses")]
    assert "_ray_pkg_" in line
    assert read_working_tree(own_mien, {}).content_hash in out
    assert SECRET not in out + err


@pytest.mark.slow
def test_job_is_detached_stopped_listed_and_resumed(
    environment: dict[str, str], own_mien: Path, ray_head: RayHead
) -> None:
    (own_mien / "wait").write_text("")
    git(own_mien, "add", "wait")
    code, out, err = mien(environment, "submit", "--detach", "--", "list", cwd=own_mien)
    assert code == 0, err
    job_id = next(line.split()[1] for line in out.splitlines() if line.startswith("submitted"))
    jobs = RayJobs(ray_head.address)
    wait_until(lambda: "worker uses" in "".join(jobs.logs(job_id, follow=False)))
    code, out, _ = mien(environment, "jobs", "status", job_id, cwd=own_mien)
    assert code == 0
    assert "RUNNING" in out
    with pytest.raises(ClusterError, match="is RUNNING"):
        jobs.resume(job_id, lambda: read_working_tree(own_mien, {}))
    assert mien(environment, "jobs", "stop", job_id, cwd=own_mien)[0] == 0
    wait_until(lambda: jobs.get(job_id).status == "STOPPED")
    assert mien(environment, "jobs", "status", job_id, cwd=own_mien)[0] == 143
    (own_mien / "kept.txt").write_text("other code\n")
    code, _, err = mien(environment, "jobs", "resume", job_id, cwd=own_mien)
    assert code == 2
    assert "check that commit out" in err
    (own_mien / "kept.txt").write_text("tracked although it is ignored\n")
    code, out, err = mien(environment, "jobs", "resume", job_id, cwd=own_mien)
    assert code == 0, err
    assert f"submitted {job_id}-r2" in out
    jobs.stop(f"{job_id}-r2")
    _, out, _ = mien(environment, "jobs", "list", cwd=own_mien)
    assert f"{job_id}-r2" in out
    assert SECRET not in out


@pytest.mark.slow
def test_job_does_not_start_without_its_environment(ray_head: RayHead) -> None:
    jobs = RayJobs(ray_head.address)
    name = jobs.submit(JobRequest(name="needs-a1", command=("list",), needs_env=("NO_SUCH_KEY",)))
    text = "".join(jobs.logs(name, follow=True))
    assert "NO_SUCH_KEY: must be set in the environment of the nodes" in text
    assert jobs.get(name).shell_code() != 0


def test_manifest_is_what_would_be_sent_and_holds_no_secret(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = RayJobs("http://127.0.0.1:1")
    tree = read_working_tree(repository, {})
    text = jobs.manifest(JobRequest(name="a", command=("list",), tree=tree))
    assert "entrypoint: python -m mien_jobs.cli list" in text
    assert "src/model.py" in text
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    leaking = JobRequest(name="a", command=("train", f"--x={SECRET}"), tree=tree)
    with pytest.raises(ClusterError, match="AWS_SECRET_ACCESS_KEY"):
        jobs.manifest(leaking)


def test_no_cluster_is_said_with_what_to_type() -> None:
    with pytest.raises(ClusterError, match="no Ray dashboard answers at http://127"):
        RayJobs("http://127.0.0.1:1").all()


def wait_until(is_so: object, seconds: float = 90.0) -> None:
    assert callable(is_so)
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.3)
