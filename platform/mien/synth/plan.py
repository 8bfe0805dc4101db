"""Draws every clip of a set before anything is rendered: pure, ordered, the same for a seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mien.synth.chance import generator
from mien.synth.expressions import CLASSES, PROTOTYPES, basics_of, blend
from mien.synth.person import RGB, Person, draw_person
from mien.synth.prosody import Speech, draw_speech
from mien.synth.spec import SynthSpec

BACKGROUNDS = ("plain", "gradient", "bokeh", "stripes", "room")
AUDIO_KINDS = ("speech", "silent", "missing")


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """One rise and fall of a set of action units."""

    emotion: str
    action_units: Mapping[str, float]
    """Intensities in [0, 1] at the apex."""
    onset_s: float
    """When it begins to rise."""
    apex_s: float
    """When it is at full strength first."""
    release_s: float
    """When it begins to fall."""
    offset_s: float
    """When it is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Camera, pose, light and background of one clip."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    sway_deg: float
    head_share: float
    """Height of the head as a share of the picture's."""
    shift_x: float
    shift_y: float
    """Where the head is off the middle, as a share of the picture."""
    light_azimuth_deg: float
    light_elevation_deg: float
    light_intensity: float
    light_warmth: float
    """-1 cool ... 1 warm."""
    fill_intensity: float
    ambient: float
    exposure: float
    gloss: float
    background: str
    background_rgb: tuple[RGB, RGB]
    noise_sigma: float
    """Sensor noise, levels of 255."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """All that is drawn for one clip; `render.render_clip` and `voice.speak` add no chance."""

    clip_id: str
    seed: int
    person: Person
    label: str | None
    true_label: str
    soft_label: Mapping[str, float] | None
    expressions: tuple[Expression, ...]
    """The labelled one first."""
    intensity: float
    scene: Scene
    speech: Speech
    audio: str
    """One of AUDIO_KINDS."""
    is_label_noise: bool
    is_ambiguous: bool
    size_px: int
    num_frames: int
    fps: int
    samples_a_side: int

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return self.num_frames / self.fps

    @property
    def key_time_s(self) -> float:
        """Middle of the labelled expression's apex."""
        shown = self.expressions[0]
        return (shown.apex_s + shown.release_s) / 2


def plan_clips(spec: SynthSpec) -> list[ClipPlan]:
    """Draws all clips of a set, subject by subject.

    A clip's own draws depend on the seed and its id only; the planted shares (label noise and so
    on) are drawn over the whole set and met exactly.
    """
    slots = _slots(spec)
    ambiguous, multiple = _pick(spec, "expression", spec.ambiguous, spec.multi_expression)
    missing, silent = _pick(spec, "audio", spec.missing_audio, spec.silent_audio)
    people: dict[str, Person] = {}
    plans: list[ClipPlan] = []
    for index, (subject_id, label, clip_id) in enumerate(slots):
        if subject_id not in people:
            people[subject_id] = draw_person(spec.seed, subject_id)
        audio = "missing" if index in missing else "silent" if index in silent else "speech"
        plan = _plan_clip(spec, people[subject_id], label, clip_id, audio)
        if index in ambiguous:
            plan = _make_ambiguous(spec, plan)
        elif index in multiple:
            plan = _add_expressions(spec, plan)
        plans.append(plan)
    return _flip_labels(spec, plans)


def _slots(spec: SynthSpec) -> list[tuple[str, str, str]]:
    """Subject, class and clip id of every clip, in order."""
    slots = []
    for number in range(spec.num_subjects + spec.unlabelled_subjects):
        subject_id = f"{spec.subject_prefix}{number:04d}"
        for label in spec.all_classes:
            for take in range(spec.clips_per_class):
                slots.append((subject_id, label, f"{subject_id}-{label}-{take:02d}"))
    return slots


