"""All trials of a search train on one kind of device, at every resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mien.search.plan import Objective, SearchError, SearchPlan
from mien.search.space import Dimension, Space
from mien_jobs.methods import make_recipe
from mien_jobs.search_driver import on_one_device, open_study
from mien_jobs.searching import Search


def search_in(folder: Path, device: str = "auto") -> Search:
    recipe = make_recipe("dtm", "tiny")
    train = replace(recipe.train, device=device)
    recipe = replace(recipe, name="faces", storage=str(folder), train=train)
    space = Space((Dimension(name="optim.lr", kind="log_uniform", low=1e-4, high=1e-2),))
    plan = SearchPlan(objectives=(Objective(metric="val/uar"),), trials=2)
    return Search(recipe=recipe, space=space, plan=plan)


def device_at_start(folder: Path, *, has_gpu: bool, device: str = "auto") -> str:
    """What a driver that starts now lets its trials train on."""
    search = search_in(folder, device)
    Path(search.folder).mkdir(parents=True, exist_ok=True)
    return on_one_device(search, open_study(search), has_gpu=has_gpu).recipe.train.device


def test_the_first_start_decides(tmp_path: Path) -> None:
    assert device_at_start(tmp_path, has_gpu=False) == "cpu"
    assert device_at_start(tmp_path, has_gpu=True) == "cpu"


def test_a_search_does_not_go_on_without_its_gpus(tmp_path: Path) -> None:
    assert device_at_start(tmp_path, has_gpu=True) == "cuda"
    with pytest.raises(SearchError, match=r"'faces' have trained on GPUs.*train.device=cpu"):
        device_at_start(tmp_path, has_gpu=False)
    assert device_at_start(tmp_path, has_gpu=True) == "cuda"


def test_a_named_device_is_kept_as_it_is(tmp_path: Path) -> None:
    assert device_at_start(tmp_path, has_gpu=True, device="cpu") == "cpu"
    assert device_at_start(tmp_path, has_gpu=False) == "cpu"
