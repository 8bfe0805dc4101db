"""Settings of CLP and its three profiles (README.md says which numbers are published)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from mien_models.contract import Augmentation, OptimPlan
from mien_models.layers.pixel_input import InputScale

BP4D_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23",
              "AU24")  # fmt: skip
DISFA_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU9", "AU12", "AU25", "AU26")
GFT_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU10", "AU12", "AU14", "AU15", "AU23", "AU24")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkConfig:
    """What makes features of a face. None of it reads the statistics of a batch: frames of one
    clip would tell each other apart by them."""

    name: str = "resnet18"
    """A model of timm, whose weights are imported (``weights.trunk``); ``conv``: a few
    convolutions that are learnt."""
    batch_norms: Literal["frozen", "group"] = "frozen"
    """What becomes of a timm model's batch norms. ``frozen``: they keep the imported statistics.
    ``group``: group norms take their place, for trunks that start untrained."""
    widths: tuple[int, ...] = (32, 64, 128)
    """``conv``: channels of its stages, each of half the side of the one before."""
    grid: int = 3
    """``conv``: features are read from so many places by as many."""
    dim: int = 128
    """``conv``: features of a frame."""
    last: Literal["relu", "layer_norm"] = "relu"
    """``conv``: what the features go through in the end. Behind a ReLU two thirds of them die in
    the first steps of a pretraining."""
    given: bool = False
    """The network starts from weights that are given (``weights.trunk``), such as those of a
    pretraining before (``mien weights extract``), also where it would else start untrained
    (``conv``, ``group``)."""

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.grid, self.dim, 1) < 1:
            raise ValueError(f"trunk: widths, grid and dim must be at least 1, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalConfig:
    """TCL: frames that are near in time are nearer in the embedding than frames further away."""

    weight: float = 1.0
    """0 switches it off."""
    form: Literal["hinge", "infonce"] = "hinge"
    margin: float = 0.2
    """In cosines."""
    margin_grows: bool = True
    """Evolution-aware: the margin is multiplied by how much further (in windows) the far frame is.
    False: it is the same for all."""
    window: int = 1
    """Frames up to this far count as near; the frame itself, otherwise augmented, always does."""
    temperature: float = 0.1
    """``infonce``: divides the cosines."""
    min_change: float = 0.0
    """Frames whose pictures differ by less (mean over coarse pixels, of 255 grey levels) are not
    held apart; 0: all are."""

    def __post_init__(self) -> None:
        if self.window < 0 or self.temperature <= 0 or min(self.weight, self.margin) < 0:
            raise ValueError(
                "temporal: window, weight and margin must not be negative, temperature positive: "
                f"{self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionConfig:
    """CIR: a face rebuilt from other people's keys still points at its own frame."""

    weight: float = 1.0
    """Lambda; 0 switches it off."""
    form: Literal["cycle", "l2"] = "cycle"
    temperature: float = 0.1
    """``cycle``: divides the cosines."""
    attention_temperature: float = 0.07
    """Divides the cosines before the softmax over the dictionary."""
    top_k: int | None = None
    """Only so many most similar keys are attended to; None: all of other people."""
    warmup_epochs: int = 1
    """Epochs in which the dictionary fills and nothing is rebuilt."""

    def __post_init__(self) -> None:
        if min(self.temperature, self.attention_temperature) <= 0 or self.weight < 0:
            raise ValueError(
                f"reconstruction: temperatures must be positive, weight not negative: {self}"
            )
        if self.warmup_epochs < 0 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"reconstruction: warmup_epochs must be at least 0 and top_k at least 1: {self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CollapseConfig:
    """When a pretraining counts as dead and is stopped."""

    min_spread: float = 0.005
    """Embeddings of an epoch that spread less (1 - squared length of their mean) are all alike."""
    max_entropy: float = 0.9999
    """Attention that is more even (entropy, as a share of the highest one) rebuilds every face as
    the same mean."""
    patience_epochs: int = 3
    """So many dead epochs in a row stop the run; 0: never."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_spread <= 1.0 or not 0.0 <= self.max_entropy <= 1.0:
            raise ValueError(f"collapse: min_spread and max_entropy must lie in [0, 1]: {self}")
        if self.patience_epochs < 0:
            raise ValueError(f"collapse.patience_epochs={self.patience_epochs} must be at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """The stage without labels."""

    num_frames: int = 8
    stride_frames: int = 2
    """Frames of the clip between two frames of a window."""
    query_augmentation: Augmentation = field(default_factory=Augmentation)
    key_augmentation: Augmentation = field(default_factory=Augmentation)
    projector: bool = True
    """The losses compare what two layers make of the features; False: the features themselves."""
    dim: int = 128
    """Size of what the projector makes."""
    momentum: float = 0.999
    """Of the encoder that makes the keys."""
    dictionary_size: int = 16384
    """Keys (frames) that are remembered."""
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    instance_weight: float = 0.0
    """Of MoCo's loss, which holds a frame apart from the whole dictionary; mu."""
    instance_temperature: float = 0.1
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    subject_cap: int | None = None
    """At most so many clips of one person an epoch."""
    batch_size: int = 32
    epochs: int = 20
    steps_per_epoch: int | None = None
    optim: OptimPlan = field(
        default_factory=lambda: OptimPlan(
            optimizer="sgd", lr=0.03, weight_decay=1e-4, clip_norm=None
        )
    )

    def __post_init__(self) -> None:
        if self.num_frames < 2 or min(self.stride_frames, self.dim, self.dictionary_size) < 1:
            raise ValueError(
                "pretrain: num_frames must be at least 2, stride_frames, dim and dictionary_size "
                f"at least 1, got {self.num_frames}, {self.stride_frames}, {self.dim} and "
                f"{self.dictionary_size}"
            )
        if self.temporal.weight > 0 and self.temporal.window >= self.num_frames - 1:
            raise ValueError(
                f"pretrain.temporal.window={self.temporal.window} leaves no frame outside in "
                f"windows of {self.num_frames}"
            )
        weights = (self.temporal.weight, self.reconstruction.weight, self.instance_weight)
        if max(weights) <= 0 or self.instance_weight < 0 or self.instance_temperature <= 0:
            raise ValueError(
                "pretrain: one of temporal.weight, reconstruction.weight and instance_weight must "
                f"be positive and none negative, instance_temperature positive; got {weights} and "
                f"{self.instance_temperature}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadoutConfig:
    """A stage with labels: the probe on frozen features, or the fine-tuning of everything."""

    num_frames: int = 8
    sampling: Literal["segments", "random_segments"] = "random_segments"
    augmentation: Augmentation | None = None
    clip_share: float = 1.0
    """Share of the training clips whose labels are used (the label fraction)."""
    frame_share: float = 1.0
    """Share of the coded frames of these clips whose action units are used, as published label
    fractions are counted (easier than so many clips: neighbours are alike)."""
    batch_size: int = 32
    epochs: int = 15
    steps_per_epoch: int | None = None
    optim: OptimPlan = field(
        default_factory=lambda: OptimPlan(lr=1e-3, weight_decay=0.0, clip_norm=None)
    )

    def __post_init__(self) -> None:
        for name in ("clip_share", "frame_share"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)} must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitConfig:
    """Which action units are read out, and how their loss is weighed."""

    names: tuple[str, ...] = BP4D_UNITS
    present_from: float = 1.0
    """A unit is present from this intensity on (0 to 5; DISFA's protocol: 2; occurrences are
    coded as 0 and 1)."""
    weight: float = 1.0
    """Of the loss over units; 0: units are not read out."""
    rare_units_weigh_more: bool = True
    """Each unit's loss is divided by its share of present frames (weights with mean 1)."""
    max_present_weight: float = 1.0
    """A present unit counts as often as an absent one is more frequent, but at most this; 1: once,
    as published, and only then are the probabilities those of the training clips."""
    intensity_weight: float = 0.0
    """Of the squared error of intensities, which are then read out too."""

    def __post_init__(self) -> None:
        if min(self.weight, self.intensity_weight) < 0 or self.max_present_weight < 1:
            raise ValueError(
                "units: weights must not be negative, max_present_weight at least 1; got "
                f"{self.weight}, {self.intensity_weight} and {self.max_present_weight}"
            )
        if self.present_from <= 0 or len(set(self.names)) != len(self.names):
            raise ValueError(f"units: present_from must be positive, names differ: {self}")
        if self.weight > 0 and not self.names:
            raise ValueError("units.names is empty; name units, or use units.weight=0")

    @property
    def calibration(self) -> str:
        """What the probabilities say of how often a unit is present, in words."""
        if self.max_present_weight > 1:
            return (
                "too high on purpose, as a present unit counted up to "
                f"{self.max_present_weight:g} times in training (for F1 at 0.5); not a frequency"
            )
        return "as frequent as in the training's frames; not fitted to other films"


