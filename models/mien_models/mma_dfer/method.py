"""MMA-DFER as a method: its stages, its training step, its prediction.

Shape legend: B clips, T frames, C channels, H W pixels, F audio frames, M mels, N patches,
P pixels of a patch, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien_models.contract import (
    ClipBatch,
    InnerWeights,
    Method,
    PictureLayer,
    Prediction,
    Progress,
    Range,
    Stage,
    StepOutput,
    StreamSpec,
    ViewSpec,
)
from mien_models.layers.clip_random import clip_uniform
from mien_models.layers.patch_encoder import PatchEncoder, start_as_identity
from mien_models.layers.pixel_input import PixelInput
from mien_models.layers.pretrained import check_part
from mien_models.layers.vit_weights import load_vit
from mien_models.mma_dfer.config import AutoencoderConfig, MmaDferConfig
from mien_models.mma_dfer.fusion import Presence
from mien_models.mma_dfer.inner_weights import read_inner_weights
from mien_models.mma_dfer.losses import classification_loss
from mien_models.mma_dfer.model import MmaDferNetwork
from mien_models.mma_dfer.pretraining import EncoderPretraining, pretraining_loss

_VIDEO_MASK, _AUDIO_MASK, _DROPPED_MODALITY = range(3)
"""Streams of ``clip_uniform``."""
_NO_DECAY = ("*gate", "*norm*", "*bias", "*prompt*", "*positions", "*cls_token", "*missing*")
"""Parameters without weight decay unless ``decay_everything``: what isn't a matrix."""
_ENCODERS = ("video_encoder", "audio_encoder")
_ENCODER_PARTS = ("cls_token", "patch_embed.*", "blocks.*", "norm.*")


