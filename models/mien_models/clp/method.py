"""CLP as a method: its stages, its training steps, its prediction.

Shape legend: B clips, T frames, D features, K classes, U action units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.clp.config import ClpConfig, PretrainConfig, ReadoutConfig
from mien_models.clp.model import EmbeddingNetwork, Readout, ReadoutOutput
from mien_models.clp.pretraining import Pretraining
from mien_models.clp.units import (
    UnitCounts,
    chosen_frames,
    intensity_loss,
    presence,
    presence_loss,
    weights_of,
)
from mien_models.contract import (
    ClipBatch,
    EpochNotes,
    Method,
    PictureLayer,
    Prediction,
    Progress,
    Range,
    Scan,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)
from mien_models.layers.face_trunk import picture_layer
from mien_models.layers.pretrained import check_part

StageName = Literal["pretrain", "probe", "finetune"]


class Clp(Method):
    """Pretraining on clips without labels, then action units and classes read out of the features.

    Args:
        config: all settings.
        classes: names of the classes in the order of the logits.

    Raises:
        ValueError: no class, or a trunk that is not known.
    """

    def __init__(self, config: ClpConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        if not classes:
            raise ValueError("CLP needs at least one class")
        self.config = config
        self.classes = tuple(classes)
        tells_units = config.units.weight > 0 and config.reads_out
        self.action_units = config.units.names if tells_units else ()
        self.units_present_from = config.units.present_from
        self.action_unit_calibration = config.units.calibration
        self.features_only = not config.reads_out
        self.network = EmbeddingNetwork(config)
        self.readout = Readout(
            self.network.encoder.num_features,
            num_classes=len(classes),
            num_units=len(self.action_units),
            with_intensity=config.units.intensity_weight > 0,
        )
        self.counts = UnitCounts(len(self.action_units))
        self.frame_share = 1.0
        self.pretraining: Pretraining | None = None
        if config.pretrain is not None:
            self.pretraining = Pretraining(self.network, config.pretrain)

    # Pretrained trunk

    def pretrained_parts(self) -> tuple[str, ...]:
        """The trunk, where it starts from published weights."""
        trunk = self.config.trunk
        is_fresh = trunk.name == "conv" or trunk.batch_norms == "group"
        return () if is_fresh and not trunk.given else ("trunk",)

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Loads ``trunk``: timm's tensors of the model that ``config.trunk.name`` names, or what
        :meth:`part_tensors` gave.

        Raises:
            ValueError: another part, or tensors that don't fit.
        """
        check_part(part, self.pretrained_parts(), method="CLP")
        self.network.encoder.load(tensors)
        if self.pretraining is not None:
            self.pretraining.momentum.restart(self.network)

    def part_tensors(self, part: str) -> Mapping[str, Tensor]:
        """``trunk``: what makes the features of a frame, for readouts on other data.

        Raises:
            ValueError: another part.
        """
        check_part(part, ("trunk",), method="CLP")
        return self.network.encoder.trunk.state_dict()

    # Stages

    def _stage_names(self) -> list[StageName]:
        names: tuple[StageName, ...] = ("pretrain", "probe", "finetune")
        return [name for name in names if getattr(self.config, name) is not None]

    def stage(self, index: int) -> Stage | None:
        """``pretrain``, ``probe``, ``finetune``, without those that are none."""
        names = self._stage_names()
        if index >= len(names):
            return None
        if names[index] == "pretrain":
            assert self.config.pretrain is not None
            return self._pretrain_stage(self.config.pretrain)
        readout: ReadoutConfig = getattr(self.config, names[index])
        return self._readout_stage(names[index], readout)

    def begin_stage(self, index: int) -> None:
        """Lets everything go that only pretraining needs, before labels are learnt from."""
        name = self._stage_names()[index]
        if name != "pretrain":
            self._end_pretraining()
            self.frame_share = getattr(self.config, name).frame_share

    def finish(self) -> None:
        """After a pretraining alone: keys of training people are nobody else's business."""
        if self.features_only:
            self._end_pretraining()

    def _end_pretraining(self) -> None:
        self.pretraining = None
        self.network.projector = None

    def _pretrain_stage(self, settings: PretrainConfig) -> Stage:
        query = ViewSpec(
            num_frames=settings.num_frames,
            sampling="window",
            stride_frames=settings.stride_frames,
            augmentation=settings.query_augmentation,
        )
        key = replace(query, same_frames_as=0, augmentation=settings.key_augmentation)
        return Stage(
            name="pretrain",
            streams={
                "clips": StreamSpec(
                    labelled=None,
                    subject_cap=settings.subject_cap,
                    batch_size=settings.batch_size,
                    views=(query, key),
                    image_size_px=self.config.image_size_px,
                    align_faces=self.config.align_faces,
                )
            },
            epochs=settings.epochs,
            optim=settings.optim,
            trainable=("network.*",),
            no_decay=self._vectors("network."),
            steps_per_epoch=settings.steps_per_epoch,
            evaluate=False,
        )

    def _readout_stage(self, name: StageName, settings: ReadoutConfig) -> Stage:
        parts = ["readout.norm.*"]
        parts += ["readout.classes.*"] if self.config.expression_weight > 0 else []
        parts += ["readout.units.*"] if self.action_units else []
        parts += ["readout.intensity.*"] if self.readout.intensity is not None else []
        parts += ["network.encoder.*"] if name == "finetune" else []
        prefixes = ("network.", "readout.") if name == "finetune" else ("readout.",)
        return Stage(
            name=name,
            streams={"clips": self._labelled_stream(settings)},
            epochs=settings.epochs,
            optim=settings.optim,
            trainable=tuple(parts),
            no_decay=self._vectors(*prefixes),
            steps_per_epoch=settings.steps_per_epoch,
        )

    def _labelled_stream(self, settings: ReadoutConfig) -> StreamSpec:
        view = ViewSpec(
            num_frames=settings.num_frames,
            sampling=settings.sampling,
            augmentation=settings.augmentation,
        )
        return StreamSpec(
            # Clips without a class may have action units.
            labelled=None if self.action_units else True,
            clip_share=settings.clip_share,
            batch_size=settings.batch_size,
            views=(view,),
            image_size_px=self.config.image_size_px,
            align_faces=self.config.align_faces,
            action_units=self.action_units,
        )

    def _vectors(self, *prefixes: str) -> tuple[str, ...]:
        """Biases and norms below the prefixes, which are not decayed."""
        return tuple(
            name for name, p in self.named_parameters() if p.ndim < 2 and name.startswith(prefixes)
        )

    def prediction_stream(self) -> StreamSpec:
        """One look at the centres of equal segments, with the units that are known there."""
        last = self.config.last_stage
        return StreamSpec(
            labelled=None,
            batch_size=last.batch_size,
            views=(ViewSpec(num_frames=last.num_frames),),
            image_size_px=self.config.image_size_px,
            align_faces=self.config.align_faces,
            action_units=self.action_units,
        )

    # Training

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Losses of one step of the current stage."""
        batch = batches["clips"]
        if self.pretraining is not None:
            return self.pretraining(self.network, batch, progress.epoch)  # type: ignore[no-any-return]
        return self._readout_step(batch)

    def _readout_step(self, batch: ClipBatch) -> StepOutput:
        found = self._read_out(batch)[0]
        parts: dict[str, Tensor] = {}
        if self.config.expression_weight > 0:
            log_probability_BK = F.log_softmax(found.class_logits_BK.float(), dim=1)
            # Rows of clips without a class are zero.
            lost_B = -(batch.soft_label_BK * log_probability_BK).sum(dim=1)
            parts["expression_loss"] = self.config.expression_weight * lost_B.mean()
        if self.action_units:
            parts |= self._unit_losses(found, batch)
        logs = {name: part.detach() for name, part in parts.items()}
        return StepOutput(loss=torch.stack(list(parts.values())).sum(), logs=logs)

    def _unit_losses(self, found: ReadoutOutput, batch: ClipBatch) -> dict[str, Tensor]:
        settings = self.config.units
        intensity_BTU = self._usable_codes(batch)
        present_BTU = presence(intensity_BTU, settings.present_from)
        self.counts.add(present_BTU)
        weight_U, present_weight_U = weights_of(self.counts.rate_U, settings)
        assert found.unit_logits_BTU is not None
        lost_B = presence_loss(found.unit_logits_BTU, present_BTU, weight_U, present_weight_U)
        parts = {"unit_loss": settings.weight * lost_B.mean()}
        if found.intensity_BTU is not None:
            lost_B = intensity_loss(found.intensity_BTU, intensity_BTU)
            parts["intensity_loss"] = settings.intensity_weight * lost_B.mean()
        return parts

    def _usable_codes(self, batch: ClipBatch) -> Tensor:
        """Intensities [B, T, U] to learn from, NaN elsewhere."""
        assert batch.action_units_BTU is not None
        view = batch.views[0]
        # Without a face there is nothing to see of what was coded.
        usable_BT = view.has_face_BT
        if self.frame_share < 1:
            usable_BT = usable_BT & chosen_frames(
                batch.clip_ids, view.frame_times_BT, self.frame_share
            )
        return batch.action_units_BTU.masked_fill(~usable_BT[..., None], torch.nan)

    def _read_out(self, batch: ClipBatch) -> tuple[ReadoutOutput, Tensor]:
        """What is read out of the first view, and the features [B, T, D] that it is read from."""
        view = batch.views[0]
        features_BTD = self.network.encoder(view.video_BTCHW, view.has_face_BT)
        return self.readout(features_BTD, view.has_face_BT), features_BTD

    def after_step(self) -> None:
        """Moves the momentum encoder and fills the dictionary, while there are any."""
        if self.pretraining is not None:
            self.pretraining.after_step(self.network)

    def end_epoch(self, scan: Scan) -> EpochNotes | None:
        """What the monitors saw of a pretraining's epoch; of a readout's, how often units are
        present.

        Raises:
            CollapsedError: the pretraining is dead.
        """
        if self.pretraining is not None:
            return self.pretraining.end_epoch()
        rates = dict(zip(self.action_units, self.counts.rate_U.tolist(), strict=True))
        return EpochNotes(logs={f"present/{name}": rate for name, rate in rates.items()})

    # Prediction

    def predict(self, batch: ClipBatch) -> Prediction:
        """Class logits of the clip, action units and features of each frame."""
        found, features_BTD = self._read_out(batch)
        return Prediction(
            logits_BK=found.class_logits_BK,
            features_BD=found.clip_BD,
            frame_features_BTD=features_BTD,
            action_unit_logits_BTU=found.unit_logits_BTU,
            action_unit_intensity_BTU=found.intensity_BTU,
        )

    def picture_layer(self) -> PictureLayer:
        """The trunk's last map."""
        return picture_layer(self.network.encoder.trunk, border_px=self.config.border_px)

    # Search

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        """Margin, window, dictionary, temperatures, lambda and the settings most worth tuning."""
        return {
            "pretrain.temporal.margin": Range(kind="choice", choices=(0.05, 0.1, 0.2, 0.3)),
            "pretrain.temporal.margin_grows": Range(kind="choice", choices=(True, False)),
            "pretrain.temporal.form": Range(kind="choice", choices=("hinge", "infonce")),
            "pretrain.temporal.window": Range(kind="choice", choices=(0, 1, 2)),
            "pretrain.num_frames": Range(kind="choice", choices=(4, 8, 16)),
            "pretrain.stride_frames": Range(kind="choice", choices=(1, 2, 4, 8)),
            "pretrain.dictionary_size": Range(kind="choice", choices=(1024, 4096, 16384, 65536)),
            "pretrain.reconstruction.temperature": Range(
                kind="choice", choices=(0.05, 0.07, 0.1, 0.2)
            ),
            "pretrain.reconstruction.attention_temperature": Range(
                kind="choice", choices=(0.03, 0.05, 0.07, 0.1)
            ),
            "pretrain.reconstruction.top_k": Range(kind="choice", choices=(None, 16, 64)),
            "pretrain.reconstruction.weight": Range(kind="choice", choices=(0.1, 0.5, 1.0, 2.0)),
            "pretrain.instance_weight": Range(kind="choice", choices=(0.0, 0.2, 0.5, 1.0)),
            "pretrain.momentum": Range(kind="choice", choices=(0.99, 0.996, 0.999)),
            "pretrain.dim": Range(kind="choice", choices=(64, 128, 256)),
            "pretrain.optim.lr": Range(kind="log_uniform", low=1e-4, high=1e-1),
        }
