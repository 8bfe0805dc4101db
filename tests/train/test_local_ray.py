"""A Ray that can't be started."""

from __future__ import annotations

import pytest
import ray

from mien.train.local_ray import RayUnavailableError, ray_session
from mien.train.plan import TrainPlan


def test_a_machine_too_busy_for_ray_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        # Word for word what Ray says after half a minute; it can't be made that slow on purpose.
        raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    said = "did not start on this machine.*less other work, or set RAY_ADDRESS"
    with pytest.raises(RayUnavailableError, match=said), ray_session(TrainPlan(workers=1)):
        pass