class MmaDfer(Method):
    """Two frozen encoders adapted to each other by prompts and fusion bottlenecks.

    Without ``config.autoencoder`` there is one stage, ``adapt``, and the encoders' weights are
    imported. With it, a stage ``autoencoder`` before it learns them without labels.

    Args:
        config: all settings.
        classes: names of the classes in the order of the logits.

    Raises:
        ValueError: no class, or ``config.class_weights`` has another length.
    """

    class_weights_K: Tensor | None

    def __init__(self, config: MmaDferConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        weights = config.class_weights
        if not classes or (weights is not None and len(weights) != len(classes)):
            raise ValueError(
                f"{len(classes)} classes with class_weights={weights}: give at least one class, "
                "and one weight a class or none"
            )
        self.config = config
        self.classes = tuple(classes)
        self.network = MmaDferNetwork(config, len(classes))
        self.pretraining = nn.ModuleDict()
        self.pixels = PixelInput(
            config.input_scale, border_px=config.border_px, motion_gain=config.motion_gain
        )
        weights_K = None if weights is None else torch.tensor(weights)
        self.register_buffer("class_weights_K", weights_K, persistent=False)

    # Pretrained encoders

    def pretrained_parts(self) -> tuple[str, ...]:
        """Both encoders, unless they are learnt from the clips."""
        return () if self.config.autoencoder is not None else _ENCODERS

    def load_pretrained(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Loads ``video_encoder`` (MAE-Face, any MAE of ViT-B/16) or ``audio_encoder`` (AudioMAE).

        Raises:
            ValueError: another part, or tensors that don't fit.
        """
        check_part(part, _ENCODERS, method="MMA-DFER")
        config = self.config
        is_video = part == "video_encoder"
        grid = config.video_code_grid if is_video else config.audio_code_grid
        encoder: PatchEncoder = getattr(self.network, part)
        load_vit(
            encoder, config.encoder, tensors, code_grid=grid or encoder.grid.shape, what=f"a {part}"
        )

    # Stages

    def stage(self, index: int) -> Stage | None:
        """``autoencoder`` (if configured), then ``adapt``."""
        stages = [self._adapt_stage()]
        if self.config.autoencoder is not None:
            stages.insert(0, self._autoencoder_stage(self.config.autoencoder))
        return stages[index] if index < len(stages) else None

    def begin_stage(self, index: int) -> None:
        """Puts decoders in place for ``autoencoder`` and drops them for ``adapt``."""
        settings = self.config.autoencoder
        self.pretraining = nn.ModuleDict()
        if settings is None or index > 0:
            return
        ratios = {"video": settings.video_mask_ratio, "audio": settings.audio_mask_ratio}
        for name, ratio in ratios.items():
            encoder: PatchEncoder = getattr(self.network, f"{name}_encoder")
            start_as_identity(encoder.blocks)
            self.pretraining[name] = EncoderPretraining(
                encoder,
                settings,
                mask_ratio=ratio,
                num_classes=len(self.classes),
            ).to(self.pixels.mean_C11.device)

    def _autoencoder_stage(self, settings: AutoencoderConfig) -> Stage:
        view = ViewSpec(
            num_frames=settings.num_frames,
            sampling="random_segments",
            augmentation=settings.augmentation,
        )
        trainable = [f"network.*_encoder.{part}" for part in _ENCODER_PARTS] + ["pretraining.*"]
        if self.config.readout == "patches" and settings.label_weight > 0:
            trainable.append("network.*_readout.*")
        return Stage(
            name="autoencoder",
            streams={"clips": self._stream(view, settings.batch_size, labelled=None)},
            epochs=settings.epochs,
            optim=settings.optim,
            trainable=tuple(trainable),
            no_decay=("*norm*", "*bias", "*cls_token", "*mask_token"),
            evaluate=False,
        )

    def _adapt_stage(self) -> Stage:
        config = self.config
        view = ViewSpec(
            num_frames=config.num_frames,
            sampling=config.sampling,
            augmentation=config.augmentation,
        )
        stream = self._stream(view, config.batch_size, labelled=True)
        trainable = ["network.head.*", "network.classifier.*"]
        if config.train_positions:
            trainable.append("network.*_encoder.positions")
        if self.network.video_encoder.prompts is not None:
            trainable.append("network.*_encoder.prompt*")
        if len(self.network.exchanges):
            trainable.append("network.exchanges.*")
        if config.readout == "patches":
            trainable.append("network.*_readout.*")
        return Stage(
            name="adapt",
            streams={"clips": dataclasses.replace(stream, sampler=config.sampler)},
            epochs=config.epochs,
            optim=config.optim,
            trainable=tuple(trainable),
            no_decay=() if config.decay_everything else self._without_decay(trainable),
        )

    def _without_decay(self, trainable: list[str]) -> tuple[str, ...]:
        """The patterns of ``_NO_DECAY`` that some trainable parameter matches."""
        names = [name for name, _ in self.named_parameters() if _matches(name, trainable)]
        return tuple(p for p in _NO_DECAY if any(fnmatchcase(name, p) for name in names))

    def _stream(self, view: ViewSpec, batch_size: int, *, labelled: bool | None) -> StreamSpec:
        return StreamSpec(
            split="train",
            labelled=labelled,
            batch_size=batch_size,
            views=(view,),
            image_size_px=self.config.image_size_px,
            align_faces=self.config.align_faces,
            picture_order=self.config.picture_order,
            audio=self.config.audio,
        )

    def prediction_stream(self) -> StreamSpec:
        """One look at the centres of equal segments, with sound."""
        view = ViewSpec(num_frames=self.config.num_frames)
        return self._stream(view, self.config.batch_size, labelled=None)

    # Training

    def forward(self, batches: Mapping[str, ClipBatch], progress: Progress) -> StepOutput:
        """Masked reconstruction in stage ``autoencoder``, cross-entropy in ``adapt``."""
        if len(self.pretraining):
            return self._pretrain(batches["clips"])
        return self._classify(batches["clips"])

    def _classify(self, batch: ClipBatch) -> StepOutput:
        logits_BK = self._run(batch, self._presence(batch, drops=self.training)).logits_BK
        loss = classification_loss(
            logits_BK,
            batch.label_B,
            label_smoothing=self.config.label_smoothing,
            class_weights_K=self.class_weights_K,
        )
        hit_B = logits_BK.argmax(dim=1) == batch.label_B
        return StepOutput(loss=loss, logs={"accuracy": hit_B.float().mean().detach()})

    def _pretrain(self, batch: ClipBatch) -> StepOutput:
        settings = self.config.autoencoder
        assert settings is not None
        frames_BTCHW, face_BT = self._pixels(batch), batch.views[0].has_face_BT
        sound_BTCHW = self._spectrogram(batch)[:, None, None]
        sounds_BN = self._sounding_patches(batch) & batch.has_audio_B[:, None]
        inputs = {
            "video": (frames_BTCHW, face_BT[..., None], _VIDEO_MASK),
            "audio": (sound_BTCHW, sounds_BN[:, None], _AUDIO_MASK),
        }
        loss = frames_BTCHW.new_zeros(())
        logs = {}
        for name, (pictures_BTCHW, counted_BTN, random_stream) in inputs.items():
            encoder = getattr(self.network, f"{name}_encoder")
            num_pictures, num_patches = pictures_BTCHW.shape[1], encoder.grid.num_patches
            noise_BN = clip_uniform(batch.seed_B, num_pictures * num_patches, random_stream)
            noise_BTN = noise_BN.unflatten(1, (num_pictures, num_patches))
            counted_BTN = counted_BTN.expand_as(noise_BTN)
            error_B, logits_BK = self.pretraining[name](
                encoder,
                getattr(self.network, f"{name}_readout"),
                pictures_BTCHW,
                noise_BTN,
                counted_BTN,
            )
            weight = settings.audio_weight if name == "audio" else 1.0
            loss = loss + weight * pretraining_loss(
                batch, error_B, logits_BK, settings.label_weight
            )
            logs[f"{name}_error"] = error_B.mean().detach()
            if logits_BK is not None:
                hit_B = logits_BK.argmax(dim=1) == batch.label_B
                logs[f"{name}_accuracy"] = hit_B.float().mean().detach()
        return StepOutput(loss=loss, logs=logs)

    # Prediction

    def predict(self, batch: ClipBatch) -> Prediction:
        """Logits [B, K] and the temporal class token [B, D].

        With ``missing_modality="learned"`` sound counts where ``has_audio_B`` and a frame where
        ``has_face_BT``; a clip may lack either or both, and what stands in its tensors then has no
        influence. Setting one of the two to False evaluates the other modality alone.
        """
        output = self._run(batch, self._presence(batch, drops=False))
        return Prediction(logits_BK=output.logits_BK, features_BD=output.features_BD)

    def picture_layer(self) -> PictureLayer:
        """The patches behind the last block of the video encoder."""
        encoder = self.network.video_encoder
        return PictureLayer(
            layer=encoder.blocks[-1],
            token_grid=encoder.grid.shape,
            first_patch=1,
            border_px=self.config.border_px,
        )

    def inner_weights(self, batch: ClipBatch) -> InnerWeights:
        """Attention over frames and places, and what passes each exchange's gates."""
        return read_inner_weights(self.network, lambda: self.predict(batch))

    def _run(self, batch: ClipBatch, presence: Presence) -> Prediction:
        output = self.network(self._pixels(batch), self._spectrogram(batch), presence)
        return Prediction(logits_BK=output.logits_BK, features_BD=output.features_BD)

    def _pixels(self, batch: ClipBatch) -> Tensor:
        view = batch.views[0]
        pixels: Tensor = self.pixels(view.video_BTCHW, view.has_face_BT)
        return pixels

    def _spectrogram(self, batch: ClipBatch) -> Tensor:
        """[B, F, M], with the configured filling where there is no sound."""
        spec = self.config.audio
        if batch.audio_BFM is None:
            shape = (batch.video_BTCHW.shape[0], spec.num_frames, spec.num_mels)
            audio_BFM = torch.zeros(shape, device=batch.video_BTCHW.device)
        else:
            audio_BFM = batch.audio_BFM
        frame_F = torch.arange(audio_BFM.shape[1], device=audio_BFM.device)
        sounds_BF = (frame_F < batch.audio_frames_B[:, None]) & batch.has_audio_B[:, None]
        # Published: padding is 0 before the normalisation, brighter than true silence.
        is_masked = self.config.audio_padding == "masked"
        filling = 0.0 if is_masked else -spec.mean / (2.0 * spec.std)
        return torch.where(sounds_BF[..., None], audio_BFM, filling)

    def _sounding_patches(self, batch: ClipBatch) -> Tensor:
        """Patches of the spectrogram that hold some sound, bool [B, N]."""
        grid = self.config.audio_grid
        rows, columns = grid.shape
        row_N = torch.arange(rows, device=batch.audio_frames_B.device).repeat_interleave(columns)
        sounds_BN: Tensor = row_N * grid.patch[0] < batch.audio_frames_B[:, None]
        return sounds_BN

    def _presence(self, batch: ClipBatch, *, drops: bool) -> Presence:
        tokens_BN = audio_B = face_BT = None
        if self.config.audio_padding == "masked":
            num_tokens = self.network.audio_encoder.positions.shape[1]
            sounds_BN = self._sounding_patches(batch)
            # The class token and the prompts never are padding.
            sounds_BN = F.pad(sounds_BN, (1, 0), value=True)
            tokens_BN = F.pad(sounds_BN, (0, num_tokens - sounds_BN.shape[1]), value=True)
        if self.config.missing_modality == "learned":
            audio_B = batch.has_audio_B & (batch.audio_frames_B > 0)
            face_BT = batch.views[0].has_face_BT
            if drops and self.config.drop_audio + self.config.drop_video > 0:
                draw_B = clip_uniform(batch.seed_B, 1, _DROPPED_MODALITY)[:, 0]
                loses_audio_B = draw_B < self.config.drop_audio
                loses_video_B = ~loses_audio_B & (
                    draw_B < self.config.drop_audio + self.config.drop_video
                )
                audio_B = audio_B & ~loses_audio_B
                face_BT = face_BT & ~loses_video_B[:, None]
        return Presence(audio_B=audio_B, face_BT=face_BT, audio_token_BN=tokens_BN)

    # Search

    @classmethod
    def search_space(cls) -> Mapping[str, Range]:
        """The published ablations and the settings most worth tuning."""
        with_prompts = ("prompts.per_stage", (1, 3, 5, 8, 16))
        return {
            "prompts.per_stage": Range(kind="choice", choices=(0, 1, 3, 5, 8, 16)),
            "prompts.stage_period": Range(
                kind="choice", choices=(12, 6, 4, 3, 2, 1), only_if=with_prompts
            ),
            "prompts.position_std": Range(
                kind="choice", choices=(0.0, 0.02, 1.0), only_if=with_prompts
            ),
            "fusion.width": Range(kind="choice", choices=(16, 32, 64, 128, 256)),
            "fusion.blocks": Range(
                kind="choice", choices=("all", "last_half", "every_second", "none")
            ),
            "fusion.operator": Range(
                kind="choice", choices=("mean", "cls", "per_frame_mean", "one_way")
            ),
            "temporal.depth": Range(kind="int", low=1, high=4),
            "num_frames": Range(kind="choice", choices=(8, 16, 24, 32)),
            "encoder.drop_path": Range(kind="uniform", low=0.0, high=0.2),
            "drop_audio": Range(kind="uniform", low=0.0, high=0.3),
            "drop_video": Range(kind="uniform", low=0.0, high=0.3),
            "label_smoothing": Range(kind="uniform", low=0.0, high=0.1),
            "optim.lr": Range(kind="log_uniform", low=3e-5, high=3e-4),
            "optim.weight_decay": Range(kind="uniform", low=0.0, high=5e-2),
        }


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
