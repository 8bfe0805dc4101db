"""Continual learning of compound expressions as a method: stages, training step, memory.

Shape legend: B clips, S classes learnt so far, K classes, D features, E basic expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from mien_models.complex_fer.compounds import is_compound
from mien_models.complex_fer.config import ComplexFerConfig, PhaseConfig
from mien_models.complex_fer.distillation import clip_weights, distillation_loss
from mien_models.complex_fer.memory import ReplayMemory
from mien_models.complex_fer.model import (
    NOT_LEARNT,
    CompoundNetwork,
    MultiLabelHead,
    NearestMean,
    Reading,
    batch_norms,
)
from mien_models.complex_fer.scanning import collect_candidates, count_confusions, read_clips
from mien_models.complex_fer.schedule import Phase, make_schedule
from mien_models.contract import (
    ClipBatch,
    EpochNotes,
    JsonState,
    Method,
    PictureLayer,
    Prediction,
    Progress,
    Range,
    Scan,
    Stage,
    StageReport,
    StepOutput,
    StreamSpec,
    ViewSpec,
)
from mien_models.layers.face_trunk import picture_layer
from mien_models.layers.frozen_copy import FrozenCopy
from mien_models.layers.pretrained import check_part

_SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")
"""Looked at when a stage ends, for the report alone."""


class ComplexFer(Method):
    """Basic expressions first, then compound ones stage by stage, without forgetting.

    Args:
        config: all settings.
        classes: names of the classes in the order of the logits.

    Raises:
        ValueError: settings that don't fit the classes.
    """

    def __init__(self, config: ComplexFerConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.classes = tuple(classes)
        self.schedule = make_schedule(config, classes)
        to_learn = [name for phase in self.schedule if phase.is_new for name in phase.classes]
        self.network = CompoundNetwork(config, to_learn)
        self.memory = ReplayMemory(config.memory)
        self.nearest: NearestMean | None = None
        if config.classifier == "nearest_mean":
            scale = config.head.cosine_scale
            self.nearest = NearestMean(self.network.feature_dim, scale)
        self.basic_teacher: FrozenCopy | None = None
        self.previous_teacher: FrozenCopy | None = None
        # Set by begin_stage, which is called for every stage begun when a checkpoint is loaded.
        self._phase: Phase | None = None
        self._reports: tuple[StageReport, ...] = ()
        self._has_ended = False
        self._is_complete = False
        places_K = torch.full((len(classes),), -1, dtype=torch.int64)
        self.register_buffer("place_K", places_K, persistent=False)

    place_K: Tensor
    """Where a class stands among those learnt so far; -1: it is not learnt."""

    @property
    def learnt(self) -> tuple[str, ...]:
        """Classes of the stages begun so far, in the order of learning."""
        return self.network.head.names

    # Pretrained trunk

    def pretrained_parts(self) -> tuple[str, ...]:
        """The trunk, unless it is the small one that is learnt."""
        return () if self.config.trunk.name == "conv" else ("trunk",)

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Loads ``trunk``: timm's tensors of the model that ``config.trunk.name`` names.

        Raises:
            ValueError: another part, or tensors that don't fit.
        """
        check_part(part, self.pretrained_parts(), method="complex_fer")
        self.network.load_trunk(tensors)

    # Stages

    def stage(self, index: int) -> Stage | None:
        """The first classes (after a warm-up of the head, if wanted), then the later ones."""
        if index >= len(self.schedule):
            return None
        phase = self.schedule[index]
        plan = self._plan_of(phase)
        is_uniform = self.config.class_uniform or phase.kind == "later"
        new = replace(
            self._stream(plan.batch_size),
            labels=phase.classes,
            sampler="class_uniform" if is_uniform else "plain",
        )
        streams = {"new": new}
        if phase.kind == "later" and len(self.memory):
            streams["replay"] = replace(
                self._stream(self.config.memory.batch_size),
                clip_ids=self.memory.clip_ids,
                sampler="class_uniform",
            )
        return Stage(
            name=phase.name,
            streams=streams,
            epochs=plan.epochs,
            optim=plan.optim,
            trainable=self._trainable(plan, phase),
            no_decay=("network.*.bias",),
            steps_per_epoch=plan.steps_per_epoch,
        )

    def _plan_of(self, phase: Phase) -> PhaseConfig:
        plan: PhaseConfig = getattr(self.config, phase.kind)
        return plan

    def _stream(self, batch_size: int) -> StreamSpec:
        config = self.config
        view = ViewSpec(
            num_frames=config.num_frames,
            sampling="random_segments",
            augmentation=config.augmentation,
        )
        return StreamSpec(
            labelled=True,
            batch_size=batch_size,
            views=(view,),
            image_size_px=config.image_size_px,
            align_faces=config.align_faces,
        )

    def _trainable(self, plan: PhaseConfig, phase: Phase) -> tuple[str, ...]:
        """Patterns of the head and the exact names of what trains of the trunk."""
        names = [name for name, _ in self.network.trunk.named_parameters()]
        for pattern in plan.trunk:
            if not any(fnmatchcase(name, pattern) for name in names):
                known = sorted({".".join(name.split(".")[:2]) for name in names})
                raise ValueError(
                    f"{phase.kind}.trunk: pattern {pattern!r} matches no parameter of the trunk "
                    f"{self.config.trunk.name}; its parts are {', '.join(known)}"
                )
        frozen = self._frozen_norm_names() if self._is_norm_frozen(phase) else set()
        chosen = [
            f"network.trunk.{name}"
            for name in names
            if name not in frozen and any(fnmatchcase(name, pattern) for pattern in plan.trunk)
        ]
        body = ("network.body.*",) if self.config.head.hidden else ()
        # Asked for before the stage begins, when the head may have no rows yet.
        return (*chosen, *body, "network.head.*")

    def _is_norm_frozen(self, phase: Phase | None) -> bool:
        mode = self.config.batch_norm
        is_later = phase is not None and phase.kind == "later"
        return mode == "frozen" or (mode == "frozen_later" and is_later)

    def _frozen_norm_names(self) -> set[str]:
        norms = set(batch_norms(self.network.trunk))
        return {
            f"{module_name}.{name}"
            for module_name, module in self.network.trunk.named_modules()
            if module in norms
            for name, _ in module.named_parameters(recurse=False)
        }

    def begin_stage(self, index: int) -> None:
        """Keeps the network as it is as a teacher, then widens the head."""
        phase = self._phase = self.schedule[index]
        self._has_ended = phase.name in [report.stage for report in self._reports]
        if phase.kind == "later" and not self._is_complete:
            self._keep_teachers(phase)
        if phase.is_new:
            self.network.head.grow(phase.classes)
            self.network.head.to(self.place_K.device)
            if self.nearest is not None:
                self.nearest.grow(len(phase.classes))
        for place, name in enumerate(self.learnt):
            self.place_K[self.classes.index(name)] = place

    def _keep_teachers(self, phase: Phase) -> None:
        wanted = self.config.distillation
        if wanted.teachers == "none" or wanted.weight == 0:
            return
        if wanted.teachers != "previous" and phase.later_index == 0:
            self.basic_teacher = FrozenCopy(self.network)
        if wanted.teachers in ("previous", "both"):
            self.previous_teacher = FrozenCopy(self.network)

    def train(self, mode: bool = True) -> Self:
        """Batch norms that are frozen use their running statistics in training too."""
        super().train(mode)
        if mode and self._is_norm_frozen(self._phase):
            for module in batch_norms(self.network):
                module.eval()
        return self

    # Training

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Cross-entropy on new and remembered clips, distillation from earlier networks."""
        assert self._phase is not None, "begin_stage comes first"
        parts = [batches["new"], *([batches["replay"]] if "replay" in batches else [])]
        video = torch.cat([part.views[0].video_BTCHW for part in parts])
        has_face = torch.cat([part.views[0].has_face_BT for part in parts])
        label_B = torch.cat([part.label_B for part in parts])
        place_B = self.place_K[label_B]
        reading: Reading = self.network(video, has_face)
        weight_B = self._weights(parts).to(place_B.device)
        class_loss = (weight_B * self._class_losses(reading, place_B)).sum()
        hit_B = (reading.logits_BS.argmax(dim=1) == place_B).float()
        logs = {"class_loss": class_loss.detach(), "accuracy": hit_B.mean()}
        gamma = self._distillation_weight()
        if gamma == 0:
            return StepOutput(loss=class_loss, logs=logs)
        kept = (weight_B * self._distillation(reading, video, has_face)).sum()
        logs["distillation"] = kept.detach()
        return StepOutput(loss=(1.0 - gamma) * class_loss + gamma * kept, logs=logs)

    def _weights(self, parts: list[ClipBatch]) -> Tensor:
        assert self._phase is not None
        return clip_weights(
            len(parts[0]),
            len(parts[1]) if len(parts) > 1 else 0,
            new_classes=len(self._phase.classes),
            old_classes=len(self.memory.class_names),
            balance=self.config.balance,
        )

    def _class_losses(self, reading: Reading, place_B: Tensor) -> Tensor:
        """[B] cross-entropy, or the binary one over basic expressions."""
        head = self.network.head
        if isinstance(head, MultiLabelHead):
            assert reading.emotions_BE is not None
            target_BE = head.parts_SE[place_B]
            return F.binary_cross_entropy_with_logits(
                reading.emotions_BE.float(), target_BE, reduction="none"
            ).sum(dim=1)
        return F.cross_entropy(reading.logits_BS.float(), place_B, reduction="none")

    def _distillation_weight(self) -> float:
        assert self._phase is not None
        if self.basic_teacher is None and self.previous_teacher is None:
            return 0.0
        return self.config.distillation.weight_at(self._phase.later_index)

    def _distillation(self, reading: Reading, video: Tensor, has_face: Tensor) -> Tensor:
        with torch.no_grad():
            taught = [
                None if teacher is None else teacher(video, has_face).logits_BS
                for teacher in (self.basic_teacher, self.previous_teacher)
            ]
        return distillation_loss(
            self.config.distillation, reading.logits_BS, basic_BR=taught[0], previous_BR=taught[1]
        )

    def end_stage(self, scan: Scan) -> EpochNotes | None:
        """Remembers clips of the new classes, cuts the memory to its budget, counts what is known.

        Teachers are given up after the last stage: nothing learns from them any more.
        """
        assert self._phase is not None
        if self._phase.kind == "warm_up":
            return None
        self.network.eval()
        self._remember(scan)
        self._find_means(scan)
        self._has_ended = True
        self._reports += (self._report(scan),)
        self._is_complete = self._phase is self.schedule[-1]
        if self._is_complete:
            self.basic_teacher = self.previous_teacher = None
        return self._notes()

    def _remember(self, scan: Scan) -> None:
        assert self._phase is not None
        if self.config.memory.budget != "none":
            spec = replace(self.prediction_stream().for_prediction("train"), labelled=True)
            for name in self._phase.classes:
                batches = scan(replace(spec, labels=(name,)))
                place = self.learnt.index(name)
                clips = collect_candidates(self.network, batches, place, self.place_K.device)
                self.memory.remember(name, clips, self._phase.name)
        self.memory.cut(len(self.learnt))

    def _find_means(self, scan: Scan) -> None:
        if self.nearest is None:
            return
        spec = replace(self.prediction_stream().for_prediction("train"), labelled=True)
        self.nearest.means_SD.zero_()
        for place, name in enumerate(self.learnt):
            ids = tuple(exemplar.clip_id for exemplar in self.memory.of_class(name))
            batches = scan(replace(spec, labels=(name,), clip_ids=ids))
            clips = collect_candidates(self.network, batches, place, self.place_K.device)
            if clips.clip_ids:
                self.nearest.fill(place, clips.features_ND)

    def _report(self, scan: Scan) -> StageReport:
        assert self._phase is not None
        confusions: dict[str, tuple[tuple[int, ...], ...]] = {}
        for split in _SPLITS:
            spec = self.prediction_stream().for_prediction(split)
            spec = replace(spec, labelled=True, labels=self.learnt)
            confusions[split] = count_confusions(self._answer, scan(spec), self.place_K)
        return StageReport(
            stage=self._phase.name, new_classes=self._phase.classes, confusions=confusions
        )

    def _notes(self) -> EpochNotes:
        """Mean recall over groups of the classes learnt so far, on the validation split."""
        assert self._phase is not None
        counts_SS = torch.tensor(self._reports[-1].confusions["val"], dtype=torch.float64)
        support_S = counts_SS.sum(dim=1)
        groups = {
            "learnt": [True] * len(self.learnt),
            "new": [name in self._phase.classes for name in self.learnt],
            "old": [name not in self._phase.classes for name in self.learnt],
            "basic": [not is_compound(name) for name in self.learnt],
            "compound": [is_compound(name) for name in self.learnt],
        }
        logs = {"memory_clips": float(len(self.memory))}
        for group, members in groups.items():
            chosen_S = torch.tensor(members) & (support_S > 0)
            if chosen_S.any():
                recall_S = counts_SS.diagonal()[chosen_S] / support_S[chosen_S]
                logs[f"val_recall/{group}"] = float(recall_S.mean())
        return EpochNotes(logs=logs)

    def stage_reports(self) -> tuple[StageReport, ...]:
        """Of every stage that ended but the warm-up."""
        return self._reports

    # Prediction

    def prediction_stream(self) -> StreamSpec:
        """One look at the centres of equal segments."""
        view = ViewSpec(num_frames=self.config.num_frames)
        return replace(self._stream(self.config.basic.batch_size), labelled=None, views=(view,))

    def _decide(self, reading: Reading) -> Tensor:
        """Logits [B, S] of whatever answers."""
        if self.nearest is None or not self._has_ended:
            return reading.logits_BS
        logits_BS: Tensor = self.nearest(reading.features_BD)
        return logits_BS

    def _answer(self, batch: ClipBatch) -> Tensor:
        return self._decide(read_clips(self.network, batch))

    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits [B, K] (classes not learnt yet: ``NOT_LEARNT``) and features [B, D]."""
        reading = read_clips(self.network, batch)
        # The last column stands for every class that is not learnt: index -1.
        padded_BS = F.pad(self._decide(reading), (0, 1), value=NOT_LEARNT)
        place_K = torch.where(self.place_K < 0, padded_BS.shape[1] - 1, self.place_K)
        return Prediction(
            logits_BK=padded_BS.index_select(1, place_K), features_BD=reading.features_BD
        )

    def picture_layer(self) -> PictureLayer:
        """The trunk's last map."""
        return picture_layer(self.network.trunk, border_px=self.config.border_px)

    # State keyed by clip

    def json_state(self) -> JsonState:
        """The memory, and what was counted when stages ended."""
        return {
            "memory": self.memory.to_json(),
            "reports": [
                {
                    "stage": report.stage,
                    "new_classes": list(report.new_classes),
                    "confusions": {
                        split: [list(row) for row in rows]
                        for split, rows in report.confusions.items()
                    },
                }
                for report in self._reports
            ],
            "is_complete": self._is_complete,
        }

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`."""
        self.memory.load_json(state["memory"])
        self._is_complete = bool(state["is_complete"])
        self._reports = tuple(
            StageReport(
                stage=one["stage"],
                new_classes=tuple(one["new_classes"]),
                confusions={
                    split: tuple(tuple(row) for row in rows)
                    for split, rows in one["confusions"].items()
                },
            )
            for one in state["reports"]
        )

    # Search

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        """Distillation, memory, what is frozen, learning rates."""
        teachers = ("basic_padded", "basic", "previous", "both")
        taught = ("distillation.teachers", teachers)
        return {
            "distillation.teachers": Range(kind="choice", choices=("none", *teachers)),
            "distillation.weight": Range(kind="uniform", low=0.0, high=0.9, only_if=taught),
            "distillation.decay_stages": Range(
                kind="choice", choices=(None, 2.0, 3.718, 8.0), only_if=taught
            ),
            "distillation.temperature": Range(
                kind="choice", choices=(1.0, 2.0, 3.0, 5.0, 10.0), only_if=taught
            ),
            "distillation.scale_by_square": Range(
                kind="choice", choices=(False, True), only_if=taught
            ),
            "memory.per_class": Range(kind="choice", choices=(5, 8, 10, 20, 40, 62, 100)),
            "memory.selector": Range(
                kind="choice",
                choices=(
                    "psmr_logit",
                    "psmr_probability",
                    "psmr_margin",
                    "herding",
                    "closest_to_mean",
                    "random",
                ),
            ),
            "memory.subject_cap": Range(kind="choice", choices=(None, 1, 2)),
            "batch_norm": Range(kind="choice", choices=("frozen", "frozen_later", "adapted")),
            "head.start": Range(kind="choice", choices=("random", "compositional")),
            "head.kind": Range(kind="choice", choices=("linear", "cosine")),
            "later.optim.lr": Range(kind="log_uniform", low=1e-6, high=1e-2),
            "basic.optim.lr": Range(kind="log_uniform", low=1e-5, high=1e-2),
        }