def _pick(spec: SynthSpec, what: str, first: float, second: float) -> tuple[set[int], set[int]]:
    """Two disjoint sets of clip numbers with exactly these shares of the set."""
    order = generator(spec.seed, "pick", what, spec.subject_prefix).permutation(spec.num_clips)
    cut = round(first * spec.num_clips)
    end = min(cut + round(second * spec.num_clips), spec.num_clips)
    return {int(i) for i in order[:cut]}, {int(i) for i in order[cut:end]}


def _plan_clip(spec: SynthSpec, person: Person, label: str, clip_id: str, audio: str) -> ClipPlan:
    rng = generator(spec.seed, "clip", clip_id)
    emotions = basics_of(label)
    intensity = 0.0 if label == "neutral" else float(rng.uniform(spec.min_intensity, 1.0))
    units: dict[str, float] = {}
    for emotion in emotions:
        units = blend(units, _draw_units(rng, person, emotion, intensity))
    subject_number = int(person.subject_id.removeprefix(spec.subject_prefix))
    return ClipPlan(
        clip_id=clip_id,
        seed=int(rng.integers(2**31)),
        person=person,
        label=label if subject_number < spec.num_subjects else None,
        true_label=label,
        soft_label={e: 1 / len(emotions) for e in emotions} if len(emotions) > 1 else None,
        expressions=(_draw_timing(rng, label, units, 0.0, spec.num_frames / spec.fps),),
        intensity=intensity,
        scene=_draw_scene(rng, spec.nuisance),
        speech=draw_speech(rng, person, emotions, max(intensity, 0.4)),
        audio=audio,
        is_label_noise=False,
        is_ambiguous=False,
        size_px=spec.size_px,
        num_frames=spec.num_frames,
        fps=spec.fps,
        samples_a_side=spec.samples_a_side,
    )


def _draw_units(
    rng: np.random.Generator, person: Person, emotion: str, intensity: float
) -> dict[str, float]:
    """One way of showing an emotion, with this person's habits and some looseness."""
    ways = PROTOTYPES[emotion]
    way = ways[int(rng.integers(len(ways)))]
    units = {}
    for name, value in way.items():
        loose = rng.uniform(0.8, 1.25) * (0.0 if rng.random() < 0.05 else 1.0)
        strength = value * intensity * person.expressiveness * person.habits[name] * loose
        units[name] = float(np.clip(strength, 0.0, 1.0))
    return units


def _draw_timing(
    rng: np.random.Generator,
    emotion: str,
    units: Mapping[str, float],
    start_s: float,
    end_s: float,
) -> Expression:
    """Places onset, apex, release and offset at random between two times."""
    span = end_s - start_s
    onset = start_s + span * rng.uniform(0.02, 0.22)
    apex = onset + span * rng.uniform(0.1, 0.25)
    release = apex + span * rng.uniform(0.35, 0.6)
    offset = release + span * rng.uniform(0.1, 0.25)
    return Expression(
        emotion=emotion,
        action_units=units,
        onset_s=float(onset),
        apex_s=float(apex),
        release_s=float(min(release, end_s)),
        offset_s=float(offset),
    )


def _draw_scene(rng: np.random.Generator, nuisance: float) -> Scene:
    """Draws a scene; ``nuisance`` scales how far it may be from a frontal, evenly lit portrait."""

    def around(middle: float, reach: float) -> float:
        return float(middle + nuisance * rng.uniform(-reach, reach))

    def angle(spread: float, limit: float) -> float:
        return float(nuisance * np.clip(rng.normal(0, spread), -limit, limit))

    first, second = rng.uniform(0.02, 0.8, 3), rng.uniform(0.02, 0.8, 3)
    grey = 0.55  # walls are duller than clothes
    first, second = (c.mean() * grey + c * (1 - grey) for c in (first, second))
    return Scene(
        yaw_deg=angle(10, 24),
        pitch_deg=angle(5, 12),
        roll_deg=angle(4, 10),
        sway_deg=around(1.5, 1.2),
        head_share=around(0.88, 0.08),
        shift_x=around(0.0, 0.05),
        shift_y=around(0.0, 0.04),
        light_azimuth_deg=around(0.0, 65.0),
        light_elevation_deg=around(30.0, 25.0),
        light_intensity=around(0.78, 0.22),
        light_warmth=around(0.0, 1.0),
        fill_intensity=around(0.25, 0.12),
        ambient=around(0.36, 0.1),
        exposure=around(1.0, 0.2),
        gloss=around(0.25, 0.2),
        background=str(rng.choice(BACKGROUNDS)),
        background_rgb=(_rgb(first), _rgb(second)),
        noise_sigma=around(2.2, 2.0),
    )


