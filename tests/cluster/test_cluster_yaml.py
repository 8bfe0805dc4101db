"""cluster.yaml and its ssh sibling: Ray's own schema and checks, and what we promise of them."""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mien.cluster.groups import LABEL, NodeGroup

ROOT = Path(__file__).resolve().parents[2]
FILES = ("cluster.yaml", "docs/examples/cluster-ssh.yaml")


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(found, dict)
    return found


def schema() -> dict[str, Any]:
    text = resources.files("ray.autoscaler").joinpath("ray-schema.json").read_text()
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_valid_for_rays_schema(name: str) -> None:
    jsonschema.validate(read(name), schema())


def test_unknown_keys_are_refused() -> None:
    for change in ({"idle_timeout": 5}, {"max_worker": 2}):
        with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
            jsonschema.validate(read("cluster.yaml") | change, schema())
    wrong = copy.deepcopy(read("cluster.yaml"))
    wrong["available_node_types"]["decode"]["gpu"] = 1
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate(wrong, schema())


def test_node_types_are_the_groups_of_recipes() -> None:
    found = read("cluster.yaml")
    types = found["available_node_types"]
    assert found["head_node_type"] in types
    for group in ("train", "decode"):
        assert types[group]["labels"] == {LABEL: group}
        assert NodeGroup(label=group).selector == types[group]["labels"]
    assert types["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["train"]["node_config"]
    workers = sum(one.get("max_workers", 0) for one in types.values())
    assert workers == found["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_closed_to_the_world(name: str) -> None:
    found = read(name)
    (head,) = [line for line in found["head_start_ray_commands"] if "--head" in line]
    (worker,) = [line for line in found["worker_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker


def test_rays_own_checks_find_what_the_schema_does_not() -> None:
    from ray.autoscaler._private.util import validate_config

    # `ray up` fills this in on its way.
    found = read("cluster.yaml") | {"cluster_synced_files": []}
    validate_config(found)
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(found | {"head_node_type": "haed"})
