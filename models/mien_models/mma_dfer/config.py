"""Settings of MMA-DFER (the defaults are the published ones) and its three profiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mien_models.contract import AudioSpec, Augmentation, OptimPlan
from mien_models.layers.patch_encoder import EncoderConfig, PatchGrid
from mien_models.layers.pixel_input import InputScale

FusionOperator = Literal["mean", "cls", "per_frame_mean", "one_way"]
FusedBlocks = Literal["all", "last_half", "every_second", "none"]
FrameSampling = Literal["segments", "random_segments", "paper_train", "window"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """Learned tokens behind the patches of each encoder (section 3 of the paper)."""

    per_stage: int = 3
    """Prompt tokens of each stage; 0 leaves prompts out."""
    stage_period: int = 6
    """Blocks a stage. After the first block of a stage its prompts get a learned offset."""
    progressive: bool = True
    """False: no offsets; the prompts are put in once and left to the encoder."""
    position_std: float = 1.0
    """Spread of the prompts' initial positions."""

    def __post_init__(self) -> None:
        if self.per_stage < 0 or self.stage_period < 1 or self.position_std < 0:
            raise ValueError(
                f"prompts need per_stage >= 0, stage_period >= 1 and position_std >= 0, got {self}"
            )

    def num_stages(self, depth: int) -> int:
        """Stages of an encoder with ``depth`` blocks; the last may be shorter."""
        return -(-depth // self.stage_period) if self.per_stage else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """The bottleneck through which the encoders hear each other."""

    width: int = 128
    """Features inside the bottleneck."""
    blocks: FusedBlocks = "all"
    """After which blocks: ``last_half``; ``every_second`` (the 2nd, 4th ...); ``none``."""
    operator: FusionOperator = "mean"
    """What a modality hears of the other. ``mean``: the mean of all its tokens (published).
    ``cls``: its class token (of every frame, averaged). ``per_frame_mean``: the mean of the tokens
    near in time, supposing that sound and picture span the same time. ``one_way``: as ``mean``,
    but sound hears nothing of the picture."""
    gate_start: float = 0.0
    """Initial value of all gates, before their tanh; 0: the network starts as its encoders."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"fusion.width={self.width} must be at least 1")

    def fused_blocks(self, depth: int) -> tuple[int, ...]:
        """Indices of the blocks that are followed by an exchange."""
        match self.blocks:
            case "all":
                return tuple(range(depth))
            case "last_half":
                return tuple(range(depth // 2, depth))
            case "every_second":
                return tuple(range(1, depth, 2))
            case "none":
                return ()
        raise ValueError(
            f"fusion.blocks={self.blocks!r} is none of all, last_half, every_second, none"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalConfig:
    """The transformer over the joint tokens of the frames."""

    dim: int = 512
    depth: int = 1
    """Blocks; 0: the mean of the frames' joint tokens, without class token and positions."""
    num_heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 1024
    token_std: float = 1.0
    """Spread of the initial class token and positions."""

    def __post_init__(self) -> None:
        if min(self.dim, self.num_heads, self.head_dim, self.mlp_dim) < 1 or self.depth < 0:
            raise ValueError(
                f"sizes of the temporal transformer must be at least 1, its depth 0 or more: {self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """First stage of ``tiny``: both encoders learn from the clips before they are frozen."""

    epochs: int = 8
    batch_size: int = 16
    num_frames: int = 4
    video_mask_ratio: float = 0.75
    audio_mask_ratio: float = 0.8
    audio_weight: float = 1.0
    """Weight of the sound's loss; the picture's is 1."""
    label_weight: float = 0.0
    """Weight of telling the label from the patches seen; 0: no label is looked at."""
    decoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(dim=64, depth=1, num_heads=4)
    )
    """Size of both decoders, which are dropped after the stage."""
    augmentation: Augmentation | None = None
    optim: OptimPlan = field(default_factory=OptimPlan)

    def __post_init__(self) -> None:
        for name in ("video_mask_ratio", "audio_mask_ratio"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"autoencoder.{name}={getattr(self, name)} must lie in (0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class MmaDferConfig:
    """Everything that defines a training of MMA-DFER."""

    image_size_px: int = 224
    """Side of the square frames; without its borders a multiple of ``video_patch_px``."""
    border_px: int = 0
    """The network looks at the frame without a border of this width, for faces that fill it."""
    video_patch_px: int = 16
    num_frames: int = 16
    """Frames of a clip. Other numbers are predicted with stretched positions."""
    sampling: FrameSampling = "paper_train"
    """Which frames training looks at; prediction takes the centres of equal segments."""
    align_faces: bool = False
    """False: the clips already are face crops, as DFEW and MAFW are published."""
    augmentation: Augmentation | None = None
    input_scale: InputScale = "unit"
    """``unit``: pixels in [0, 1]. ``imagenet``: also less ImageNet's mean, by its deviation.
    ``frame``: less each frame's own mean, by its deviation, which takes the light out."""
    motion_gain: float | None = None
    """Adds three channels: this times the frame less the mean of the clip's frames, which takes
    the person out and leaves the expression; None: colours alone (published)."""
    picture_order: Literal["natural", "text"] = "natural"
    """Of frames in folders. ``text``: names as strings (published), which scrambles MAFW's."""
    audio: AudioSpec = field(default_factory=AudioSpec)
    audio_patch: tuple[int, int] = (16, 16)
    """Frames and mels of a patch of the spectrogram."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(drop_path=0.1))
    """Size of both encoders, which run in lockstep."""
    readout: Literal["cls", "patches"] = "cls"
    """What stands for a frame in the joint head: the class token (published), or all patch tokens,
    each place with its own weights (``readout_width`` features of each). A briefly trained
    autoencoder leaves its class token idle. Sound, whose places mean little, keeps its own."""
    readout_width: int = 16
    video_code_grid: tuple[int, int] | None = (14, 14)
    """Grid of the pretrained position codes, stretched to the grid used; None: the grid used."""
    audio_code_grid: tuple[int, int] | None = (64, 8)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    audio_padding: Literal["silence", "masked"] = "silence"
    """``silence``: padding is a log energy of 0 and takes part like sound (published). ``masked``:
    patches of padding alone take part in neither attention nor exchange."""
    missing_modality: Literal["silence", "learned"] = "silence"
    """``silence``: a clip without sound gets padding all over (published). ``learned``: what is
    missing (sound; frames without a face) is replaced by learned vectors wherever it is heard."""
    drop_audio: float = 0.0
    """Share of training clips whose sound is taken as missing; needs ``learned``."""
    drop_video: float = 0.0
    """Share of training clips (others) whose picture is taken as missing; needs ``learned``."""
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss, in the order of the classes; None: all 1."""
    recompute_activations: bool = False
    """Keeps what enters each block and computes the rest again in the backward pass: a third more
    time for a fraction of the memory."""
    sampler: Literal["plain", "class_uniform"] = "plain"
    """``class_uniform``: training draws a class, then a clip of it, so that rare classes count as
    much as frequent ones."""
    batch_size: int = 8
    epochs: int = 25
    optim: OptimPlan = field(
        default_factory=lambda: OptimPlan(
            lr=1e-4, weight_decay=1e-2, schedule="epoch_cosine", clip_norm=None
        )
    )
    train_positions: bool = True
    """False: the encoders' positions (their prompts' among them) stay as they are."""
    decay_everything: bool = True
    """Weight decay also on gates, norms, biases, prompts and positions (published)."""
    autoencoder: AutoencoderConfig | None = None
    """None: the encoders' weights are imported; otherwise they are learnt from the clips first."""

    def __post_init__(self) -> None:
        self.fusion.fused_blocks(self.encoder.depth)
        _ = self.video_grid, self.audio_grid
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames} must be at least 1")
        dropped = self.drop_audio + self.drop_video
        if min(self.drop_audio, self.drop_video) < 0 or dropped > 1:
            raise ValueError(
                f"drop_audio={self.drop_audio} and drop_video={self.drop_video} are shares of the "
                "clips: both at least 0, together at most 1"
            )
        if dropped and self.missing_modality != "learned":
            raise ValueError("drop_audio and drop_video need missing_modality='learned'")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")

    @property
    def video_grid(self) -> PatchGrid:
        """Patches of a frame."""
        side, patch = self.image_size_px - 2 * self.border_px, self.video_patch_px
        channels = 3 if self.motion_gain is None else 6
        return PatchGrid(channels=channels, size=(side, side), patch=(patch, patch))

    @property
    def audio_grid(self) -> PatchGrid:
        """Patches of the spectrogram: time by mels."""
        size = (self.audio.num_frames, self.audio.num_mels)
        return PatchGrid(channels=1, size=size, patch=self.audio_patch)

    @classmethod
    def paper(cls) -> MmaDferConfig:
        """The published settings (README.md lists where we differ)."""
        augmentation = Augmentation(min_crop_area=0.08, flip_probability=0.5, brightness=0.5)
        audio = AudioSpec(sound="native")
        return cls(augmentation=augmentation, audio=audio, picture_order="text")

    @classmethod
    def robust(cls) -> MmaDferConfig:
        """Our default: the published network without its weak spots (README.md says which)."""
        return cls(
            sampling="random_segments",
            align_faces=True,
            augmentation=Augmentation(
                min_crop_area=0.5,
                flip_probability=0.5,
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                audio_gain_db=6.0,
                spec_time_mask=48,
                spec_freq_mask=24,
            ),
            input_scale="imagenet",
            encoder=EncoderConfig(drop_path=0.0),
            prompts=PromptConfig(position_std=0.02),
            audio_padding="masked",
            missing_modality="learned",
            drop_audio=0.1,
            drop_video=0.1,
            label_smoothing=0.1,
            optim=OptimPlan(lr=1e-4, weight_decay=1e-2, warmup_fraction=0.05, clip_norm=1.0),
            decay_everything=False,
        )

    @classmethod
    def tiny(cls) -> MmaDferConfig:
        """A small network for a laptop CPU that learns its encoders from the clips first."""
        augmentation = Augmentation(
            min_crop_area=0.9,
            flip_probability=0.5,
            audio_gain_db=3.0,
            spec_time_mask=24,
            spec_freq_mask=8,
        )
        return cls(
            image_size_px=64,
            border_px=14,
            video_patch_px=6,
            num_frames=4,
            sampling="random_segments",
            align_faces=True,
            augmentation=augmentation,
            input_scale="frame",
            motion_gain=3.0,
            audio=AudioSpec(num_frames=192, num_mels=64),
            encoder=EncoderConfig(dim=96, depth=4, num_heads=4),
            readout="patches",
            video_code_grid=None,
            audio_code_grid=None,
            prompts=PromptConfig(stage_period=2, position_std=0.02),
            fusion=FusionConfig(width=64, gate_start=0.2),
            temporal=TemporalConfig(dim=96, num_heads=4, head_dim=24, mlp_dim=192, token_std=0.02),
            audio_padding="masked",
            missing_modality="learned",
            drop_audio=0.15,
            drop_video=0.15,
            label_smoothing=0.05,
            batch_size=16,
            epochs=6,
            optim=OptimPlan(lr=2e-3, weight_decay=1e-2, warmup_fraction=0.1),
            decay_everything=False,
            autoencoder=AutoencoderConfig(
                epochs=13,
                video_mask_ratio=0.25,
                audio_mask_ratio=0.5,
                label_weight=1.0,
                augmentation=augmentation,
                optim=OptimPlan(lr=2e-3, weight_decay=0.05, warmup_fraction=0.05),
            ),
        )
