"""Ray, MLflow and object storage: each one used for a moment."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mien_jobs.checks.result import Check, fail, ok, warn

_DASHBOARD_PACKAGES = ("aiohttp_cors", "opencensus", "prometheus_client")
RAY_TIMEOUT_S = 120


def check_ray_installed() -> Check:
    """Ray's version, and that its dashboard can start: Ray Train needs it to free its workers."""
    found = version("ray")
    missing = [name for name in _DASHBOARD_PACKAGES if find_spec(name) is None]
    if missing:
        return fail(
            "ray",
            f"{found} without its dashboard ({', '.join(missing)} missing)",
            "pip install -c constraints.txt 'ray[default,train,tune,data]'",
        )
    return ok("ray", f"{found} (mien doctor --ray starts it)")


_RAY_TASK = """
import sys
import ray
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000,
         log_to_driver=False, _temp_dir=sys.argv[1])
@ray.remote
def work():
    import mien, torch, torchvision
    return int(torch.arange(5).sum())
try:
    print("answer", ray.get(work.remote()))
finally:
    ray.shutdown()
"""


def check_ray_runs(timeout_s: float = RAY_TIMEOUT_S) -> Check:
    """Starts a Ray of one core in a process of its own and runs one task of ours on it."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Not the cluster that the surroundings may name: this is about this machine.
        "RAY_ADDRESS": "",
    }
    advice = (
        "see what Ray says: ray start --head --block; a short TMPDIR helps where paths are long"
    )
    with tempfile.TemporaryDirectory(prefix="md") as folder:
        command = [sys.executable, "-c", _RAY_TASK, folder]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return fail("ray task", f"no answer within {timeout_s:.0f} s", advice)
    if "answer 10" not in done.stdout:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        return fail("ray task", last, advice)
    return ok("ray task", "a local Ray started, ran a task with our packages, and stopped")


def check_mlflow() -> Check:
    """A run written to and read from a fresh SQLite store; usage statistics off."""
    with _quiet_logs(), tempfile.TemporaryDirectory(prefix="mien-doctor-") as folder:
        value = _mlflow_round_trip(Path(folder))
    found = f"{version('mlflow')}, a metric written to SQLite and read back"
    if value != 0.5:
        return fail("mlflow", f"wrote 0.5, read {value}", "pip install -c constraints.txt mlflow")
    from mlflow.telemetry.utils import is_telemetry_disabled

    if not is_telemetry_disabled():
        return warn("mlflow", f"{found}; it sends usage statistics", "export DO_NOT_TRACK=true")
    return ok("mlflow", f"{found}; usage statistics are off")


def _mlflow_round_trip(folder: Path) -> float:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("doctor", artifact_location=str(folder / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "val/uar", 0.5, step=1)
    (folder / "note.txt").write_text("x")
    client.log_artifact(run_id, str(folder / "note.txt"))
    return float(client.get_run(run_id).data.metrics["val/uar"])


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """MLflow and Alembic tell every step of making a database; none of it matters here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def check_storage(uri: str) -> Check:
    """Writes, reads and deletes one small file under a storage address."""
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme == "s3" and find_spec("s3fs") is None:
        return fail("storage", f"{uri} needs the s3 extra", "pip install 'mien[s3]'")
    try:
        what = _storage_round_trip(uri)
    except ImportError as error:
        return fail("storage", f"{uri}: {error}", f"install the fsspec driver for {scheme}://")
    except Exception as error:
        return fail("storage", f"{uri}: {type(error).__name__}: {error}", _storage_advice(scheme))
    if what:
        return fail("storage", f"{uri}: {what}", _storage_advice(scheme))
    return ok("storage", f"{uri}: wrote, read and deleted a file")


def _storage_round_trip(uri: str) -> str:
    """Empty, or what was wrong with what came back."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(uri)
    path = f"{root.rstrip('/')}/mien-doctor-{uuid.uuid4().hex}"
    content = uuid.uuid4().bytes
    # Nothing is created but the file: on S3, making a folder can mean making a bucket.
    try:
        filesystem.pipe_file(path, content)
        read = filesystem.cat_file(path)
    finally:
        if filesystem.exists(path):
            filesystem.rm_file(path)
    if read != content:
        return f"wrote {len(content)} bytes, read {len(read)} different ones"
    return "the file is still there after it was deleted" if filesystem.exists(path) else ""


def _storage_advice(scheme: str) -> str:
    if scheme == "s3":
        known = find_spec("botocore") is not None and _has_aws_credentials()
        if not known:
            return (
                "no credentials were found: export AWS_ACCESS_KEY_ID=... "
                "AWS_SECRET_ACCESS_KEY=... (and AWS_ENDPOINT_URL=... where it isn't AWS)"
            )
        return "check the bucket's name, its region, and AWS_ENDPOINT_URL where it isn't AWS"
    if scheme in ("gs", "gcs"):
        return "gcloud auth application-default login, then check the bucket's name"
    return "check that the address exists and may be written to"


def _has_aws_credentials() -> bool:
    from botocore.session import Session

    return Session().get_credentials() is not None
