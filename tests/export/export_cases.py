"""Packages to export: methods at their smallest, and one whose answers can be spoilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from mien.clips.labels import LabelSet
from mien.infer.package import PackageInfo, save_package
from mien_jobs import overrides
from mien_jobs.methods import find_method, make_recipe
from mien_models.contract import (
    ClipBatch,
    Method,
    Prediction,
    Progress,
    Range,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)

CLASSES = ("happiness", "sadness", "anger")
_SMALL_TRUNK = [
    "config.image_size_px=32",
    "config.border_px=4",
    "config.align_faces=false",
    "config.trunk.widths=[8, 12]",
    "config.trunk.grid=2",
    "config.trunk.dim=16",
]
SMALL = {
    "clp": [*_SMALL_TRUNK, "config.finetune.num_frames=3"],
    "complex_fer": [*_SMALL_TRUNK, "config.num_frames=2", "config.classes.first_classes=happiness"],
    "dtm": [*_SMALL_TRUNK, "config.num_frames=2"],
    "mma_dfer": ["config.align_faces=false"],
    "rdfer": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.align_faces=false",
        "config.num_frames=6",
        "config.synopsis_frames=4",
        "config.trunk.widths=6,8",
        "config.trunk.width=12",
        "config.long_term.hidden=8",
        "config.long_term.num_heads=2",
        "config.keys.count=2",
        "config.agreement.num_clips=3",
    ],
}
"""Changes to the tiny profiles, so that an export takes seconds."""


def write_package(name: str, folder: Path) -> Path:
    """A method with random weights after all of its stages."""
    recipe = overrides.apply_overrides(make_recipe(name, "tiny"), SMALL[name])
    torch.manual_seed(0)
    method = find_method(name).method(recipe.config, CLASSES)
    stages = 0
    while method.stage(stages) is not None:
        method.begin_stage(stages)
        stages += 1
    info = PackageInfo(
        method=name,
        config=json.loads(overrides.to_json(recipe.config)),
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=stages,
        json_state=method.json_state(),
        temperatures={"video": 1.7},
    )
    return save_package(folder / "package", info, method.state_dict())


class BrightnessMethod(Method):
    """Says how bright the three colours are; ``fault`` spoils what it says."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.classes = CLASSES
        self.fault = fault
        self.scale = torch.nn.Parameter(torch.tensor(0.01))

    def stage(self, index: int) -> Stage | None:
        return None

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        raise NotImplementedError

    def predict(self, batch: ClipBatch) -> Prediction:
        logits_BK = batch.video_BTCHW.float().mean((1, 3, 4)) * self.scale
        if self.fault == "random":
            logits_BK = logits_BK + torch.rand_like(logits_BK)
        if self.fault == "fixed_batch":
            logits_BK = logits_BK + torch.zeros(2, 3)
        if self.fault == "looks_at_times":
            logits_BK = logits_BK + batch.views[0].frame_times_BT.mean(1, keepdim=True)
        return Prediction(logits_BK=logits_BK, features_BD=logits_BK)

    def prediction_stream(self) -> StreamSpec:
        return StreamSpec(views=(ViewSpec(num_frames=4),), image_size_px=16, align_faces=False)

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        return {}


def info_of(method: Method) -> PackageInfo:
    """What a package of a method would say."""
    return PackageInfo(
        method="brightness",
        config={},
        label_set=LabelSet(name="three", classes=CLASSES),
        prediction_stream=method.prediction_stream(),
        stages_begun=0,
    )
