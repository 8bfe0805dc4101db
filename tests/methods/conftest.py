"""Every method at its smallest, on a few real clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mien_jobs import overrides
from mien_jobs.methods import make_recipe
from mien_jobs.recipe import DataPlan, Recipe, TrackPlan

SMALLEST = {
    "complex_fer": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.num_frames=2",
        "config.align_faces=false",
        "config.trunk.widths=[8, 12]",
        "config.trunk.grid=2",
        "config.trunk.dim=16",
        "config.head.dropout=0",
        "config.classes.first_classes=happiness",
        "config.classes.classes_per_stage=2",
        "config.basic.batch_size=4",
        "config.basic.epochs=2",
        "config.basic.steps_per_epoch=3",
        "config.later.batch_size=4",
        "config.later.epochs=2",
        "config.later.steps_per_epoch=3",
        "config.memory.per_class=3",
        "config.memory.batch_size=2",
    ],
    "clp": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.align_faces=false",
        "config.trunk.widths=[8, 12]",
        "config.trunk.grid=2",
        "config.trunk.dim=16",
        "config.pretrain.num_frames=4",
        "config.pretrain.stride_frames=2",
        "config.pretrain.projector=true",
        "config.pretrain.dim=8",
        "config.pretrain.dictionary_size=40",
        "config.pretrain.reconstruction.warmup_epochs=0",
        "config.pretrain.reconstruction.top_k=8",
        # At tiny's 0.03 the rounding in which one worker and two differ grows beyond what counts
        # as equal (9e-5 in the weights; without reconstruction 7e-7).
        "config.pretrain.reconstruction.attention_temperature=0.2",
        "config.pretrain.temporal.min_change=0",
        "config.pretrain.batch_size=6",
        "config.pretrain.epochs=2",
        "config.probe.num_frames=3",
        "config.probe.batch_size=6",
        "config.probe.epochs=1",
        "config.finetune.num_frames=3",
        "config.finetune.batch_size=6",
        "config.finetune.epochs=2",
    ],
    "dtm": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.num_frames=2",
        "config.align_faces=false",
        "config.trunk.widths=[8, 12]",
        "config.trunk.grid=2",
        "config.trunk.dim=16",
        "config.dropout=0",
        "config.unlabelled_clips=all",
        "config.losses.contrastive=0.1",
        "config.threshold.floor=0.3",
        "config.threshold.start=0.3",
        "config.batch_size=4",
        "config.epochs=2",
        "config.steps_per_epoch=6",
    ],
    "mma_dfer": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.num_frames=2",
        "config.audio.num_frames=64",
        "config.audio.num_mels=32",
        "config.align_faces=false",
        "config.encoder.dim=24",
        "config.encoder.depth=2",
        "config.encoder.num_heads=2",
        "config.fusion.width=8",
        "config.temporal.dim=24",
        "config.temporal.num_heads=2",
        "config.temporal.head_dim=12",
        "config.temporal.mlp_dim=24",
        "config.autoencoder.decoder.dim=16",
        "config.autoencoder.decoder.num_heads=2",
        "config.autoencoder.num_frames=1",
        "config.autoencoder.epochs=1",
        "config.autoencoder.batch_size=6",
        "config.epochs=2",
        "config.batch_size=6",
    ],
    "rdfer": [
        "config.image_size_px=32",
        "config.border_px=4",
        "config.num_frames=6",
        "config.synopsis_frames=4",
        "config.align_faces=false",
        "config.trunk.widths=6,8",
        "config.trunk.width=12",
        "config.long_term.hidden=8",
        "config.long_term.num_heads=2",
        "config.keys.count=2",
        "config.agreement.num_clips=3",
        "config.agreement.tau=0",
        "config.agreement.delta=0",
        "config.agreement.start=0.3",
        "config.epochs=3",
        "config.batch_size=6",
    ],
}
"""Settings that make a method's tiny profile small enough for a test of seconds."""


@pytest.fixture
def small_recipe(synth_manifest: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A method's smallest run on the shared clips, without Ray unless workers are asked for."""

    def make(name: str, *changes: str, run: str = "run", workers: int = 0) -> Recipe:
        smallest = overrides.apply_overrides(make_recipe(name, "tiny"), SMALLEST[name])
        recipe = overrides.apply_overrides(smallest, changes)
        train = replace(recipe.train, workers=workers, checkpoint_every_steps=2, log_every_steps=1)
        data = DataPlan(
            manifest=str(synth_manifest), label_set="auto", val_fraction=0.2, test_fraction=0.2
        )
        return replace(
            recipe,
            name=run,
            train=train,
            data=data,
            track=TrackPlan(uri="off"),
            storage=str(tmp_path / "runs"),
        )

    return make
