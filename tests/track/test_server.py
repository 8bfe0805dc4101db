"""The same promises through a tracking server, where artifacts travel over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow_server import MlflowServer

from mien.clips.labels import LabelSet
from mien.infer.package import PackageInfo, load_package, save_package
from mien.track.promotion import move_alias, rollback, version_of, write_verdict
from mien.track.references import resolve
from mien.track.registry import RegistryError, register
from mien.track.tracker import TrackerSpec
from mien_models.contract import StreamSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = MlflowServer(tmp_path_factory.mktemp("server"))
    running.start()
    yield running.uri
    running.stop()


def package(folder: Path) -> Path:
    info = PackageInfo(
        method="probe",
        config={},
        label_set=LabelSet(name="two", classes=("a", "b")),
        prediction_stream=StreamSpec(),
        stages_begun=0,
    )
    return save_package(folder, info, {"weight": torch.arange(5.0)})


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

    register(server, second.run_id, package(tmp_path / "package"), name="net")
    cache = tmp_path / "cache"
    found = resolve(server, "net@champion", cache=cache)
    assert found.parent == cache
    assert torch.equal(load_package(found)[1]["weight"], torch.arange(5.0))
    assert [path.name for path in cache.iterdir()] == [found.name]

    time_of_download = found.stat().st_ctime_ns
    assert resolve(server, "net/1", cache=cache).stat().st_ctime_ns == time_of_download
    register(server, first.run_id, package(tmp_path / "second"), name="net", alias=None)
    write_verdict(server, "net", 2, passed=True, why="gain: UAR +0.100")
    move_alias(server, "net", "champion", 2, expected=1)
    assert version_of(server, "net", "champion") == 2
    assert rollback(server, "net", "champion").after == 1
    with pytest.raises(RegistryError, match="there are: net"):
        resolve(server, "other@champion", cache=cache)
