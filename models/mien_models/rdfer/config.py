"""Settings of RDFER (the defaults are what is known of the published ones) and its profiles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from mien_models.contract import Augmentation, OptimPlan

Streams = Literal["both", "synopsis", "detail", "same_input"]
KeyPlacement = Literal["rule", "learned", "uniform"]
KeyRule = Literal["class_maxima", "max_probability"]
Measure = Literal["pairs", "majority", "soft"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkConfig:
    """Short-term movement: what is made of a frame and its neighbours. Each stream has its own."""

    name: str = "resnet50"
    """A timm network with residual blocks, or ``conv`` for a few convolutions of ours."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the blocks of ``conv``; each halves the picture."""
    shift_share: float = 0.125
    """Share of the channels that a frame takes from the frame before, and as many from the frame
    after it, in every block (TSM); 0: every frame stands alone, no short-term movement."""
    pool_side: int = 1
    """The last map is averaged to this many squares a side; 1: a global average (published)."""
    width: int = 512
    """Features of a frame."""
    dropout: float = 0.8
    """Share of the pooled features that is dropped while training."""
    project_std: float | None = 0.001
    """Spread of the initial weights from pooled features to ``width``; None: torch's own."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.shift_share <= 0.5 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"trunk.shift_share={self.shift_share} must lie in [0, 0.5] and "
                f"trunk.dropout={self.dropout} in [0, 1)"
            )
        if not self.widths or min(self.pool_side, self.width, *self.widths) < 1:
            raise ValueError(f"sizes of the trunk must be at least 1: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LongTermConfig:
    """Long-term change: what is made of the sequence of a stream's instances."""

    layers: int = 2
    """Layers of the two-way LSTM; 0: a linear map of each instance, no long-term change."""
    hidden: int = 512
    """Features of each direction."""
    num_heads: int = 8
    """Of the self-attention whose sigmoid gates the LSTM's output; 0: no gate."""

    def __post_init__(self) -> None:
        if self.layers < 0 or self.hidden < 1 or self.num_heads < 0:
            raise ValueError(
                f"long_term needs layers >= 0, hidden >= 1 and num_heads >= 0, got {self}"
            )
        if self.num_heads and self.width % self.num_heads:
            raise ValueError(
                f"long_term.num_heads={self.num_heads} must divide twice long_term.hidden, "
                f"{self.width}"
            )

    @property
    def width(self) -> int:
        """Features of an instance behind the LSTM."""
        return 2 * self.hidden


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyConfig:
    """KER: where the key expressions are, and which frames around them the detail stream sees."""

    count: int = 4
    """Key moments of a clip."""
    frames: int = 4
    """Frames around each; also the length of the groups in which a trunk shifts in time."""
    placement: KeyPlacement = "rule"
    """``rule``: at the synopsis' strongest instances. ``learned``: heads on the synopsis' clip
    feature say where and how far apart. ``uniform``: evenly, whatever the clip shows."""
    rule: KeyRule = "class_maxima"
    """``class_maxima``: the best instance of each of the strongest classes. ``max_probability``:
    the instances that are surest of any class. Neither knows the label."""
    kernel: Literal["hard", "gaussian"] = "hard"
    """``hard``: the nearest frame, no gradient to the position. ``gaussian``: a weighted mean of
    the frames around it, with gradient."""
    sigma_frames: float = 1.0
    """Width of the gaussian."""
    stride_frames: float = 1.0
    """Distance between a key's frames, of the frames loaded; the largest one where learned."""
    min_gap_frames: float = 1.0
    """Keys are at least this far apart, as far as the clip has room; also in instances (rounded up)
    where a rule picks them."""
    target_weight: float = 0.0
    """Weight of the distance between learned keys and those of the rule."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.frames < 1:
            raise ValueError(f"keys need count >= 1 and frames >= 1, got {self}")
        if self.sigma_frames <= 0 or self.stride_frames <= 0 or self.min_gap_frames < 0:
            raise ValueError(
                f"keys need sigma_frames > 0, stride_frames > 0 and min_gap_frames >= 0, got {self}"
            )
        is_learned = self.placement == "learned"
        if is_learned and self.kernel == "hard" and self.target_weight == 0:
            raise ValueError(
                "keys.placement='learned' with keys.kernel='hard' gives the keys no gradient; "
                "use keys.kernel='gaussian', or keys.target_weight above 0 to learn the rule's keys"
            )
        if not is_learned and (self.kernel == "gaussian" or self.target_weight):
            raise ValueError(
                f"keys.kernel={self.kernel!r} with keys.target_weight={self.target_weight}: only "
                "keys.placement='learned' has a gaussian kernel or key targets"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The classification loss; the last stream's clip loss has weight 1."""

    label_smoothing: float = 0.0
    synopsis_weight: float = 0.1
    """Of the synopsis' own clip loss, where the detail stream decides."""
    instance_weight: float = 0.1
    """Of every instance's loss against the clip's label."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"losses.label_smoothing={self.label_smoothing} must lie in [0, 1)")
        if min(self.synopsis_weight, self.instance_weight) < 0:
            raise ValueError("weights of losses can't be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementConfig:
    """Prediction agreement: which clips are noisy, which are hard, and what is done about it."""

    num_clips: int = 4
    """Looks at one video whose predictions are compared, M."""
    looks: Literal["windows", "jitter"] = "windows"
    """``windows``: overlapping parts of the video. ``jitter``: the whole video, other frames of it
    each time (published sampling)."""
    window_share: float = 0.5
    """Length of a window, of the video."""
    flips: bool = True
    """Every second look is mirrored."""
    measure: Measure = "pairs"
    """``pairs``: share of pairs of looks with the same class. ``majority``: share of looks with the
    most frequent class. ``soft``: 1 less their normalised Jensen-Shannon divergence."""
    momentum: float = 0.7
    """Of the moving averages of agreement and probabilities over epochs; 0: the last epoch."""
    judge: Literal["teacher", "network"] = "teacher"
    """Whose predictions: of the averaged weights, which memorise later, or of the network."""
    teacher_decay: float = 0.99
    until: float = 1.0
    """Share of the epochs after which agreement stays as it is: before memorisation."""
    every_epochs: int = 1
    tau: float = 0.75
    """From this agreement on the looks agree."""
    delta: float = 0.5
    """A clip is noisy if the suggested class is ahead of the given one by more than this."""
    mixture: float | None = None
    """A noisy clip's loss also belongs to the higher of two hills of losses with more than this
    probability; the hills are fitted to all clips after every epoch. None: ``delta`` alone."""
    reading: Literal["agreed", "scattered"] = "agreed"
    """What noise looks like. ``agreed``: the looks agree on another class than the given one.
    ``scattered``: they don't agree (the reverse reading; a clip whose looks agree on another class
    then is hard)."""
    start: float = 0.5
    """Share of the epochs before anything is done."""
    mitigate: Literal["relabel", "reweight", "soften", "nothing"] = "relabel"
    """What is done about noisy clips."""
    noisy_weight: float = 0.1
    """Of a noisy clip where ``mitigate`` is ``reweight``."""
    soften_share: float = 0.7
    """Share of the mean prediction in a noisy clip's target where ``mitigate`` is ``soften``."""
    cap_per_epoch: float = 0.05
    """New relabels of an epoch, at most this share of a class (but one clip always may)."""
    cap: float = 0.5
    """Relabelled clips in all, at most this share of a class."""
    reinforce: float = 0.5
    """A hard clip weighs 1 + this * (1 - agreement)."""
    ial_weight: float = 0.1
    """Of the intensity-aware loss on hard clips."""

    def __post_init__(self) -> None:
        if self.num_clips < 2 or self.every_epochs < 1:
            raise ValueError(
                f"agreement needs num_clips >= 2 and every_epochs >= 1, got {self.num_clips} and "
                f"{self.every_epochs}"
            )
        shares = ("tau", "delta", "start", "until", "noisy_weight", "soften_share", "cap")
        for name in (*shares, "cap_per_epoch", "momentum", "teacher_decay", "window_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"agreement.{name}={getattr(self, name)} must lie in [0, 1]")
        if self.mixture is not None and not 0.0 <= self.mixture < 1.0:
            raise ValueError(f"agreement.mixture={self.mixture} must lie in [0, 1), or be none")
        if self.window_share == 0 or min(self.reinforce, self.ial_weight) < 0:
            raise ValueError(
                "agreement needs window_share > 0, reinforce >= 0 and ial_weight >= 0, got "
                f"{self.window_share}, {self.reinforce} and {self.ial_weight}"
            )
        if self.reading == "scattered" and self.mitigate == "relabel":
            raise ValueError(
                "agreement.reading='scattered' finds noisy clips whose looks name no class to "
                "relabel them to; use agreement.mitigate=reweight, soften or nothing"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RdferConfig:
    """Everything that defines a training of RDFER."""

    image_size_px: int = 112
    border_px: int = 0
    """The network looks at the frame without a border of this width, for faces that fill it."""
    num_frames: int = 64
    """Frames of a clip that are loaded; keys are placed among them."""
    synopsis_frames: int = 16
    """Of those, evenly spread, that the synopsis stream sees."""
    sampling: Literal["segments", "random_segments"] = "segments"
    """Which frames training loads; prediction takes the centres of equal segments."""
    align_faces: bool = False
    """False: the clips already are face crops, as DFEW and FERV39k are published."""
    augmentation: Augmentation | None = None
    input_scale: Literal["unit", "imagenet", "frame"] = "unit"
    """``unit``: pixels in [0, 1]. ``imagenet``: also less ImageNet's mean, by its deviation.
    ``frame``: less each frame's own mean, by its deviation, which takes the light out."""
    motion_gain: float | None = None
    """Adds three channels: this times the frame less the mean of the clip's frames, which takes
    the person out and leaves the expression; None: colours alone (published)."""
    streams: Streams = "both"
    """``synopsis``: that stream alone decides. ``detail``: that one alone, at even keys.
    ``same_input``: both, the detail stream sees the synopsis' frames instead of keys."""
    channel_gate: bool = True
    """The synopsis' clip feature gates the channels of the detail stream."""
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    long_term: LongTermConfig = field(default_factory=LongTermConfig)
    keys: KeyConfig = field(default_factory=KeyConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    agreement: AgreementConfig | None = field(default_factory=AgreementConfig)
    """None: every label is believed."""
    batch_size: int = 128
    epochs: int = 100
    decay_everything: bool = True
    """Weight decay also on norms and biases."""
    optim: OptimPlan = field(
        default_factory=lambda: OptimPlan(
            lr=5e-4, min_lr=5e-6, weight_decay=0.05, warmup_fraction=0.1, clip_norm=None
        )
    )

    def __post_init__(self) -> None:
        if not 1 <= self.synopsis_frames <= self.num_frames:
            raise ValueError(
                f"synopsis_frames={self.synopsis_frames} must lie between 1 and "
                f"num_frames={self.num_frames}"
            )
        if self.keys.placement != "uniform" and self.keys.count > self.synopsis_frames:
            raise ValueError(
                f"keys.count={self.keys.count} keys can't be picked among "
                f"synopsis_frames={self.synopsis_frames} instances"
            )
        if self.streams == "detail" and self.keys.placement != "uniform":
            raise ValueError(
                "streams='detail' has nobody to place keys; add keys.placement=uniform"
            )
        if self.has_synopsis and self.synopsis_frames % self.keys.frames:
            raise ValueError(
                f"synopsis_frames={self.synopsis_frames} must be a multiple of keys.frames="
                f"{self.keys.frames}: frames are shifted in time in groups of that many"
            )
        if self.image_size_px <= 2 * self.border_px:
            raise ValueError(f"border_px={self.border_px} leaves nothing of {self.image_size_px}")

    @property
    def input_channels(self) -> int:
        """Colours, and motion where it is added."""
        return 3 if self.motion_gain is None else 6

    @property
    def has_synopsis(self) -> bool:
        """Whether there is a synopsis stream."""
        return self.streams != "detail"

    @property
    def has_detail(self) -> bool:
        """Whether there is a detail stream; its logits then are the prediction."""
        return self.streams != "synopsis"

    @property
    def num_keys(self) -> int:
        """Instances of the detail stream."""
        if self.streams == "same_input":
            return self.synopsis_frames // self.keys.frames
        return self.keys.count

    @classmethod
    def paper(cls) -> RdferConfig:
        """What is known of the published settings (README.md says how it is known)."""
        augmentation = Augmentation(
            min_crop_area=0.08, flip_probability=0.5, brightness=0.4, contrast=0.4, saturation=0.4
        )
        return cls(
            augmentation=augmentation,
            keys=KeyConfig(stride_frames=64 / 3),
            agreement=AgreementConfig(
                looks="jitter", flips=False, judge="network", reinforce=0.5, ial_weight=0.1
            ),
        )

    @classmethod
    def robust(cls) -> RdferConfig:
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
            ),
            input_scale="imagenet",
            trunk=TrunkConfig(dropout=0.5, project_std=None),
            keys=KeyConfig(stride_frames=2.0, min_gap_frames=8.0),
            losses=LossConfig(label_smoothing=0.1),
            agreement=AgreementConfig(momentum=0.9, tau=0.3, delta=0.1, mixture=0.95),
            decay_everything=False,
            optim=OptimPlan(
                lr=3e-4, min_lr=3e-6, weight_decay=0.05, warmup_fraction=0.1, clip_norm=1.0
            ),
        )

    @classmethod
    def tiny(cls) -> RdferConfig:
        """A small network for a laptop CPU."""
        return replace(
            cls.robust(),
            image_size_px=64,
            border_px=14,
            num_frames=16,
            synopsis_frames=8,
            augmentation=Augmentation(
                min_crop_area=0.8, flip_probability=0.5, brightness=0.2, contrast=0.2
            ),
            input_scale="frame",
            motion_gain=3.0,
            trunk=TrunkConfig(name="conv", pool_side=3, width=64, dropout=0.3, project_std=None),
            long_term=LongTermConfig(layers=1, hidden=48, num_heads=4),
            keys=KeyConfig(count=4, frames=2, stride_frames=1.0, min_gap_frames=1.0),
            losses=LossConfig(label_smoothing=0.05, synopsis_weight=0.3, instance_weight=0.1),
            agreement=AgreementConfig(
                momentum=0.9,
                tau=0.3,
                delta=0.1,
                mixture=0.95,
                start=0.5,
                teacher_decay=0.95,
                cap_per_epoch=0.1,
            ),
            batch_size=32,
            epochs=24,
            optim=OptimPlan(lr=3e-3, weight_decay=0.05, warmup_fraction=0.1),
        )
