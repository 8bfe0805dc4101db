"""DTM as a method: its streams, its training step, its prediction.

Shape legend: B labelled clips, U unlabelled clips, T frames, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mien_models.contract import (
    UNLABELLED,
    Augmentation,
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
    StepOutput,
    StreamSpec,
    View,
    ViewSpec,
)
from mien_models.dtm import losses
from mien_models.dtm.alignment import DistributionAlignment
from mien_models.dtm.config import DtmConfig
from mien_models.dtm.model import ExpressionNetwork, Reading
from mien_models.dtm.monitor import PseudoLabelMonitor
from mien_models.dtm.thresholds import (
    FreeMatch,
    LabelledConfidence,
    Verdict,
    labelled_confidence,
    make_rule,
    surest_of_class,
)
from mien_models.layers.ema_teacher import EmaTeacher
from mien_models.layers.face_trunk import picture_layer
from mien_models.layers.pretrained import check_part

_WEAK, _OTHER_WEAK, _STRONG = range(3)
"""Views of an unlabelled clip."""


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """What the teacher says about a batch, and what is believed of it."""

    probability_UK: Tensor
    verdict: Verdict

    @property
    def refused_U(self) -> Tensor:
        """bool [U]: clips of low confidence."""
        return ~self.verdict.accepted_U


@dataclass(frozen=True, kw_only=True)
class StudentReadings:
    """The student's one forward pass, by what went in."""

    labelled: Reading
    strong: Reading | None
    weak: tuple[Reading, ...]


