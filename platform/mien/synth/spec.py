"""What a synthetic data set shall hold: one frozen object, checked when it is made."""

import difflib
from dataclasses import dataclass

from mien.synth.expressions import CLASSES, COMPOUNDS

_SHARES = (
    "label_noise",
    "ambiguous",
    "multi_expression",
    "missing_audio",
    "silent_audio",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthSpec:
    """Every knob of a synthetic data set.

    The defaults give a clean set. Each share is planted exactly: with N clips, `round(share * N)`
    of them, drawn by the seed.

    Raises:
        ValueError: A knob is out of range; the message says which and what it may be.
    """

    num_subjects: int = 110
    """People with labels."""
    clips_per_class: int = 1
    """Clips a person and class."""
    classes: tuple[str, ...] = CLASSES
    """Basic emotions to show, a subset of CLASSES."""
    compounds: tuple[str, ...] = ()
    """Further classes that unite two basic emotions, for example "happily_surprised"."""
    size_px: int = 128
    """Side of the square picture; even, 32 to 1024."""
    duration_s: float = 2.0
    fps: int = 25
    seed: int = 0
    min_intensity: float = 0.6
    """Weakest expression that is drawn, of 1; neutral faces stay at 0."""
    nuisance: float = 1.0
    """How much pose, light, framing and noise vary: 1 a street interview, 0 a photo booth."""
    label_noise: float = 0.0
    """Share of labelled clips whose label is flipped to another class (`true_label` keeps it)."""
    ambiguous: float = 0.0
    """Share of clips that show a weak or mixed expression (`soft_label` says which)."""
    multi_expression: float = 0.0
    """Share of clips with more than one expression; `key_time_s` is the labelled one's apex."""
    missing_audio: float = 0.0
    """Share of clips without an audio stream."""
    silent_audio: float = 0.0
    """Share of clips whose audio stream is silent."""
    unlabelled_subjects: int = 0
    """People on top of `num_subjects` whose clips have no label."""
    supersample: bool | None = None
    """Four samples a pixel; None: yes up to 160 px, where it matters most."""
    subject_prefix: str = "s"
    """Subjects are named prefix + number; sets with other prefixes hold other people."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_classes()
        for name in ("min_intensity", "nuisance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        for name in _SHARES:
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"{name} is a share of the clips and must be in [0, 1], not {value}"
                )
        for pair in (("missing_audio", "silent_audio"), ("ambiguous", "multi_expression")):
            total = sum(getattr(self, name) for name in pair)
            if total > 1.0:
                raise ValueError(
                    f"{pair[0]} and {pair[1]} exclude each other in a clip, so that together they "
                    f"may be at most 1, not {total:g}"
                )

    def _check_counts(self) -> None:
        if self.num_subjects < 0 or self.unlabelled_subjects < 0:
            raise ValueError(
                "num_subjects and unlabelled_subjects may not be negative, "
                f"got {self.num_subjects} and {self.unlabelled_subjects}"
            )
        if self.num_subjects + self.unlabelled_subjects < 1:
            raise ValueError("num_subjects is 0: at least one person is needed")
        if self.clips_per_class < 1:
            raise ValueError(f"clips_per_class must be at least 1, not {self.clips_per_class}")
        if not 32 <= self.size_px <= 1024 or self.size_px % 2:
            raise ValueError(
                f"size_px must be an even number from 32 to 1024 (H.264), not {self.size_px}"
            )
        if not 1 <= self.fps <= 120:
            raise ValueError(f"fps must be from 1 to 120, not {self.fps}")
        if not 0.2 <= self.duration_s <= 600.0:
            raise ValueError(f"duration_s must be from 0.2 to 600 seconds, not {self.duration_s}")
        if self.num_frames < 2:
            raise ValueError(
                f"{self.duration_s} s at {self.fps} frames a second is less than two frames; "
                "raise duration_s or fps"
            )
        if not self.subject_prefix or not self.subject_prefix.replace("-", "_").isidentifier():
            raise ValueError(
                "subject_prefix names folders and must be letters, digits, - or _, starting with "
                f"a letter, not {self.subject_prefix!r}"
            )

    def _check_classes(self) -> None:
        if not self.classes and not self.compounds:
            raise ValueError("classes is empty: name at least one of " + ", ".join(CLASSES))
        for kind, given, known in (
            ("classes", self.classes, CLASSES),
            ("compounds", self.compounds, tuple(COMPOUNDS)),
        ):
            for name in given:
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ValueError(
                        f"{kind} holds {name!r}, which is not one of {', '.join(known)}{hint}"
                    )
            if len(set(given)) != len(given):
                raise ValueError(f"{kind} names a class twice: {', '.join(given)}")
        if self.label_noise > 0.0 and len(self.all_classes) < 2:
            raise ValueError("label_noise needs at least two classes to flip between")

    @property
    def all_classes(self) -> tuple[str, ...]:
        """Basic classes, then compounds."""
        return self.classes + self.compounds

    @property
    def num_frames(self) -> int:
        """Frames a clip."""
        return round(self.duration_s * self.fps)

    @property
    def num_clips(self) -> int:
        """Clips of the whole set, unlabelled ones included."""
        people = self.num_subjects + self.unlabelled_subjects
        return people * self.clips_per_class * len(self.all_classes)

    @property
    def samples_a_side(self) -> int:
        """Samples of a pixel in each direction."""
        use = self.size_px <= 160 if self.supersample is None else self.supersample
        return 2 if use else 1


def describe(spec: SynthSpec) -> str:
    """A few lines that say what the set will hold, to print before it is made."""
    people = spec.num_subjects + spec.unlabelled_subjects
    lines = [
        f"{spec.num_clips} clips of {people} people, {len(spec.all_classes)} classes, "
        f"{spec.duration_s:g} s at {spec.fps} fps, {spec.size_px}x{spec.size_px} px, "
        f"seed {spec.seed}"
    ]
    planted = [f"{name} {getattr(spec, name):.0%}" for name in _SHARES if getattr(spec, name) > 0]
    if spec.unlabelled_subjects:
        planted.append(f"{spec.unlabelled_subjects} people without labels")
    if planted:
        lines.append("planted: " + ", ".join(planted))
    return "\n".join(lines)
