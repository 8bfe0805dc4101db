"""Who a synthetic person is: drawn once a subject, the same in every clip of that person."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mien.synth.chance import generator
from mien.synth.expressions import MESH_UNITS

RGB = tuple[float, float, float]

HAIR_STYLES = ("shaved", "short", "full", "bob", "long")
HAIR_COLOURS: Mapping[str, RGB] = {
    "black": (0.07, 0.06, 0.06),
    "dark_brown": (0.17, 0.11, 0.08),
    "brown": (0.32, 0.20, 0.12),
    "red": (0.48, 0.21, 0.10),
    "blond": (0.72, 0.56, 0.34),
    "grey": (0.58, 0.57, 0.56),
}
EYE_COLOURS: Mapping[str, RGB] = {
    "dark": (0.16, 0.09, 0.05),
    "brown": (0.33, 0.19, 0.09),
    "hazel": (0.40, 0.32, 0.15),
    "green": (0.30, 0.42, 0.28),
    "blue": (0.30, 0.44, 0.60),
    "grey": (0.42, 0.47, 0.50),
}
_LIGHT_SKIN = np.array([0.93, 0.76, 0.66])
_DARK_SKIN = np.array([0.33, 0.20, 0.14])

TRAITS: Mapping[str, tuple[str, str, float]] = {
    "face_fat": ("head/head-fat-decr", "head/head-fat-incr", 0.45),
    "face_width": ("head/head-scale-horiz-decr", "head/head-scale-horiz-incr", 0.28),
    "face_height": ("head/head-scale-vert-decr", "head/head-scale-vert-incr", 0.3),
    "oval_round": ("head/head-oval", "head/head-round", 0.35),
    "square_diamond": ("head/head-square", "head/head-diamond", 0.35),
    "triangle": ("head/head-triangular", "head/head-invertedtriangular", 0.25),
    "forehead_height": (
        "forehead/forehead-scale-vert-decr",
        "forehead/forehead-scale-vert-incr",
        0.2,
    ),
    "forehead_slope": ("forehead/forehead-trans-backward", "forehead/forehead-trans-forward", 0.35),
    "nose_width": ("nose/nose-scale-horiz-decr", "nose/nose-scale-horiz-incr", 0.5),
    "nose_length": ("nose/nose-scale-vert-decr", "nose/nose-scale-vert-incr", 0.45),
    "nose_depth": ("nose/nose-scale-depth-decr", "nose/nose-scale-depth-incr", 0.45),
    "nose_hump": ("nose/nose-hump-decr", "nose/nose-hump-incr", 0.5),
    "nose_curve": ("nose/nose-curve-concave", "nose/nose-curve-convex", 0.4),
    "nose_tip": ("nose/nose-point-down", "nose/nose-point-up", 0.5),
    "nose_flare": ("nose/nose-flaring-decr", "nose/nose-flaring-incr", 0.4),
    "nose_volume": ("nose/nose-volume-decr", "nose/nose-volume-incr", 0.4),
    "mouth_width": ("mouth/mouth-scale-horiz-decr", "mouth/mouth-scale-horiz-incr", 0.4),
    "mouth_height": ("mouth/mouth-trans-down", "mouth/mouth-trans-up", 0.35),
    "lower_lip": ("mouth/mouth-lowerlip-volume-decr", "mouth/mouth-lowerlip-volume-incr", 0.5),
    "upper_lip": ("mouth/mouth-upperlip-volume-decr", "mouth/mouth-upperlip-volume-incr", 0.5),
    "lower_lip_height": (
        "mouth/mouth-lowerlip-height-decr",
        "mouth/mouth-lowerlip-height-incr",
        0.4,
    ),
    "upper_lip_height": (
        "mouth/mouth-upperlip-height-decr",
        "mouth/mouth-upperlip-height-incr",
        0.4,
    ),
    "mouth_corners": ("mouth/mouth-angles-down", "mouth/mouth-angles-up", 0.25),
    "eye_size": ("eyes/{}-eye-scale-decr", "eyes/{}-eye-scale-incr", 0.35),
    "eye_apart": ("eyes/{}-eye-trans-in", "eyes/{}-eye-trans-out", 0.35),
    "eye_open": ("eyes/{}-eye-height2-decr", "eyes/{}-eye-height2-incr", 0.35),
    "eye_tilt": ("eyes/{}-eye-corner1-down", "eyes/{}-eye-corner1-up", 0.4),
    "eye_bag": ("eyes/{}-eye-bag-decr", "eyes/{}-eye-bag-incr", 0.4),
    "brow_angle": ("eyebrows/eyebrows-angle-down", "eyebrows/eyebrows-angle-up", 0.12),
    "brow_height": ("eyebrows/eyebrows-trans-down", "eyebrows/eyebrows-trans-up", 0.3),
    "cheek_bones": ("cheek/{}-cheek-bones-decr", "cheek/{}-cheek-bones-incr", 0.45),
    "cheek_volume": ("cheek/{}-cheek-volume-decr", "cheek/{}-cheek-volume-incr", 0.45),
    "chin_height": ("chin/chin-height-decr", "chin/chin-height-incr", 0.4),
    "chin_width": ("chin/chin-width-decr", "chin/chin-width-incr", 0.45),
    "chin_forward": ("chin/chin-prominent-decr", "chin/chin-prominent-incr", 0.4),
    "jaw_bones": ("chin/chin-bones-decr", "chin/chin-bones-incr", 0.4),
    "ear_size": ("ears/{}-ear-scale-decr", "ears/{}-ear-scale-incr", 0.35),
    "ear_wing": ("ears/{}-ear-wing-decr", "ears/{}-ear-wing-incr", 0.4),
}
"""Trait -> MakeHuman target towards less, target towards more ({} is the side), spread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Everything about a person that stays from clip to clip."""

    subject_id: str
    seed: int
    sex: str
    """female or male."""
    age: float
    """Years, 18 to 75."""
    ancestry: tuple[float, float, float]
    """Shares of MakeHuman's african, asian and caucasian base shapes."""
    weight: float
    """-1 thin ... 1 heavy."""
    traits: Mapping[str, float]
    """Weight in [-1, 1] of each of TRAITS."""
    skin_rgb: RGB
    hair_style: str
    hair_colour: str
    eye_colour: str
    brow_thickness: float
    beard: float
    """0 none ... 1 full."""
    makeup: float
    cloth_rgb: RGB
    voice: str
    """espeak-ng voice variant."""
    voice_pitch_shift: float
    voice_rate_factor: float
    expressiveness: float
    """Scales every expression of this person."""
    habits: Mapping[str, float]
    """This person's own factor for each action unit."""
    resting: Mapping[str, float]
    """Action units of this person's face at rest (a resting frown, a resting smile)."""

    def __hash__(self) -> int:
        return self.seed


