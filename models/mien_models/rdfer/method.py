"""RDFER as a method: its stage, its training step, its looks at every clip after an epoch.

Shape legend: B clips, T frames, C channels, H W pixels, M looks, S instances, K classes, J keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from mien_models.contract import (
    ClipBatch,
    EpochNotes,
    InnerWeights,
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
    ViewSpec,
)
from mien_models.layers.clip_random import clip_uniform
from mien_models.layers.ema_teacher import EmaTeacher
from mien_models.layers.face_trunk import picture_layer
from mien_models.layers.pixel_input import PixelInput
from mien_models.layers.pretrained import check_part, load_trunk
from mien_models.layers.worker_sums import num_workers
from mien_models.rdfer.agreement import agreement, window_frames
from mien_models.rdfer.config import AgreementConfig, RdferConfig
from mien_models.rdfer.keys import synopsis_positions
from mien_models.rdfer.ledger import AgreementLedger, Look, Targets
from mien_models.rdfer.losses import (
    instance_loss,
    intensity_aware_loss,
    key_target_loss,
    smoothed,
    soft_cross_entropy,
)
from mien_models.rdfer.model import NetworkOutput, RdferNetwork

_LOOK_JITTER = 1000
"""Stream of ``clip_uniform`` of the first epoch's looks; the network's own are far below."""


class Rdfer(Method):
    """Two streams with key re-sampling between them, and a ledger of how far labels are believed.

    There is one stage, ``train``. After each of its epochs several looks at every training clip
    are compared; from ``config.agreement.start`` on, noisy labels are mitigated and hard clips
    reinforced.

    Args:
        config: all settings.
        classes: names of the classes in the order of the logits.

    Raises:
        ValueError: fewer than two classes, or a trunk that is not known.
    """

    def __init__(self, config: RdferConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"RDFER needs at least two classes, got {list(classes)}")
        self.config = config
        self.classes = tuple(classes)
        self.pixels = PixelInput(
            config.input_scale, border_px=config.border_px, motion_gain=config.motion_gain
        )
        self.network = RdferNetwork(config, len(classes))
        self.ledger = None if config.agreement is None else AgreementLedger(config.agreement)
        self.teacher: EmaTeacher | None = None
        self._is_trained = False
        self._epoch = 0

    # Pretrained trunks

    def pretrained_parts(self) -> tuple[str, ...]:
        """``trunk``, for both streams, unless it is the one that is learnt from the clips."""
        return () if self.config.trunk.name == "conv" else ("trunk",)

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Loads ``trunk`` (weights of timm or torchvision) into each stream.

        Raises:
            ValueError: another part, or tensors that don't fit.
        """
        check_part(part, self.pretrained_parts(), method="RDFER")
        for stream in (self.network.synopsis, self.network.detail):
            if stream is not None:
                load_trunk(stream.short_term.trunk, tensors, self.config.trunk.name)

    # Stage

    def stage(self, index: int) -> Stage | None:
        """``train``."""
        if index > 0:
            return None
        config = self.config
        vectors = [name for name, p in self.named_parameters() if p.ndim < 2]
        return Stage(
            name="train",
            streams={"clips": self._stream(training=True)},
            epochs=config.epochs,
            optim=config.optim,
            trainable=("network.*",),
            no_decay=() if config.decay_everything else tuple(vectors),
        )

    def begin_stage(self, index: int) -> None:
        """Starts the teacher, where agreement is its matter."""
        settings = self.config.agreement
        if settings is not None and settings.judge == "teacher" and not self._is_trained:
            self.teacher = EmaTeacher(self.network, decay=settings.teacher_decay, ramp=True)

    def end_stage(self, scan: Scan) -> None:
        """Lets the teacher go: it is not shipped."""
        self.teacher = None
        self._is_trained = True

    def _stream(self, *, training: bool) -> StreamSpec:
        config = self.config
        view = ViewSpec(
            num_frames=config.num_frames,
            sampling=config.sampling if training else "segments",
            augmentation=config.augmentation if training else None,
        )
        return StreamSpec(
            batch_size=config.batch_size,
            views=(view,),
            image_size_px=config.image_size_px,
            align_faces=config.align_faces,
        )

    def prediction_stream(self) -> StreamSpec:
        """The centres of equal segments, without sound."""
        return self._stream(training=False)

    # Training

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Losses of both streams against the ledger's targets."""
        batch = batches["clips"]
        self._epoch = progress.epoch
        output = self.network(self._video(batch), batch.seed_B)
        targets = self._targets(batch, progress.epoch)
        loss_B = self._losses(output, targets)
        hit_B = output.final.logits_BK.argmax(dim=1) == batch.label_B
        changed_B = targets.target_BK.argmax(dim=1) != batch.label_B
        logs = {
            "accuracy": hit_B.float().mean(),
            "hard": targets.is_hard_B.mean(),
            "relabelled": changed_B.float().mean(),
        }
        return StepOutput(loss=loss_B.mean(), logs=logs)

    def _video(self, batch: ClipBatch) -> Tensor:
        video_BTCHW: Tensor = self.pixels(batch.video_BTCHW, batch.views[0].has_face_BT)
        return video_BTCHW

    def _targets(self, batch: ClipBatch, epoch: int) -> Targets:
        ledger, settings = self.ledger, self.config.agreement
        if ledger is None or settings is None:
            ledger, acts = AgreementLedger(AgreementConfig()), False
        else:
            acts = epoch >= settings.start * self.config.epochs
        return ledger.targets(batch.clip_ids, batch.label_B, len(self.classes), acts=acts)

    def _losses(self, output: NetworkOutput, targets: Targets) -> Tensor:
        """One loss a clip, [B]."""
        weights, final = self.config.losses, output.final
        target_BK = smoothed(targets.target_BK, weights.label_smoothing)
        loss_B = soft_cross_entropy(final.logits_BK, target_BK)
        loss_B = loss_B + weights.instance_weight * instance_loss(
            final.instance_logits_BIK, target_BK
        )
        if output.synopsis is not None:
            synopsis = output.synopsis
            loss_B = loss_B + weights.synopsis_weight * soft_cross_entropy(
                synopsis.logits_BK, target_BK
            )
            loss_B = loss_B + weights.instance_weight * instance_loss(
                synopsis.instance_logits_BIK, target_BK
            )
        loss_B = loss_B * targets.weight_B
        settings, moments = self.config.agreement, output.moments
        if settings is not None and settings.ial_weight > 0:
            rival_B = intensity_aware_loss(final.logits_BK, targets.target_BK.argmax(dim=1))
            loss_B = loss_B + settings.ial_weight * targets.is_hard_B * rival_B
        if moments is not None and moments.rule_centres_BJ is not None:
            loss_B = loss_B + self.config.keys.target_weight * key_target_loss(
                moments.centres_BJ, moments.rule_centres_BJ, self.config.num_frames
            )
        return loss_B

    def after_step(self) -> None:
        """Moves the teacher."""
        if self.teacher is not None:
            self.teacher.update(self.network)

    # Agreement

    def end_epoch(self, scan: Scan) -> EpochNotes | None:
        """Looks at every training clip several times and updates the ledger on every worker."""
        ledger, settings = self.ledger, self.config.agreement
        if ledger is None or settings is None:
            return None
        done = self._epoch + 1
        is_due = done % settings.every_epochs == 0 and done <= settings.until * self.config.epochs
        looks = list(self._look_at_all(scan, settings)) if is_due else []
        ledger.update(
            self._epoch,
            _of_all_workers(looks),
            relabels=done >= settings.start * self.config.epochs,
        )
        return EpochNotes(logs=ledger.shares())

    @torch.no_grad()
    def _look_at_all(self, scan: Scan, settings: AgreementConfig) -> Iterator[Look]:
        self.eval()
        for batch in scan(self._stream(training=False)):
            probabilities_BMK = self.look(batch, settings)
            agreement_B = agreement(probabilities_BMK, settings.measure).tolist()
            mean_BK = probabilities_BMK.mean(dim=1).tolist()
            labels = batch.label_B.tolist()
            yield from map(Look, batch.clip_ids, labels, agreement_B, mean_BK)

    def look(self, batch: ClipBatch, settings: AgreementConfig) -> Tensor:
        """Probabilities [B, M, K] of several looks at each clip, by teacher or network."""
        video_BTCHW = self._video(batch)
        looks_MT = window_frames(
            video_BTCHW.shape[1],
            settings.num_clips,
            settings.window_share if settings.looks == "windows" else 1.0,
        )
        jitter_BMS = None
        if settings.looks == "jitter":
            shape = (settings.num_clips, self.config.synopsis_frames)
            stream = _LOOK_JITTER + self._epoch
            jitter_BMS = clip_uniform(batch.seed_B, shape[0] * shape[1], stream).unflatten(1, shape)
        answers = []
        for index, frames_T in enumerate(looks_MT):
            look_BTCHW = video_BTCHW[:, frames_T.to(video_BTCHW.device)]
            if settings.flips and index % 2:
                look_BTCHW = look_BTCHW.flip(-1)
            jitter_BS = None if jitter_BMS is None else jitter_BMS[:, index]
            answers.append(self._judged(look_BTCHW, jitter_BS).final.logits_BK)
        return torch.stack(answers, dim=1).float().softmax(dim=2)

    def _judged(self, video_BTCHW: Tensor, jitter_BS: Tensor | None) -> NetworkOutput:
        judge = self.network if self.teacher is None else self.teacher
        output: NetworkOutput = judge(video_BTCHW, None, jitter_BS)
        return output

    def json_state(self) -> JsonState:
        """The ledger, and whether the stage is over."""
        clips = {} if self.ledger is None else self.ledger.to_json()
        return {"clips": clips, "is_trained": self._is_trained}

    def load_json_state(self, state: JsonState) -> None:
        """Restores :meth:`json_state`; without agreement there is nothing to restore."""
        self._is_trained = bool(state.get("is_trained", False))
        if self.ledger is not None:
            self.ledger.load_json(state.get("clips", {}))

    # Prediction

    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits [B, K] and clip features [B, L] of the stream that decides; no label is seen."""
        final = self._plain(batch).final
        return Prediction(logits_BK=final.logits_BK, features_BD=final.clip_BL)

    def picture_layer(self) -> PictureLayer:
        """The last map of the stream that decides, at the frames that it looks at."""
        stream = self.network.detail or self.network.synopsis
        assert stream is not None
        place = picture_layer(stream.short_term.trunk, border_px=self.config.border_px)
        return dataclasses.replace(place, frames=self._frames_that_decide)

    def _frames_that_decide(self, batch: ClipBatch) -> Tensor:
        if self.samples_again:
            return self.key_frames(batch).round().long().flatten(1)
        num_clips, num_frames = batch.video_BTCHW.shape[:2]
        even_S = synopsis_positions(num_frames, self.config.synopsis_frames)
        return even_S.to(batch.video_BTCHW.device).expand(num_clips, -1)

    def inner_weights(self, batch: ClipBatch) -> InnerWeights:
        """The moments at which KER looks again."""
        if not self.samples_again:
            return InnerWeights()
        with torch.no_grad():
            return InnerWeights(key_frames_BJ=self.key_frames(batch).mean(dim=2))

    @property
    def samples_again(self) -> bool:
        """Whether there are key frames at all: two streams, with KER between them."""
        return self.config.streams in ("both", "detail")

    def key_frames(self, batch: ClipBatch) -> Tensor:
        """Where KER looks: [B, J, U] positions among the loaded frames, fractional ones too.

        Raises:
            ValueError: this network samples nothing again.
        """
        moments = self._plain(batch).moments
        if moments is None:
            raise ValueError(f"streams={self.config.streams!r} has no key frames; use streams=both")
        return moments.positions_BJU

    def _plain(self, batch: ClipBatch) -> NetworkOutput:
        output: NetworkOutput = self.network(self._video(batch))
        return output

    # Search

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        """Thresholds, key layout and the settings most worth tuning."""
        return {
            "agreement.num_clips": Range(kind="choice", choices=(3, 4, 5, 8)),
            "agreement.measure": Range(kind="choice", choices=("pairs", "majority", "soft")),
            "agreement.tau": Range(kind="choice", choices=(0.3, 0.5, 0.6, 0.75, 0.9)),
            "agreement.delta": Range(kind="choice", choices=(0.1, 0.2, 0.3, 0.5, 0.7)),
            "agreement.mixture": Range(kind="choice", choices=(None, 0.5, 0.8, 0.9, 0.95)),
            "agreement.start": Range(kind="choice", choices=(0.2, 0.35, 0.5)),
            "agreement.reinforce": Range(kind="choice", choices=(0.0, 0.5, 1.0, 2.0)),
            "agreement.ial_weight": Range(kind="choice", choices=(0.0, 0.05, 0.1, 0.5)),
            "agreement.mitigate": Range(
                kind="choice", choices=("relabel", "reweight", "soften", "nothing")
            ),
            "keys.count": Range(kind="choice", choices=(2, 4, 8)),
            "keys.frames": Range(kind="choice", choices=(2, 4, 8)),
            "keys.stride_frames": Range(kind="uniform", low=1.0, high=64 / 3),
            "losses.synopsis_weight": Range(kind="choice", choices=(0.0, 0.05, 0.1, 0.3, 1.0)),
            "losses.instance_weight": Range(kind="choice", choices=(0.0, 0.05, 0.1, 0.3, 1.0)),
            "losses.label_smoothing": Range(kind="uniform", low=0.0, high=0.1),
            "trunk.dropout": Range(kind="uniform", low=0.3, high=0.8),
            "optim.lr": Range(kind="log_uniform", low=1e-4, high=5e-4),
        }


def _of_all_workers(looks: list[Look]) -> list[Look]:
    if num_workers() == 1:
        return looks
    shares: list[list[Look]] = [[] for _ in range(num_workers())]
    dist.all_gather_object(shares, looks)
    return [look for share in shares for look in share]
