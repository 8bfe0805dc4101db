"""A small method with two stages and clips in memory, for tests of the loop alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mien.stream.batches import collate
from mien.stream.order import ClipOrder
from mien.stream.quarantine import Quarantine
from mien_models.contract import (
    ClipBatch,
    Method,
    OptimPlan,
    Prediction,
    Progress,
    Range,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)

CLASSES = ("happiness", "sadness", "anger")
SPEC = StreamSpec(batch_size=4, image_size_px=4, views=(ViewSpec(num_frames=2),))


class TinyMethod(Method):
    """A frozen-after-stage-0 trunk, dropout, and a head that stage 1 widens."""

    def __init__(self, optim: OptimPlan, epochs: int = 3) -> None:
        super().__init__()
        self.classes = CLASSES
        self._optim = optim
        self._epochs = epochs
        self.trunk = nn.Linear(2 * 3 * 4 * 4, 16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, 2)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self.seen: dict[str, int] = {}

    def stage(self, index: int) -> Stage | None:
        trainable = [("trunk.*", "head.*"), ("head.*",)]
        if index > 1:
            return None
        return Stage(
            name=("warm", "adapt")[index],
            streams={"train": SPEC},
            epochs=self._epochs,
            optim=self._optim,
            trainable=trainable[index],
            no_decay=("head.bias",),
            evaluate=index == 1,
        )

    def begin_stage(self, index: int) -> None:
        if index == 1:
            self.head = nn.Linear(16, len(CLASSES))

    def features(self, batch: ClipBatch) -> torch.Tensor:
        return torch.relu(self.trunk(batch.video_BTCHW.flatten(1).float() / 255))

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        batch = batches["train"]
        output = self.head(self.dropout(self.features(batch)))
        if progress.stage == 0:
            colours = batch.video_BTCHW.float().mean((1, 3, 4)) / 255
            loss = (output - colours[:, :2]).square().mean()
        else:
            loss = nn.functional.cross_entropy(output, batch.label_B)
        for clip_id in batch.clip_ids:
            self.seen[clip_id] = self.seen.get(clip_id, 0) + 1
        return StepOutput(loss=loss, logs={"output": output.mean().detach()})

    def after_step(self) -> None:
        self.num_updates += 1

    def predict(self, batch: ClipBatch) -> Prediction:
        features = self.features(batch)
        return Prediction(logits_BK=self.head(features), features_BD=features)

    def prediction_stream(self) -> StreamSpec:
        return SPEC

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        return {}

    def json_state(self) -> dict[str, Any]:
        return dict(self.seen)

    def load_json_state(self, state: dict[str, Any]) -> None:
        self.seen = dict(state)


class MemoryClips:
    """Clips made of class-coloured noise; the order comes from the real ``ClipOrder``."""

    def __init__(self, num: int = 18, *, rank: int = 0, world_size: int = 1) -> None:
        self.quarantine = Quarantine()
        self._rank, self._world_size = rank, world_size
        rng = np.random.default_rng(0)
        self._labels = [index % len(CLASSES) for index in range(num)]
        noise = rng.integers(0, 80, size=(num, 2, 3, 4, 4))
        for index, label in enumerate(self._labels):
            noise[index, :, label] += 120
        self._videos = noise.astype(np.uint8)

    def num_clips(self, spec: StreamSpec) -> int:
        return len(self._labels)

    def _order(self, spec: StreamSpec) -> ClipOrder:
        subjects = [-1] * len(self._labels)
        return ClipOrder(spec, labels=self._labels, subjects=subjects, seed=5)

    def steps_per_epoch(self, spec: StreamSpec) -> int:
        return self._order(spec).steps_per_epoch

    def batches(self, spec: StreamSpec, *, start_step: int, num_steps: int) -> Iterator[ClipBatch]:
        order = self._order(spec)
        share = spec.batch_size // self._world_size
        for step in range(start_step, start_step + num_steps):
            _, chosen = order.batch(step)
            yield self._batch(chosen[self._rank * share : (self._rank + 1) * share], spec)

    def scan(self, spec: StreamSpec) -> Iterator[ClipBatch]:
        mine = np.arange(self._rank, len(self._labels), self._world_size)
        for start in range(0, len(mine), spec.batch_size):
            yield self._batch(mine[start : start + spec.batch_size], spec)

    def _batch(self, chosen: np.ndarray, spec: StreamSpec) -> ClipBatch:
        rows = [
            {
                "clip_id": f"clip{index}",
                "label": self._labels[index],
                "soft_label": np.eye(3, dtype=np.float32)[self._labels[index]],
                "subject": -1,
                "seed": 0,
                "audio_frames": 0,
                "has_audio": False,
                "view0/video": self._videos[index],
                "view0/times": np.zeros(2, dtype=np.float32),
                "view0/has_face": np.ones(2, dtype=np.bool_),
            }
            for index in chosen.tolist()
        ]
        return collate(rows, spec)


@pytest.fixture
def tiny_method() -> type[TinyMethod]:
    return TinyMethod


@pytest.fixture
def memory_clips() -> type[MemoryClips]:
    return MemoryClips