_GEOMETRY = Augmentation(min_crop_area=0.8, flip_probability=0.5, rotation_deg=5.0)
_VIEW = replace(
    _GEOMETRY,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grey_probability=0.2,
    blur_probability=0.5,
    frame_shift=0.02,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClpConfig:
    """Everything that defines a training of CLP."""

    image_size_px: int = 224
    border_px: int = 0
    """The network looks at the frame without a border of this width."""
    align_faces: bool = True
    input_scale: InputScale = "imagenet"
    """``frame``: less each frame's own mean, by its deviation, which takes the light out."""
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    pretrain: PretrainConfig | None = field(
        default_factory=lambda: PretrainConfig(query_augmentation=_VIEW, key_augmentation=_VIEW)
    )
    """None: labels alone, from the trunk's first weights."""
    probe: ReadoutConfig | None = field(default_factory=ReadoutConfig)
    """Batch norm and linear maps on frozen features."""
    finetune: ReadoutConfig | None = None
    """Everything trains; after the probe where there is one. None, and ``probe`` too: a pretraining
    alone, whose trunk others start from (``mien weights extract``)."""
    units: UnitConfig = field(default_factory=UnitConfig)
    expression_weight: float = 1.0
    """Of the classes' loss; 0: they are not learnt."""

    def __post_init__(self) -> None:
        if 2 * self.border_px >= self.image_size_px or self.border_px < 0:
            raise ValueError(f"border_px={self.border_px} leaves nothing of {self.image_size_px}")
        if self.pretrain is None and not self.reads_out:
            raise ValueError("pretrain, probe and finetune are all none: nothing would be learnt")
        if self.expression_weight < 0 or self.expression_weight + self.units.weight == 0:
            raise ValueError(
                f"expression_weight={self.expression_weight} and units.weight={self.units.weight}: "
                "one must be positive, none negative"
            )

    @property
    def reads_out(self) -> bool:
        """Something is learnt from labels; else the features are all that there is."""
        return self.probe is not None or self.finetune is not None

    @property
    def last_stage(self) -> ReadoutConfig | PretrainConfig:
        """The stage that the shipped model comes from."""
        stage = self.finetune or self.probe or self.pretrain
        assert stage is not None
        return stage

    @classmethod
    def paper(cls) -> ClpConfig:
        """The reconstruction: hinge with growing margin, cycle loss, SGD, linear probe."""
        return cls()

    @classmethod
    def robust(cls) -> ClpConfig:
        """Our default: a trunk with group norms, early help by the instance loss, AdamW, then
        everything fine-tuned."""
        return cls(
            trunk=TrunkConfig(name="resnet50_gn"),
            pretrain=PretrainConfig(
                query_augmentation=_VIEW,
                key_augmentation=_VIEW,
                temporal=TemporalConfig(min_change=0.5),
                reconstruction=ReconstructionConfig(top_k=64),
                instance_weight=0.2,
                batch_size=64,
                epochs=30,
                optim=OptimPlan(lr=3e-4, weight_decay=0.05, warmup_fraction=0.05),
            ),
            finetune=ReadoutConfig(
                augmentation=replace(_GEOMETRY, brightness=0.2, contrast=0.2),
                optim=OptimPlan(lr=5e-5, weight_decay=0.05, warmup_fraction=0.1),
            ),
            units=UnitConfig(max_present_weight=4.0),
        )

    @classmethod
    def tiny(cls) -> ClpConfig:
        """A few convolutions for a laptop CPU and the built-in clips.

        The two looks differ in colour, by a flip and by a pixel's shift of each frame, so that
        neither the way a head turns nor the aligning tells frames apart. Crops and rotations would
        drown a mouth that moves by a pixel or two.
        """
        view = Augmentation(
            flip_probability=0.5,
            brightness=0.4,
            contrast=0.4,
            saturation=0.2,
            grey_probability=0.2,
            blur_probability=0.2,
            frame_shift=0.015,
        )
        return cls(
            image_size_px=64,
            border_px=6,
            input_scale="frame",
            trunk=TrunkConfig(name="conv", last="layer_norm"),
            pretrain=PretrainConfig(
                query_augmentation=view,
                key_augmentation=view,
                stride_frames=4,
                projector=False,
                momentum=0.99,
                dictionary_size=2048,
                temporal=TemporalConfig(form="infonce", margin=0.1),
                reconstruction=ReconstructionConfig(
                    weight=0.5, attention_temperature=0.03, top_k=16
                ),
                batch_size=16,
                epochs=6,
                optim=OptimPlan(lr=1e-3, weight_decay=0.01, warmup_fraction=0.1),
            ),
            probe=ReadoutConfig(
                batch_size=16, epochs=3, optim=OptimPlan(lr=3e-3, weight_decay=0.0)
            ),
            finetune=ReadoutConfig(
                augmentation=Augmentation(
                    min_crop_area=0.9, flip_probability=0.5, brightness=0.2, contrast=0.2
                ),
                batch_size=16,
                epochs=8,
                optim=OptimPlan(lr=1e-3, weight_decay=0.01, warmup_fraction=0.05),
            ),
            units=UnitConfig(max_present_weight=4.0),
        )