def _rgb(values: "np.typing.NDArray[np.float64]") -> RGB:
    return float(values[0]), float(values[1]), float(values[2])


def _make_ambiguous(spec: SynthSpec, plan: ClipPlan) -> ClipPlan:
    """Makes the expression weak (towards neutral) or mixed with another basic emotion."""
    rng = generator(spec.seed, "ambiguous", plan.clip_id)
    own = basics_of(plan.true_label)
    weak = bool(rng.random() < 0.5) and plan.true_label != "neutral"
    others = [name for name in CLASSES if name not in (*own, "neutral")]
    other = "neutral" if weak else others[int(rng.integers(len(others)))]
    share = float(rng.uniform(0.52, 0.7))
    shown = plan.expressions[0]
    own_strength, other_strength = (0.45, 0.0) if weak else (0.4 + share / 2, 1.2 - share)
    units = {name: value * own_strength for name, value in shown.action_units.items()}
    if not weak:
        added = _draw_units(rng, plan.person, other, other_strength * max(plan.intensity, 0.6))
        units = blend(units, added)
    soft = {name: share / len(own) for name in own}
    soft[other] = 1.0 - share
    return replace(
        plan,
        is_ambiguous=True,
        soft_label=soft,
        intensity=plan.intensity * own_strength,
        expressions=(replace(shown, action_units=units),),
        speech=draw_speech(rng, plan.person, (*own, other), 0.45 if weak else 0.7),
    )


def _add_expressions(spec: SynthSpec, plan: ClipPlan) -> ClipPlan:
    """Puts one or two weaker expressions of other emotions before or after the labelled one."""
    rng = generator(spec.seed, "multi", plan.clip_id)
    duration = plan.duration_s
    count = 3 if duration >= 3.0 and rng.random() < 0.5 else 2
    parts = [int(i) for i in rng.permutation(count)]
    avoid = (*basics_of(plan.true_label), "neutral")
    others = [name for name in CLASSES if name not in avoid]
    rng.shuffle(others)
    shown = []
    for order, part in enumerate(parts):
        emotion = plan.true_label if order == 0 else others[order - 1]
        units: Mapping[str, float] = plan.expressions[0].action_units
        if order:
            units = _draw_units(rng, plan.person, emotion, 0.6 * max(plan.intensity, 0.5))
        start, end = duration * part / count, duration * (part + 1) / count
        shown.append(_draw_timing(rng, emotion, units, start, end))
    return replace(plan, expressions=tuple(shown))


def _flip_labels(spec: SynthSpec, plans: list[ClipPlan]) -> list[ClipPlan]:
    labelled = [index for index, plan in enumerate(plans) if plan.label is not None]
    rng = generator(spec.seed, "flip", spec.subject_prefix)
    chosen = rng.permutation(labelled)[: round(spec.label_noise * len(labelled))]
    for index in sorted(int(i) for i in chosen):
        plan = plans[index]
        others = [name for name in spec.all_classes if name != plan.true_label]
        wrong = others[int(rng.integers(len(others)))]
        plans[index] = replace(plan, label=wrong, is_label_noise=True)
    return plans
