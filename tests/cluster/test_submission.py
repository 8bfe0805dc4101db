"""A verb is checked here as the job would check it, and nothing is lost with a job's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.cluster.errors import ClusterError
from mien.cluster.jobs import Job, JobRequest, new_name, next_name, refuse_unended
from mien.cluster.working_tree import read_working_tree
from mien_jobs import submission
from mien_jobs.cli import main


def test_request_checks_its_environment_first() -> None:
    request = JobRequest(name="a", command=("clips", "show", "my clips"), needs_env=("A_KEY",))
    assert request.entrypoint == (
        ': "${A_KEY:?must be set in the environment of the nodes}" && '
        "exec python -m mien_jobs.cli clips show 'my clips'"
    )
    with pytest.raises(ClusterError, match="no name of an environment variable"):
        JobRequest(name="a", command=("list",), needs_env=("A; rm",))


def test_names_are_unique_dns_labels() -> None:
    names = {new_name(("train", "rdfer"), "My_Run." + "x" * 60) for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith("train-my-run-xxx") and len(name) <= 39 for name in names)
    assert next_name("train-a") == "train-a-r2"
    assert next_name("train-a-r2") == "train-a-r3"
    assert next_name("train-a-run") == "train-a-run-r2"


@pytest.mark.parametrize(
    ("status", "exit_code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
    ],
)
def test_exit_codes_follow_the_job(status: str, exit_code: int | None, expected: int) -> None:
    job = Job(id="a", status=status, command=(), exit_code=exit_code)  # type: ignore[arg-type]
    assert job.shell_code() == expected


def test_only_what_failed_is_resumed() -> None:
    refuse_unended(Job(id="a", status="FAILED", command=()))
    with pytest.raises(ClusterError, match="nothing to go on with"):
        refuse_unended(Job(id="a", status="SUCCEEDED", command=()))
    with pytest.raises(ClusterError, match="mien jobs stop a"):
        refuse_unended(Job(id="a", status="RUNNING", command=()))


def test_runs_must_outlive_the_job() -> None:
    recipe = submission.read_command(["train", "rdfer", "--data", "s3://clips/manifest.parquet"])
    assert recipe is not None
    with pytest.raises(ClusterError, match="storage=runs would be a folder of the job alone"):
        submission.refuse_lost_runs(recipe, on_kubernetes=False)
    shared = submission.read_command(["train", "rdfer", "--set", "storage=/shared/runs"])
    assert shared is not None
    submission.refuse_lost_runs(shared, on_kubernetes=False)
    with pytest.raises(ClusterError, match="name a bucket"):
        submission.refuse_lost_runs(shared, on_kubernetes=True)


def test_files_of_this_machine_are_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    tree = read_working_tree(repository, {})
    check = submission.refuse_unreachable_files
    assert check(["clips", "show", "s3://b/m.parquet", "--x", "src/model.py"], tree) == []
    assert check(["ingest", f"--data={repository}"], tree) == [str(repository)]
    for argument in ("data/clip.mp4", "data.manifest=data/clip.mp4", "./notes.md"):
        with pytest.raises(ClusterError, match="a file of this machine"):
            check(["train", argument], tree)


def test_demands_are_the_recipes_arithmetic() -> None:
    one = submission.read_command(["train", "rdfer", "--set", "train.workers=4"])
    # 4 workers x (1 + 2 decoding tasks x 1 CPU) = 12 CPUs on nodes of 8.
    (only,) = submission.demands_of(one)
    assert (only.group.label, only.least, only.most) == ("", 2, 16)
    groups = ["cluster.train.label=gpu", "cluster.train.gpus=4", "cluster.decode.label=decode"]
    settings = [*groups, "train.workers=16", "train.cpus_per_worker=3", "cluster.decode.most=9"]
    both = submission.read_command(["train", "rdfer", "--set", *settings])
    train, decode = submission.demands_of(both)
    # 16 GPUs on nodes of 4 would be 4 nodes; 48 CPUs on nodes of 8 are 6.
    assert (train.group.label, train.least, train.most) == ("gpu", 6, 16)
    assert (decode.group.label, decode.least, decode.most) == ("decode", 0, 9)
    few = submission.read_command(["train", "rdfer", "--set", *settings, "cluster.train.most=5"])
    with pytest.raises(ClusterError, match="needs 6 nodes of group 'gpu', and at most 5"):
        submission.demands_of(few)


def test_no_verb_and_no_cluster_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(submission.ADDRESS_VARIABLE, raising=False)
    assert main(["submit", "--", "jobs"]) == 2
    assert "verbs: demo, synth" in capsys.readouterr().err
    assert main(["submit", "--code", "installed", "--", "list"]) == 2
    assert "--address http://127.0.0.1:8265" in capsys.readouterr().err
    assert main(["submit", "--address", "x", "--", "train", "rdfer", "--set", "a=1"]) == 2
    assert "a=1" in capsys.readouterr().err