def draw_person(seed: int, subject_id: str) -> Person:
    """Draws a person from the seed and the name alone."""
    rng = generator(seed, "person", subject_id)
    sex = "female" if rng.random() < 0.5 else "male"
    age = float(np.clip(18 + 57 * rng.beta(1.3, 1.8), 18, 75))
    african, asian, caucasian = (float(x) for x in rng.dirichlet((0.5, 0.5, 0.7)))
    darkness = 0.95 * african + 0.35 * asian + 0.12 * caucasian + rng.normal(0, 0.1)
    skin = _LIGHT_SKIN + (_DARK_SKIN - _LIGHT_SKIN) * np.clip(darkness, 0.0, 1.0)
    skin = np.clip(skin * (1 + rng.normal(0, (0.02, 0.03, 0.04))), 0.05, 0.97)
    cloth = np.clip(rng.uniform(0.08, 0.9) * (0.5 + rng.random(3)), 0.03, 0.95)
    return Person(
        subject_id=subject_id,
        seed=int(rng.integers(2**31)),
        sex=sex,
        age=age,
        ancestry=(african, asian, caucasian),
        weight=float(np.clip(rng.normal(0, 0.45), -1, 1)),
        traits=_draw_traits(rng),
        skin_rgb=_rgb(skin),
        hair_style=_draw_hair_style(rng, sex),
        hair_colour=_draw_hair_colour(rng, age, caucasian),
        eye_colour=_draw_eye_colour(rng, caucasian),
        brow_thickness=float(rng.uniform(0.6, 1.2) * (0.85 if sex == "female" else 1.1)),
        beard=_draw_beard(rng, sex),
        makeup=float(rng.random() ** 2) if sex == "female" else 0.0,
        cloth_rgb=_rgb(cloth),
        voice=("f" if sex == "female" else "m") + str(int(rng.integers(1, 5))),
        voice_pitch_shift=float(rng.normal(0, 9)),
        voice_rate_factor=float(rng.lognormal(0, 0.08)),
        expressiveness=float(rng.uniform(0.95, 1.25)),
        habits={unit: float(rng.uniform(0.8, 1.2)) for unit in MESH_UNITS},
        resting=_draw_resting(rng),
    )


def _rgb(values: "np.typing.NDArray[np.float64]") -> RGB:
    return float(values[0]), float(values[1]), float(values[2])


def _draw_traits(rng: np.random.Generator) -> dict[str, float]:
    return {
        name: float(np.clip(rng.normal(0, 0.75 * spread), -0.9, 0.9))
        for name, (_, _, spread) in TRAITS.items()
    }


def _draw_hair_style(rng: np.random.Generator, sex: str) -> str:
    shares = (0.02, 0.14, 0.24, 0.3, 0.3) if sex == "female" else (0.16, 0.5, 0.28, 0.03, 0.03)
    return str(rng.choice(HAIR_STYLES, p=shares))


def _draw_hair_colour(rng: np.random.Generator, age: float, caucasian: float) -> str:
    if rng.random() < np.clip((age - 45) / 35, 0, 0.85):
        return "grey"
    light = 0.75 * caucasian
    shares = np.array([0.5 * (1 - light), 0.3, 0.1 + 0.25 * light, 0.09 * light, 0.35 * light])
    return str(rng.choice(list(HAIR_COLOURS)[:5], p=shares / shares.sum()))


def _draw_eye_colour(rng: np.random.Generator, caucasian: float) -> str:
    light = max(0.0, caucasian - 0.3)
    shares = np.array([0.45, 0.4, 0.3 * light, 0.2 * light, 0.4 * light, 0.2 * light])
    return str(rng.choice(list(EYE_COLOURS), p=shares / shares.sum()))


def _draw_beard(rng: np.random.Generator, sex: str) -> float:
    if sex == "female" or rng.random() < 0.5:
        return 0.0
    return float(rng.uniform(0.15, 1.0))


def _draw_resting(rng: np.random.Generator) -> dict[str, float]:
    """Faces at rest differ: some frown a little, some smile a little."""
    names = ("AU1", "AU2", "AU4", "AU12", "AU15", "AU24", "AU7", "AU17", "AU43")
    picked = rng.choice(len(names), size=2, replace=False)
    return {names[int(index)]: float(rng.uniform(0.0, 0.15)) for index in sorted(picked)}
