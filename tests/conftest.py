"""Real clips and a real Ray for every test that wants them, made once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import settings
from s3_server import S3Server

# Small networks: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)

# How long an example takes says more of the machine than of the code.
settings.register_profile("mien", deadline=None)
if "CI" not in os.environ:  # there hypothesis has a profile of its own, which draws the same always
    settings.load_profile("mien")

CLASSES = ("happiness", "sadness", "anger")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need Ray come first: side by side with the others they take longest."""
    items.sort(key=lambda item: needs_ray(str(item.path)), reverse=True)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2``, one worker starts Ray and has all files that need it, the others take file
    after file. (xdist's own groups are lost under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class RayTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0]
            return "ray" if needs_ray(str(config.rootpath / path)) else path

    return RayTogether(config, log)


@cache
def needs_ray(path: str) -> bool:
    """Whether a file has tests that start or use a local Ray."""
    return "pytest.mark.ray" in Path(path).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def synth_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people, three classes, one short clip each: H.264 + AAC at 64 px."""
    from mien.synth import SynthSpec, write_dataset

    spec = SynthSpec(
        num_subjects=12, classes=CLASSES, size_px=64, duration_s=0.6, supersample=False, seed=3
    )
    return write_dataset(spec, tmp_path_factory.mktemp("synth"), num_workers=0)


@pytest.fixture(scope="session")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> S3Server:
    """Address and keys of the session's S3 server, whether or not it runs."""
    return S3Server(tmp_path_factory.mktemp("s3"))


@pytest.fixture(scope="session")
def running_s3(s3_settings: S3Server) -> Iterator[S3Server]:
    """A real S3 server for the whole session."""
    reason = S3Server.missing()
    if reason is not None:
        pytest.skip(reason)
    s3_settings.start()
    yield s3_settings
    s3_settings.stop()


@pytest.fixture
def s3_server(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The S3 server, with its address and keys in the environment and nothing remembered."""
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    forget_s3_clients()
    yield running_s3
    forget_s3_clients()


def forget_s3_clients() -> None:
    """fsspec keeps clients, and those keep the credentials that they were made with."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def local_ray(s3_settings: S3Server) -> Iterator[None]:
    """One Ray for the whole session, with more CPUs on paper than a small machine has.

    Its workers know the S3 server of the session.
    """
    import ray

    from mien.train.local_ray import QUIET_RAY

    # By default Ray's workers give way to everybody, so to the tests beside them.
    os.environ |= QUIET_RAY | {"RAY_worker_niceness": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_settings.environment.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=6,
            object_store_memory=300 << 20,
            include_dashboard=False,
            log_to_driver=False,
        )
    yield
    ray.shutdown()
