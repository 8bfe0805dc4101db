"""A model package that holds one tensor, for tests that never build the network."""

from __future__ import annotations

from pathlib import Path

import torch

from mien.clips.labels import LabelSet
from mien.infer.package import PackageInfo, save_package
from mien_models.contract import StreamSpec


def save_weight(folder: Path, *values: float) -> Path:
    """A package whose only tensor, ``weight``, holds these values."""
    info = PackageInfo(
        method="probe",
        config={},
        label_set=LabelSet(name="two", classes=("a", "b")),
        prediction_stream=StreamSpec(),
        stages_begun=0,
    )
    return save_package(folder, info, {"weight": torch.tensor(values, dtype=torch.float32)})
