"""Aliases that move with a reason and back again, in a real MLflow (local, and a server)."""

from __future__ import annotations

from pathlib import Path

import pytest
from weight_package import save_weight

from mien.track.mlflow_tracker import RUN_KEY_TAG, open_client
from mien.track.promotion import (
    describe_version,
    find_run,
    find_version,
    move_alias,
    rollback,
    version_of,
    write_verdict,
)
from mien.track.references import resolve
from mien.track.registry import RegisteredModel, RegistryError, register
from mien.track.tracker import TrackerSpec, embedded_uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return embedded_uri(tmp_path_factory.mktemp("tracking"))


def registered(uri: str, folder: Path, name: str, value: float) -> RegisteredModel:
    """A version without an alias; ``value`` is its only weight."""
    package = save_weight(folder / str(value), value)
    run_id = TrackerSpec(uri=uri, run_key=f"{name} {value}").open().run_id
    return register(uri, run_id, package, name=name, alias=None)


def test_three_promotions_and_back(uri: str, tmp_path: Path) -> None:
    models = [registered(uri, tmp_path, "faces", value) for value in (1.0, 2.0, 3.0)]
    assert version_of(uri, "faces", "champion") is None
    before = None
    for model in models:
        move = move_alias(uri, "faces", "champion", model.version, expected=before)
        assert (move.before, move.after) == (before, model.version)
        before = model.version
    assert resolve(uri, "faces@champion").exists()
    assert (rollback(uri, "faces", "champion").after, version_of(uri, "faces", "champion")) == (
        2,
        2,
    )
    assert rollback(uri, "faces", "champion").after == 1
    with pytest.raises(RegistryError, match="nothing to go back to"):
        rollback(uri, "faces", "champion")
    assert version_of(uri, "faces", "champion") == 1
    tags = open_client(uri).get_model_version("faces", "3").tags
    assert tags["mien.promotion"] == "rolled back"
    move_alias(uri, "faces", "champion", 3, expected=1)
    assert rollback(uri, "faces", "champion").after == 1


def test_an_alias_that_others_moved(uri: str, tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        registered(uri, tmp_path, "shared", value)
    open_client(uri).set_registered_model_alias("shared", "champion", "2")
    with pytest.raises(RegistryError, match="has moved from version 1 to 2"):
        move_alias(uri, "shared", "champion", 3, expected=1)
    assert version_of(uri, "shared", "champion") == 2
    move_alias(uri, "shared", "champion", 3, expected=2)
    assert rollback(uri, "shared", "champion").after == 2


def test_aliases_have_their_own_past(uri: str, tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        registered(uri, tmp_path, "two-aliases", value)
    move_alias(uri, "two-aliases", "champion", 1, expected=None)
    move_alias(uri, "two-aliases", "champion", 2, expected=1)
    move_alias(uri, "two-aliases", "canary", 2, expected=None)
    with pytest.raises(RegistryError, match="was canary before version 2"):
        rollback(uri, "two-aliases", "canary")
    assert rollback(uri, "two-aliases", "champion").after == 1


def test_the_reason_is_written_down(uri: str, tmp_path: Path) -> None:
    model = registered(uri, tmp_path, "reasons", 1.0)
    write_verdict(uri, "reasons", model.version, passed=False, why="slices: age = old " * 500)
    describe_version(uri, "reasons", model.version, "# Model card")
    version = open_client(uri).get_model_version("reasons", "1")
    assert version.tags["mien.promotion"] == "refused"
    assert version.tags["mien.promotion_why"].startswith("slices: age = old")
    assert version.description == "# Model card"
    assert find_version(uri, "reasons", model.weights_sha256) == 1
    assert find_version(uri, "reasons", "0" * 64) is None
    assert find_run(uri, RUN_KEY_TAG, "reasons 1.0") == version.run_id
    assert find_run(uri, RUN_KEY_TAG, "nobody's run") is None


def test_what_is_not_there(uri: str) -> None:
    assert version_of(uri, "nothing", "champion") is None
    assert find_version(uri, "nothing", "0" * 64) is None
    with pytest.raises(RegistryError, match="'nothing' has no alias 'champion'"):
        rollback(uri, "nothing", "champion")
