"""Settings of continual learning and its three profiles (README.md says what is published)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from mien_models.contract import Augmentation, OptimPlan

Teachers = Literal["none", "basic_padded", "basic", "previous", "both"]
Selector = Literal[
    "psmr_logit",
    "psmr_probability",
    "psmr_margin",
    "herding",
    "closest_to_mean",
    "random",
    "reservoir",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamPlan:
    """The order in which classes are learnt."""

    first_classes: tuple[str, ...] = ()
    """Learnt together in the first stage; none: every class that is no compound."""
    left_out: tuple[str, ...] = ()
    """Classes that are never learnt, such as ``neutral`` in the published runs."""
    order: tuple[str, ...] = ()
    """The later classes, in order; none: drawn with ``order_seed``."""
    order_seed: int = 0
    classes_per_stage: int = 1

    def __post_init__(self) -> None:
        if self.classes_per_stage < 1:
            raise ValueError(f"classes_per_stage={self.classes_per_stage} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkConfig:
    """What makes features of a frame."""

    name: str = "resnetv2_50"
    """A model of timm, whose weights are imported (``weights.trunk``); ``conv``: a few
    convolutions that are learnt."""
    pooling: Literal["avg", "max"] = "avg"
    """How a network of timm goes from its last map to features."""
    widths: tuple[int, ...] = (32, 64, 128)
    """``conv``: channels of its stages, each of half the side of the one before."""
    grid: int = 3
    """``conv``: features are read from so many places by as many."""
    dim: int = 128
    """``conv``: features of a frame."""

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.grid, self.dim, 1) < 1:
            raise ValueError(f"trunk: widths, grid and dim must be at least 1, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """From a clip's features to its classes."""

    kind: Literal["linear", "cosine", "multi_label"] = "linear"
    """``linear``, ``cosine``: a row of weights a class, added as classes come. ``multi_label``: a
    score for every basic expression; a class's logit is the sum of its parts' scores."""
    cosine_scale: float = 16.0
    """Of ``cosine`` and of ``classifier=nearest_mean``: logits are so many times the cosine."""
    hidden: tuple[int, ...] = ()
    """Widths of layers between the trunk's features and the classes."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """After each of these layers."""
    dropout: float = 0.0
    """Before each of these layers and before the classes."""
    start: Literal["random", "compositional"] = "random"
    """What a new class's row begins with. ``compositional``: the mean of the rows of the basic
    expressions it is made of, where all of those are learnt."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0 or self.cosine_scale <= 0 or min((*self.hidden, 1)) < 1:
            raise ValueError(
                f"head: dropout={self.dropout} must lie in [0, 1), cosine_scale="
                f"{self.cosine_scale} and the widths {self.hidden} must be positive"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """How much, and from whom, the network goes on learning what it knew."""

    teachers: Teachers = "basic_padded"
    """``basic_padded``: the network of the first stage, with logits of 0 for all later classes
    (published). ``basic``: the same on its own classes alone. ``previous``: the network before
    this stage, on the classes it knew. ``both``: the mean of the last two."""
    weight: float = 0.1
    """Of distillation in the first later stage; the cross-entropy has 1 minus that."""
    decay_stages: float | None = 1.0 + math.e
    """The weight falls by a factor e in so many stages; None: it stays."""
    temperature: float = 3.0
    scale_by_square: bool = False
    """Times temperature squared, which keeps gradients as large as without temperature."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0 or self.temperature <= 0:
            raise ValueError(
                f"distillation: weight={self.weight} must lie in [0, 1], temperature="
                f"{self.temperature} must be positive"
            )
        if self.decay_stages is not None and self.decay_stages <= 0:
            raise ValueError(f"distillation.decay_stages={self.decay_stages} must be positive")

    def weight_at(self, later_stage: int) -> float:
        """The weight in a later stage, counted from 0."""
        if self.teachers == "none":
            return 0.0
        if self.decay_stages is None:
            return self.weight
        return self.weight * math.exp(-later_stage / self.decay_stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryConfig:
    """Which training clips of learnt classes are shown again."""

    budget: Literal["none", "grow", "limit"] = "grow"
    """``grow``: ``per_class`` clips of each class. ``limit``: ``total`` clips, shared equally among
    the classes learnt so far."""
    per_class: int = 62
    total: int = 1304
    selector: Selector = "psmr_logit"
    """``psmr_*``: predictive sorting, the clips that the network is surest of, by the class's
    logit, its probability, or the margin to the next class. ``herding``: iCaRL's. ``reservoir``:
    the clips as they come, each with an equal chance."""
    subject_cap: int | None = None
    """At most so many clips of one person in a class, unless the class would stay short."""
    batch_size: int = 12
    """Remembered clips of a step over all workers, classes drawn uniformly."""

    def __post_init__(self) -> None:
        cap = 1 if self.subject_cap is None else self.subject_cap
        if min(self.per_class, self.total, self.batch_size, cap) < 1:
            raise ValueError(
                f"memory: per_class={self.per_class}, total={self.total}, batch_size="
                f"{self.batch_size} and subject_cap={self.subject_cap} must be at least 1; "
                "budget=none switches the memory off"
            )

    def clips_per_class(self, num_classes: int) -> int:
        """Clips that each of so many learnt classes may keep."""
        if self.budget == "none":
            return 0
        return self.per_class if self.budget == "grow" else self.total // num_classes


def published_budget(num_clips: int, num_classes: int, share: float = 0.3) -> tuple[int, int]:
    """Total and clips per class of the published memory: a share of all training clips.

    It needs to know how many classes there will be, which a learner in use does not.

    >>> published_budget(4347, 21)
    (1304, 62)
    """
    total = math.floor(share * num_clips)
    return total, total // num_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """How one kind of stage is trained."""

    trunk: tuple[str, ...] = ("*",)
    """Shell patterns of the trunk's parameters that train; none: the trunk is frozen."""
    batch_size: int = 32
    epochs: int = 20
    steps_per_epoch: int | None = None
    """None: one pass over the clips of the stage's new classes."""
    optim: OptimPlan = field(default_factory=OptimPlan)

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError(f"epochs must not be negative, batch_size at least 1, got {self}")


_TURN_AND_FLIP = Augmentation(flip_probability=0.5, rotation_deg=3.6)
_ADAM = OptimPlan(weight_decay=0.0, schedule="constant", clip_norm=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplexFerConfig:
    """Everything that defines a training of compound expressions one after another."""

    image_size_px: int = 224
    border_px: int = 0
    """The network looks at the frame without a border of this width."""
    num_frames: int = 1
    """Frames of a clip; 1 for pictures. A clip's features are the mean over its faces."""
    align_faces: bool = True
    input_scale: Literal["unit", "imagenet", "frame"] = "imagenet"
    motion_gain: float | None = None
    """Adds three channels: this times the frame less the mean of the clip's frames. Only for
    clips, and for ``trunk.name=conv``."""
    augmentation: Augmentation = _TURN_AND_FLIP
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    classes: StreamPlan = field(default_factory=StreamPlan)
    warm_up: PhaseConfig = field(default_factory=lambda: PhaseConfig(trunk=(), epochs=0))
    """The head alone on the first classes, before everything else; 0 epochs: left out."""
    basic: PhaseConfig = field(default_factory=PhaseConfig)
    """The first classes."""
    later: PhaseConfig = field(default_factory=PhaseConfig)
    """Each stage of later classes."""
    batch_norm: Literal["frozen", "frozen_later", "adapted"] = "frozen_later"
    """Frozen: running statistics are used and kept, and scale and shift don't train; always, or
    only in later stages."""
    class_uniform: bool = True
    """Clips of the first classes are drawn by class, then within it; False: as they are."""
    balance: Literal["classes", "clips"] = "classes"
    """What counts the same in a step of a later stage: every class learnt so far, or every clip."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    classifier: Literal["head", "nearest_mean"] = "head"
    """What answers. ``nearest_mean``: iCaRL's, the class whose remembered clips' mean feature is
    nearest; while a stage trains, its epochs are compared by the head."""

    def __post_init__(self) -> None:
        if min(self.num_frames, self.basic.epochs, self.later.epochs) < 1:
            raise ValueError(
                f"num_frames={self.num_frames}, basic.epochs={self.basic.epochs} and later.epochs="
                f"{self.later.epochs} must be at least 1"
            )
        if 2 * self.border_px >= self.image_size_px or self.border_px < 0:
            raise ValueError(f"border_px={self.border_px} leaves nothing of {self.image_size_px}")
        if self.classifier == "nearest_mean" and self.memory.budget == "none":
            raise ValueError(
                "classifier=nearest_mean needs remembered clips: set classifier=head, or "
                "memory.budget to grow or limit"
            )
        if self.motion_gain is not None and (self.num_frames == 1 or self.trunk.name != "conv"):
            raise ValueError(
                f"motion_gain={self.motion_gain} needs num_frames > 1 and trunk.name=conv"
            )

    @classmethod
    def paper(cls) -> ComplexFerConfig:
        """The published settings, as far as our parts go (README.md lists what differs)."""
        return cls(
            input_scale="unit",
            augmentation=replace(_TURN_AND_FLIP, min_crop_area=0.9),
            trunk=TrunkConfig(pooling="max"),
            head=HeadConfig(hidden=(512, 32), activation="sigmoid", dropout=0.2),
            classes=StreamPlan(left_out=("neutral",)),
            warm_up=PhaseConfig(trunk=(), epochs=100, optim=replace(_ADAM, lr=1e-4)),
            basic=PhaseConfig(
                trunk=("stages.2.*", "stages.3.*"), epochs=100, optim=replace(_ADAM, lr=1e-6)
            ),
            later=PhaseConfig(
                trunk=("stages.3.*",), batch_size=4, epochs=100, optim=replace(_ADAM, lr=1e-5)
            ),
            batch_norm="frozen",
            class_uniform=False,
        )

    @classmethod
    def robust(cls) -> ComplexFerConfig:
        """Our default: both teachers on their own classes, compounds that begin as their parts."""
        return cls(
            augmentation=Augmentation(
                min_crop_area=0.8,
                flip_probability=0.5,
                rotation_deg=10.0,
                brightness=0.2,
                contrast=0.2,
            ),
            head=HeadConfig(dropout=0.2, start="compositional"),
            basic=PhaseConfig(optim=OptimPlan(lr=1e-4, warmup_fraction=0.05)),
            later=PhaseConfig(
                trunk=("stages.3.*",), batch_size=8, optim=OptimPlan(lr=3e-5, warmup_fraction=0.05)
            ),
            batch_norm="frozen",
            distillation=DistillationConfig(
                teachers="both",
                weight=0.5,
                decay_stages=None,
                temperature=2.0,
                scale_by_square=True,
            ),
            memory=MemoryConfig(per_class=20, selector="herding", batch_size=24),
            classifier="nearest_mean",
        )

    @classmethod
    def tiny(cls) -> ComplexFerConfig:
        """A few convolutions for a laptop CPU and the built-in clips."""
        return cls(
            image_size_px=64,
            border_px=14,
            num_frames=4,
            input_scale="frame",
            motion_gain=3.0,
            augmentation=Augmentation(min_crop_area=0.9, flip_probability=0.5),
            trunk=TrunkConfig(name="conv"),
            head=HeadConfig(dropout=0.2, start="compositional"),
            basic=PhaseConfig(
                batch_size=16,
                epochs=6,
                steps_per_epoch=30,
                optim=OptimPlan(lr=2e-3, warmup_fraction=0.05),
            ),
            later=PhaseConfig(
                trunk=("project.*",),
                batch_size=4,
                epochs=2,
                steps_per_epoch=20,
                optim=OptimPlan(lr=1e-3, warmup_fraction=0.05),
            ),
            distillation=DistillationConfig(
                teachers="both",
                weight=0.5,
                decay_stages=None,
                temperature=2.0,
                scale_by_square=True,
            ),
            memory=MemoryConfig(per_class=8, selector="herding", batch_size=12),
            classifier="nearest_mean",
        )
