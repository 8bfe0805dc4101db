"""The same promises through a tracking server, where artifacts travel over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow_server import running_server
from weight_package import save_weight

from mien.infer.package import load_package
from mien.track.promotion import move_alias, rollback, version_of, write_verdict
from mien.track.references import resolve
from mien.track.registry import RegistryError, register
from mien.track.tracker import TrackerSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


def test_run_and_registry_through_a_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    spec = TrackerSpec(uri=server, experiment="faces", run_key="training")
    first = spec.open()
    first.log_metrics({"loss": 1.0}, 0)
    first.finish("FAILED")
    second = spec.open()
    assert second.run_id == first.run_id
    second.log_metrics({"loss": 1.0}, 0)
    second.log_metrics({"loss": 0.5}, 1)
    second.finish()

    register(server, second.run_id, save_weight(tmp_path / "package", *range(5)), name="net")
    cache = tmp_path / "cache"
    found = resolve(server, "net@champion", cache=cache)
    assert found.parent == cache
    assert torch.equal(load_package(found)[1]["weight"], torch.arange(5.0))
    assert [path.name for path in cache.iterdir()] == [found.name]

    time_of_download = found.stat().st_ctime_ns
    assert resolve(server, "net/1", cache=cache).stat().st_ctime_ns == time_of_download
    other = save_weight(tmp_path / "second", *range(5))
    register(server, first.run_id, other, name="net", alias=None)
    write_verdict(server, "net", 2, passed=True, why="gain: UAR +0.100")
    move_alias(server, "net", "champion", 2, expected=1)
    assert version_of(server, "net", "champion") == 2
    assert rollback(server, "net", "champion").after == 1
    with pytest.raises(RegistryError, match="there are: net"):
        resolve(server, "other@champion", cache=cache)
