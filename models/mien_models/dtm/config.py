"""Settings of DTM and its three profiles (README.md says which numbers are published)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from mien_models.contract import Augmentation, OptimPlan

Rule = Literal["dtm", "fixmatch", "flexmatch", "freematch", "softmatch", "ada_cm"]
FrameSampling = Literal["segments", "random_segments", "window"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdConfig:
    """Which pseudo-labels are believed. A rule reads the fields that name it."""

    rule: Rule = "dtm"
    """``ada_cm`` is DTM with Ada-CM's constants, whatever stands here."""
    beta: float = 0.97
    """DTM: share of the labelled confidence of a class that is asked of a pseudo-label."""
    gamma: float | None = math.e
    """DTM: in epoch e (from 1) the threshold is divided by 1 + gamma^(-e); None: by 1."""
    floor: float = 0.8
    """DTM: no class's threshold is lower."""
    class_floors: tuple[float, ...] | None = None
    """DTM: a floor for each class, in the order of the classes, in the place of ``floor``."""
    ceiling: float = 1.0
    """DTM: no class's threshold is higher."""
    start: float = 0.8
    """DTM: thresholds, and confidences that run, before anything is known."""
    evidence: Literal["epoch", "running"] = "epoch"
    """DTM: where labelled confidence comes from. ``epoch``: a plain pass over the labelled clips
    after each epoch. ``running``: a moving average over the augmented labelled batches, which is
    harder to win by memorising."""
    rho: float = 0.99
    """DTM: share of a running confidence that a batch leaves."""
    tau: float = 0.95
    """FixMatch, FlexMatch: the fixed threshold."""
    momentum: float = 0.999
    """FreeMatch, SoftMatch: share of their running statistics that a batch leaves."""
    free_ceiling: float | None = None
    """FreeMatch: no class's threshold is higher; None: no limit."""
    soft_width: float = 2.0
    """SoftMatch: the n of its bell, whose deviation is that of the confidences over n."""

    def __post_init__(self) -> None:
        floors = self.class_floors or (self.floor,)
        if not 0.0 <= min(floors) <= max(floors) <= self.ceiling <= 1.0:
            raise ValueError(
                f"threshold: floors {floors} and ceiling {self.ceiling} must lie in [0, 1], the "
                "floors below the ceiling"
            )
        for name in ("start", "tau", "rho", "momentum"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"threshold.{name}={getattr(self, name)} must lie in [0, 1]")
        if self.beta <= 0 or self.soft_width <= 0 or (self.gamma is not None and self.gamma <= 0):
            raise ValueError(f"threshold: beta, gamma and soft_width must be positive, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights and settings of the losses; a weight of 0 switches one off."""

    labelled: float = 0.5
    label_smoothing: float = 0.0
    unlabelled: float = 1.0
    contrastive: float = 0.1
    contrastive_on: Literal["low_confidence", "all"] = "low_confidence"
    """Which unlabelled clips: those whose pseudo-label is refused, or all."""
    temperature: float = 0.07
    negative: float = 0.0
    """Negative learning on refused clips: away from classes that the teacher excludes."""
    negative_below: float = 0.05
    """The teacher excludes a class below this probability."""
    fairness: float = 0.0
    """FreeMatch's fairness term (published: 0.001 to 0.01)."""

    def __post_init__(self) -> None:
        weights = (self.labelled, self.unlabelled, self.contrastive, self.negative, self.fairness)
        if min(weights) < 0 or self.temperature <= 0:
            raise ValueError(f"losses: weights must not be negative, temperature positive: {self}")
        if not 0.0 <= self.label_smoothing < 1.0 or not 0.0 <= self.negative_below <= 1.0:
            raise ValueError(
                f"losses.label_smoothing={self.label_smoothing} must lie in [0, 1) and "
                f"losses.negative_below={self.negative_below} in [0, 1]"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkConfig:
    """What makes features of a face."""

    name: str = "resnet50"
    """A model of timm, whose weights are imported (``weights.trunk``); ``conv``: a few
    convolutions that are learnt."""
    widths: tuple[int, ...] = (32, 64, 128)
    """``conv``: channels of its stages, each of half the side of the one before."""
    grid: int = 3
    """``conv``: features are read from so many places by as many."""
    dim: int = 128
    """``conv``: features of a frame."""

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.grid, self.dim, 1) < 1:
            raise ValueError(f"trunk: widths, grid and dim must be at least 1, got {self}")


_FLIP_AND_CROP = Augmentation(min_crop_area=0.85, flip_probability=0.5)
_RAND_AUGMENT = replace(_FLIP_AND_CROP, rand_augment_ops=3, rand_augment_magnitude=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class DtmConfig:
    """Everything that defines a training of DTM."""

    image_size_px: int = 224
    border_px: int = 0
    """The network looks at the frame without a border of this width."""
    num_frames: int = 1
    """Frames of a clip; 1 for pictures. A clip's features are the mean over its faces."""
    sampling: FrameSampling = "random_segments"
    """Which frames training looks at; prediction takes the centres of equal segments."""
    align_faces: bool = True
    """Labelled and unlabelled faces must be cut out by one template; False only if both are."""
    weak: Augmentation = _FLIP_AND_CROP
    """Labelled clips and both weak views of unlabelled clips."""
    strong: Augmentation = _RAND_AUGMENT
    """The view of an unlabelled clip that learns its pseudo-label."""
    input_scale: Literal["imagenet", "frame"] = "imagenet"
    """``frame``: less each frame's own mean, by its deviation, which takes the light out."""
    motion_gain: float | None = None
    """Adds three channels: this times the frame less the mean of the clip's frames. Only for
    clips, and for ``trunk.name=conv``."""
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    dropout: float = 0.0
    """Share of the features dropped before the student's classifier."""
    batch_size: int = 16
    """Labelled clips of a step."""
    class_uniform: bool = True
    """Labelled clips are drawn by class, then within it; False: as they are."""
    unlabelled_ratio: int = 1
    """Unlabelled clips of a step for each labelled one; 0: labelled clips alone, the control."""
    unlabelled_clips: Literal["without_label", "all"] = "without_label"
    """``all``: labelled clips take part as unlabelled ones too (their labels stay hidden)."""
    pseudo_label_views: Literal[1, 2] = 2
    """Weak views whose mean prediction is the pseudo-label."""
    no_pseudo_labels: tuple[str, ...] = ()
    """Classes that never are pseudo-labels, such as Aff-Wild2's ``other``."""
    post_filter_frames: int = 1
    """Predictions of the frames of one video are also scored as means over so many of them
    (odd); 1: only as they are."""
    class_cap: float | None = None
    """Of the unlabelled clips of a step, at most this share is accepted as one class, the surest
    (but one clip always may); None: no cap."""
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    distribution_alignment: bool = False
    """Pseudo-labels are rescaled so that their average is the prior."""
    class_prior: tuple[float, ...] | None = None
    """Shares of the classes among unlabelled clips, for the alignment; None: all the same."""
    alignment_momentum: float = 0.999
    losses: LossConfig = field(default_factory=LossConfig)
    teacher_decay: float | None = 0.999
    """Of the averaged network that gives pseudo-labels and is shipped; None: the student."""
    teacher_ramp: bool = False
    """A smaller decay in the first steps, for a teacher that starts untrained."""
    epochs: int = 20
    steps_per_epoch: int | None = 800
    """None: one pass over as many clips as have labels."""
    optim: OptimPlan = field(
        default_factory=lambda: OptimPlan(lr=5e-4, weight_decay=0.0, clip_norm=None)
    )

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.batch_size < 1 or self.unlabelled_ratio < 0:
            raise ValueError(
                f"num_frames={self.num_frames} and batch_size={self.batch_size} must be at least "
                f"1, unlabelled_ratio={self.unlabelled_ratio} at least 0"
            )
        if 2 * self.border_px >= self.image_size_px or self.border_px < 0:
            raise ValueError(f"border_px={self.border_px} leaves nothing of {self.image_size_px}")
        if self.motion_gain is not None and (self.num_frames == 1 or self.trunk.name != "conv"):
            raise ValueError(
                f"motion_gain={self.motion_gain} needs num_frames > 1 and trunk.name=conv"
            )
        if self.losses.fairness > 0 and self.threshold.rule != "freematch":
            raise ValueError(
                f"losses.fairness={self.losses.fairness} needs threshold.rule=freematch, which "
                f"keeps its statistics; the rule is {self.threshold.rule}"
            )
        if self.post_filter_frames < 1 or self.post_filter_frames % 2 == 0:
            raise ValueError(
                f"post_filter_frames={self.post_filter_frames} must be odd and at least 1"
            )
        if self.class_cap is not None and not 0.0 < self.class_cap <= 1.0:
            raise ValueError(f"class_cap={self.class_cap} must lie in (0, 1], or be none")
        if not 0.0 <= self.dropout < 1.0 or not 0.0 <= self.alignment_momentum <= 1.0:
            raise ValueError(
                f"dropout={self.dropout} must lie in [0, 1), alignment_momentum="
                f"{self.alignment_momentum} in [0, 1]"
            )

    @classmethod
    def paper(cls) -> DtmConfig:
        """The reconstruction: DTM's parts with the constants of Ada-CM, its nearest relative."""
        return cls()

    @classmethod
    def robust(cls) -> DtmConfig:
        """Our default: a floor for other people's faces, thresholds from augmented labels."""
        return cls(
            weak=Augmentation(min_crop_area=0.8, flip_probability=0.5, brightness=0.1),
            strong=Augmentation(
                min_crop_area=0.6,
                flip_probability=0.5,
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                blur_probability=0.2,
                rand_augment_ops=2,
                rand_augment_magnitude=7,
            ),
            batch_size=32,
            unlabelled_ratio=2,
            threshold=ThresholdConfig(floor=0.6, ceiling=0.95, evidence="running"),
            losses=LossConfig(label_smoothing=0.1),
            teacher_ramp=True,
            optim=OptimPlan(lr=1e-4, weight_decay=1e-2, warmup_fraction=0.05, clip_norm=1.0),
        )

    @classmethod
    def tiny(cls) -> DtmConfig:
        """A few convolutions for a laptop CPU and the built-in clips."""
        weak = Augmentation(min_crop_area=0.9, flip_probability=0.5)
        return cls(
            image_size_px=64,
            border_px=14,
            num_frames=4,
            weak=weak,
            strong=Augmentation(
                min_crop_area=0.7,
                flip_probability=0.5,
                brightness=0.3,
                contrast=0.3,
                rotation_deg=10.0,
                blur_probability=0.2,
            ),
            input_scale="frame",
            motion_gain=3.0,
            trunk=TrunkConfig(name="conv"),
            dropout=0.2,
            unlabelled_ratio=2,
            threshold=ThresholdConfig(floor=0.8, ceiling=0.95, evidence="running", rho=0.95),
            losses=LossConfig(labelled=1.0, label_smoothing=0.05, contrastive=0.0),
            teacher_decay=0.99,
            teacher_ramp=True,
            epochs=10,
            steps_per_epoch=40,
            optim=OptimPlan(lr=2e-3, weight_decay=1e-2, warmup_fraction=0.05),
        )