class Dtm(Method):
    """Labelled and unlabelled clips side by side; a teacher's pseudo-labels count where a rule
    believes them.

    Args:
        config: all settings.
        classes: names of the classes in the order of the logits.

    Raises:
        ValueError: settings that don't fit the classes.
    """

    def __init__(self, config: DtmConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        _check_classes(config, classes)
        self.config = config
        self.classes = tuple(classes)
        self.student = ExpressionNetwork(config, len(classes))
        self.teacher = None
        if config.teacher_decay is not None:
            self.teacher = EmaTeacher(
                self.student, decay=config.teacher_decay, ramp=config.teacher_ramp
            )
        self.rule = make_rule(config.threshold, len(classes))
        self.alignment = None
        if config.distribution_alignment:
            prior = config.class_prior or (1.0,) * len(classes)
            self.alignment = DistributionAlignment(prior, momentum=config.alignment_momentum)
        self.monitor = PseudoLabelMonitor(self.classes)
        may_be_K = torch.tensor([name not in config.no_pseudo_labels for name in classes])
        self.register_buffer("may_be_pseudo_K", may_be_K, persistent=False)
        # Not in checkpoints: every step sets it, and only what follows a step reads it.
        self._epoch = 0
        self._epochs: list[dict[str, float]] = []

    # Pretrained trunk

    def pretrained_parts(self) -> tuple[str, ...]:
        """The trunk, unless it is the small one that is learnt."""
        return () if self.config.trunk.name == "conv" else ("trunk",)

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Loads ``trunk``: timm's tensors of the model that ``config.trunk.name`` names.

        Raises:
            ValueError: another part, or tensors that don't fit.
        """
        check_part(part, self.pretrained_parts(), method="DTM")
        self.student.load_trunk(tensors)
        if self.teacher is not None:
            self.teacher.restart(self.student)

    # Stage

    def stage(self, index: int) -> Stage | None:
        """One stage; without ``unlabelled_ratio`` it has the labelled stream alone."""
        if index > 0:
            return None
        config = self.config
        streams = {"labelled": self._labelled_stream()}
        if config.unlabelled_ratio > 0:
            streams["unlabelled"] = self._unlabelled_stream()
        return Stage(
            name="train",
            streams=streams,
            epochs=config.epochs,
            optim=config.optim,
            trainable=("student.*",),
            no_decay=("*.bias",),
            steps_per_epoch=config.steps_per_epoch,
        )

    def _labelled_stream(self) -> StreamSpec:
        return StreamSpec(
            labelled=True,
            sampler="class_uniform" if self.config.class_uniform else "plain",
            batch_size=self.config.batch_size,
            views=(self._view(self.config.weak),),
            image_size_px=self.config.image_size_px,
            align_faces=self.config.align_faces,
        )

    def _unlabelled_stream(self) -> StreamSpec:
        config = self.config
        views = (
            self._view(config.weak),
            replace(self._view(config.weak), same_frames_as=_WEAK),
            replace(self._view(config.strong), same_frames_as=_WEAK),
        )
        return replace(
            self._labelled_stream(),
            labelled=False if config.unlabelled_clips == "without_label" else None,
            sampler="plain",
            batch_size=config.unlabelled_ratio * config.batch_size,
            views=views,
            with_true_label=True,
        )

    def _view(self, augmentation: Augmentation) -> ViewSpec:
        return ViewSpec(
            num_frames=self.config.num_frames,
            sampling=self.config.sampling,
            augmentation=augmentation,
        )

    def prediction_stream(self) -> StreamSpec:
        """One look at the centres of equal segments."""
        view = ViewSpec(num_frames=self.config.num_frames)
        return replace(self._labelled_stream(), labelled=None, sampler="plain", views=(view,))

    # Training

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Losses of one step; without a batch ``unlabelled`` the labelled one alone."""
        self._epoch = progress.epoch + 1
        labelled, unlabelled = batches["labelled"], batches.get("unlabelled")
        pseudo = None
        if unlabelled is not None:
            pseudo = self._pseudo_labels(labelled, unlabelled)
        readings = self._student_readings(labelled, unlabelled)
        logits_BK = readings.labelled.logits_BK
        parts = {
            "labelled_loss": self.config.losses.labelled
            * losses.labelled_loss(
                logits_BK, labelled.label_B, label_smoothing=self.config.losses.label_smoothing
            )
        }
        if pseudo is not None:
            parts |= self._unlabelled_losses(readings, pseudo)
        logs = {name: part.detach() for name, part in parts.items()}
        hit_B = logits_BK.argmax(dim=1) == labelled.label_B
        logs["accuracy"] = hit_B.float().mean()
        if pseudo is not None:
            logs["accepted"] = pseudo.verdict.accepted_U.float().mean()
        return StepOutput(loss=torch.stack(list(parts.values())).sum(), logs=logs)

    @torch.no_grad()
    def _pseudo_labels(self, labelled: ClipBatch, unlabelled: ClipBatch) -> PseudoLabels:
        """The teacher's mean over the weak views, judged; labels of ``unlabelled`` stay unread
        but by the monitor."""
        views = unlabelled.views[: self.config.pseudo_label_views]
        taught = self._teach((labelled.views[0], *views))
        known = labelled_confidence(taught[0].probability_BK, labelled.label_B).merged()
        self.rule.observe_labelled(known, self._epoch)
        probability_UK = torch.stack([one.probability_BK for one in taught[1:]]).mean(dim=0)
        if self.alignment is not None:
            probability_UK = self.alignment(probability_UK)
        verdict = self.rule.judge(probability_UK, unlabelled.clip_ids)
        if self.config.class_cap is not None:
            verdict = surest_of_class(verdict, self.config.class_cap)
        # A clip without any face, and a class that shall never be one, teach nothing.
        allowed_U = self.may_be_pseudo_K[verdict.class_U]  # type: ignore[index]
        allowed_U = allowed_U & unlabelled.views[_WEAK].has_face_BT.any(dim=1)
        verdict = replace(
            verdict,
            accepted_U=verdict.accepted_U & allowed_U,
            weight_U=verdict.weight_U * allowed_U,
        )
        self.monitor.observe(verdict, _truth(unlabelled), known)
        return PseudoLabels(probability_UK=probability_UK, verdict=verdict)

    def _teach(self, views: tuple[View, ...]) -> list[Reading]:
        """What the teacher says, in evaluation mode."""
        if self.teacher is not None:
            return _read(self.teacher, views)
        was_training = self.student.training
        self.student.eval()
        readings = _read(self.student, views)
        self.student.train(was_training)
        return readings

    def _student_readings(
        self, labelled: ClipBatch, unlabelled: ClipBatch | None
    ) -> StudentReadings:
        """Everything in one pass, so that batch norm sees labelled and unlabelled faces alike."""
        if unlabelled is None:
            return StudentReadings(
                labelled=_read(self.student, labelled.views[:1])[0], strong=None, weak=()
            )
        views = [labelled.views[0], unlabelled.views[_STRONG]]
        if self.config.losses.contrastive > 0:
            views += [unlabelled.views[_WEAK], unlabelled.views[_OTHER_WEAK]]
        first, strong, *weak = _read(self.student, tuple(views))
        return StudentReadings(labelled=first, strong=strong, weak=tuple(weak))

    def _unlabelled_losses(
        self, readings: StudentReadings, pseudo: PseudoLabels
    ) -> dict[str, Tensor]:
        """The weighted parts of the loss that need unlabelled clips."""
        settings, verdict = self.config.losses, pseudo.verdict
        assert readings.strong is not None
        strong_UK = readings.strong.logits_BK
        parts = {
            "unlabelled_loss": settings.unlabelled
            * losses.unlabelled_loss(strong_UK, verdict.class_U, verdict.weight_U)
        }
        if readings.weak:
            is_all = settings.contrastive_on == "all"
            chosen_U = torch.ones_like(pseudo.refused_U) if is_all else pseudo.refused_U
            parts["contrastive_loss"] = settings.contrastive * losses.contrastive_loss(
                readings.weak[0].features_BD,
                readings.weak[1].features_BD,
                chosen_U,
                temperature=settings.temperature,
            )
        if settings.negative > 0:
            parts["negative_loss"] = settings.negative * losses.negative_loss(
                strong_UK, pseudo.probability_UK, pseudo.refused_U, below=settings.negative_below
            )
        if settings.fairness > 0:
            assert isinstance(self.rule, FreeMatch)
            parts["fairness_loss"] = settings.fairness * losses.fairness_loss(
                strong_UK, verdict.accepted_U, self.rule.share_K, self.rule.histogram_K
            )
        return parts

    def after_step(self) -> None:
        """Moves the teacher."""
        if self.teacher is not None:
            self.teacher.update(self.student)

    def end_epoch(self, scan: Scan) -> EpochNotes | None:
        """Moves thresholds that wait for a pass over the labelled clips; tells of the epoch."""
        if self.config.unlabelled_ratio == 0:
            return None
        thresholds_K = self.rule.thresholds_K.clone()
        if self.rule.needs_epoch_pass:
            self.rule.end_epoch(self._confidence_of_all(scan).merged(), self._epoch)
        notes = EpochNotes(
            logs=self.monitor.logs(thresholds_K), warnings=self.monitor.warnings(thresholds_K)
        )
        # Rounded: sums in another order (another number of workers) change the last bits.
        told = {name: round(value, 6) for name, value in notes.logs.items()}
        self._epochs = [*self._epochs[: self._epoch - 1], told]
        self.monitor.start_epoch()
        return notes

    @torch.no_grad()
    def _confidence_of_all(self, scan: Scan) -> LabelledConfidence:
        """The teacher's confidences of this worker's share of the labelled training clips."""
        spec = self._labelled_stream().for_prediction("train")
        zeros_K = torch.zeros_like(self.rule.thresholds_K, dtype=torch.float64)
        total = LabelledConfidence(total_K=zeros_K, count_K=zeros_K)
        for batch in scan(spec):
            batch = batch.to(zeros_K.device)
            probability_BK = self._teach(batch.views[:1])[0].probability_BK
            total = total + labelled_confidence(probability_BK, batch.label_B)
        return total

    # Prediction

    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits [B, K] and features [B, D] of the teacher (of the student where there is none)."""
        network = self.student if self.teacher is None else self.teacher
        view = batch.views[0]
        reading: Reading = network(view.video_BTCHW, view.has_face_BT)
        return Prediction(logits_BK=reading.logits_BK, features_BD=reading.features_BD)

    def picture_layer(self) -> PictureLayer:
        """The last map of the network that predicts."""
        network: Any = self.student if self.teacher is None else self.teacher.network
        return picture_layer(network.trunk, border_px=self.config.border_px)

    @property
    def told_epochs(self) -> tuple[Mapping[str, float], ...]:
        """What the monitor said of each epoch, the first one first."""
        return tuple(self._epochs)

    # State keyed by clip

    def json_state(self) -> JsonState:
        """What the threshold rule remembers of single clips, and the monitor's epochs."""
        return {**self.rule.json_state(), "epochs": self._epochs}

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`."""
        self.rule.load_json_state(state)
        self._epochs = [dict(epoch) for epoch in state.get("epochs", [])]

    # Search

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        """The threshold's shape, the losses' weights and the settings most worth tuning."""
        return {
            "threshold.beta": Range(kind="choice", choices=(0.9, 0.95, 0.97, 1.0)),
            "threshold.floor": Range(kind="choice", choices=(0.4, 0.5, 0.6, 0.7, 0.8)),
            "threshold.ceiling": Range(kind="choice", choices=(0.9, 0.95, 1.0)),
            "threshold.gamma": Range(kind="choice", choices=(None, 1.5, 2.718281828459045, 10.0)),
            "threshold.evidence": Range(kind="choice", choices=("epoch", "running")),
            "threshold.rho": Range(
                kind="choice",
                choices=(0.9, 0.95, 0.99, 0.999),
                only_if=("threshold.evidence", ("running",)),
            ),
            "losses.unlabelled": Range(kind="choice", choices=(0.5, 1.0, 2.0)),
            "losses.contrastive": Range(kind="choice", choices=(0.0, 0.05, 0.1, 0.5)),
            "losses.contrastive_on": Range(kind="choice", choices=("low_confidence", "all")),
            "losses.temperature": Range(kind="choice", choices=(0.07, 0.1, 0.2)),
            "unlabelled_ratio": Range(kind="choice", choices=(1, 2, 4, 7)),
            "teacher_decay": Range(kind="choice", choices=(0.99, 0.999)),
            "pseudo_label_views": Range(kind="choice", choices=(1, 2)),
            "class_uniform": Range(kind="choice", choices=(True, False)),
            "class_cap": Range(kind="choice", choices=(None, 0.25, 0.4)),
            "post_filter_frames": Range(kind="choice", choices=(1, 15, 31, 61)),
            "strong.rand_augment_ops": Range(kind="int", low=2, high=3),
            "strong.rand_augment_magnitude": Range(kind="int", low=5, high=10),
            "optim.lr": Range(kind="log_uniform", low=3e-5, high=3e-3),
        }


def _truth(batch: ClipBatch) -> Tensor:
    """What is known of the classes of unlabelled clips, for the monitor alone; int64 [U]."""
    if batch.true_label_B is None:
        return batch.label_B
    return torch.where(batch.true_label_B == UNLABELLED, batch.label_B, batch.true_label_B)


def _read(network: torch.nn.Module, views: tuple[View, ...]) -> list[Reading]:
    """One pass over several views of batches, taken apart again."""
    sizes = [len(view.video_BTCHW) for view in views]
    reading: Reading = network(
        torch.cat([view.video_BTCHW for view in views]),
        torch.cat([view.has_face_BT for view in views]),
    )
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [reading.rows(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _check_classes(config: DtmConfig, classes: tuple[str, ...]) -> None:
    if not classes:
        raise ValueError("DTM needs at least one class")
    unknown = [name for name in config.no_pseudo_labels if name not in classes]
    if unknown:
        raise ValueError(
            f"no_pseudo_labels names {', '.join(unknown)}, but the classes are {', '.join(classes)}"
        )
    if config.class_prior is not None and len(config.class_prior) != len(classes):
        raise ValueError(
            f"class_prior holds {len(config.class_prior)} shares for {len(classes)} classes"
        )
