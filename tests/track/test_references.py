"""Runs as references to models: by id, by name, by folder, with or without a stored package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from weight_package import save_weight

from mien.infer.package import PackageError, load_package, read_info
from mien.track.references import resolve
from mien.track.registry import WEIGHTS_TAG, RegistryError, register
from mien.track.tracker import Tracker, TrackerSpec, embedded_uri


def weight_of(uri: str | None, reference: str) -> float:
    return load_package(resolve(uri, reference))[1]["weight"].item()


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return embedded_uri(tmp_path_factory.mktemp("tracking"))


def start(uri: str, folder: Path, name: str) -> Tracker:
    return TrackerSpec(uri=uri, run_key=str(folder), run_name=name).open()


def test_a_run_is_its_stored_package_or_the_one_in_its_folder(uri: str, tmp_path: Path) -> None:
    registered, trained = tmp_path / "registered", tmp_path / "trained"
    first = start(uri, registered, "one that is registered")
    register(uri, first.run_id, save_weight(registered / "package", 1.0), name="faces")
    shutil.rmtree(registered)
    second = start(uri, trained, "one that is not")
    save_weight(trained / "package", 2.0)
    for run, name, weight in (
        (first, "one that is registered", 1.0),
        (second, "one that is not", 2.0),
    ):
        for reference in (run.run_id, f"runs:/{run.run_id}", f"runs:/{run.run_id}/package", name):
            assert weight_of(uri, reference) == weight
    assert weight_of(None, str(trained)) == 2.0  # a run's folder needs no MLflow


def test_another_package_in_a_run_s_folder_is_noticed(uri: str, tmp_path: Path) -> None:
    run = start(uri, tmp_path, "swapped")
    trained = read_info(save_weight(tmp_path / "package", 1.0))
    run.set_tags({WEIGHTS_TAG: trained.weights_sha256})
    assert weight_of(uri, "swapped") == 1.0
    save_weight(tmp_path / "package", 2.0)
    with pytest.raises(PackageError, match=r"not the package of run swapped \(\w+\)"):
        resolve(uri, "swapped")


def test_runs_that_can_t_be_used_say_why(uri: str, tmp_path: Path) -> None:
    early = start(uri, tmp_path / "early", "early")
    with pytest.raises(RegistryError, match=r"run early \(\w+\), RUNNING, has no package.*early"):
        resolve(uri, "early")
    start(uri, tmp_path / "again", "early")
    with pytest.raises(RegistryError, match=rf"2 runs are called 'early'.*runs:/{early.run_id}"):
        resolve(uri, "early")
    with pytest.raises(RegistryError, match="no run has the id 'abc'"):
        resolve(uri, "runs:/abc")
    save_weight(tmp_path / "package", 1.0)
    register(uri, early.run_id, tmp_path / "package", name="voices")
    with pytest.raises(RegistryError, match=r"say which version: voices@champion or voices/VERS"):
        resolve(uri, "voices")
    with pytest.raises(RegistryError, match=r"'voicse' is no folder.*models: .*voices"):
        resolve(uri, "voicse")


def test_a_wrong_name_makes_no_data_base(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="--storage FOLDER"):
        resolve(embedded_uri(tmp_path), "faces@champion")
    assert list(tmp_path.iterdir()) == []
