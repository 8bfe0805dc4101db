"""What expressions are: action units (AUs) of the face, and the mesh units that move for each.

Action units follow Ekman and Friesen's Facial Action Coding System; the prototypes of the basic
emotions follow EMFACS, those of the compounds Du, Tao and Martinez (2014, CFEE), whose compounds
unite the action units of two basic emotions. Intensities are in [0, 1] here and in [0, 5] (FACS
A to E) in the manifest.
"""

from collections.abc import Mapping

CLASSES = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
"""The seven classes in DFEW's order."""

COMPOUNDS: Mapping[str, tuple[str, str]] = {
    "happily_surprised": ("happiness", "surprise"),
    "happily_disgusted": ("happiness", "disgust"),
    "sadly_fearful": ("sadness", "fear"),
    "sadly_angry": ("sadness", "anger"),
    "sadly_surprised": ("sadness", "surprise"),
    "sadly_disgusted": ("sadness", "disgust"),
    "fearfully_angry": ("fear", "anger"),
    "fearfully_surprised": ("fear", "surprise"),
    "fearfully_disgusted": ("fear", "disgust"),
    "angrily_surprised": ("anger", "surprise"),
    "angrily_disgusted": ("anger", "disgust"),
    "disgustedly_surprised": ("disgust", "surprise"),
}

MESH_UNITS: Mapping[str, Mapping[str, float]] = {
    "AU1": {"browInnerUp": 1.4},
    "AU2": {"browOuterUpLeft": 1.0, "browOuterUpRight": 1.0},
    "AU4": {"browDownLeft": 1.0, "browDownRight": 1.0},
    "AU5": {"eyeWideLeft": 1.0, "eyeWideRight": 1.0},
    "AU6": {
        "cheekSquintLeft": 1.0,
        "cheekSquintRight": 1.0,
        "eyeSquintLeft": 0.35,
        "eyeSquintRight": 0.35,
    },
    "AU7": {"eyeSquintLeft": 0.9, "eyeSquintRight": 0.9},
    "AU9": {"noseSneerLeft": 1.0, "noseSneerRight": 1.0},
    "AU10": {"mouthUpperUpLeft": 1.0, "mouthUpperUpRight": 1.0},
    "AU12": {"mouthSmileLeft": 1.35, "mouthSmileRight": 1.35},
    "AU14": {"mouthDimpleLeft": 1.0, "mouthDimpleRight": 1.0},
    "AU15": {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0},
    "AU16": {"mouthLowerDownLeft": 1.0, "mouthLowerDownRight": 1.0},
    "AU17": {"mouthShrugLower": 0.8, "mouthShrugUpper": 0.4},
    "AU18": {"mouthPucker": 1.0},
    "AU20": {"mouthStretchLeft": 1.0, "mouthStretchRight": 1.0},
    "AU22": {"mouthFunnel": 1.0},
    "AU23": {
        "mouthRollUpper": 0.35,
        "mouthRollLower": 0.35,
        "mouthPressLeft": 0.4,
        "mouthPressRight": 0.4,
    },
    "AU24": {"mouthPressLeft": 1.0, "mouthPressRight": 1.0},
    "AU26": {"jawOpen": 0.7},
    "AU28": {"mouthRollUpper": 0.9, "mouthRollLower": 0.9},
    "AU43": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
}
"""How far each ARKit unit of the mesh moves at AU intensity one."""

ACTION_UNITS = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15",
                "AU16", "AU17", "AU18", "AU20", "AU22", "AU23", "AU24", "AU25", "AU26", "AU28",
                "AU43")  # fmt: skip
"""The labelled action units. AU25 (lips part) follows from those that part the lips."""

LIPS_PART: Mapping[str, float] = {"AU26": 1.0, "AU16": 0.6, "AU10": 0.5, "AU22": 0.4, "AU12": 0.1}
"""How much lip parting (AU25) each action unit brings, at intensity one."""
LIPS_SHUT: Mapping[str, float] = {"AU24": 0.5, "AU23": 0.4, "AU28": 0.6, "AU17": 0.2}
"""How much each takes away."""

PROTOTYPES: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "happiness": (
        {"AU6": 0.8, "AU12": 1.0, "AU10": 0.4, "AU16": 0.35},
        {"AU6": 0.9, "AU12": 1.0, "AU26": 0.4, "AU10": 0.35},
        {"AU6": 0.5, "AU12": 0.75, "AU14": 0.35, "AU7": 0.2},
    ),
    "sadness": (
        {"AU1": 1.0, "AU4": 0.45, "AU15": 1.0, "AU17": 0.4, "AU43": 0.15},
        {"AU1": 0.9, "AU4": 0.6, "AU15": 0.6, "AU17": 0.8, "AU7": 0.2},
        {"AU1": 0.5, "AU15": 0.6, "AU43": 0.35},
    ),
    "neutral": ({},),
    "anger": (
        {"AU4": 1.0, "AU5": 0.3, "AU7": 0.6, "AU23": 0.9, "AU24": 0.4, "AU17": 0.3},
        {"AU4": 1.0, "AU7": 0.6, "AU10": 0.75, "AU16": 0.6, "AU26": 0.25, "AU9": 0.3},
        {"AU4": 0.9, "AU7": 0.8, "AU9": 0.5, "AU10": 0.5, "AU17": 0.3},
    ),
    "surprise": (
        {"AU1": 1.0, "AU2": 1.0, "AU5": 0.8, "AU26": 1.0},
        {"AU1": 0.9, "AU2": 1.0, "AU5": 0.6, "AU26": 0.6, "AU22": 0.3},
        {"AU1": 1.0, "AU2": 0.8, "AU5": 1.0, "AU26": 0.5, "AU20": 0.25},
    ),
    "disgust": (
        {"AU9": 1.0, "AU10": 0.8, "AU15": 0.4, "AU17": 0.4, "AU7": 0.4},
        {"AU9": 0.8, "AU10": 1.0, "AU16": 0.5, "AU26": 0.3, "AU7": 0.5, "AU6": 0.3},
        {"AU9": 0.7, "AU4": 0.6, "AU7": 0.7, "AU10": 0.6, "AU17": 0.4},
    ),
    "fear": (
        {"AU1": 1.0, "AU2": 0.6, "AU4": 0.6, "AU5": 1.0, "AU20": 1.0, "AU26": 0.3},
        {"AU1": 1.0, "AU2": 0.5, "AU4": 0.5, "AU5": 0.9, "AU20": 0.7, "AU16": 0.5, "AU26": 0.4},
        {"AU1": 1.0, "AU2": 0.8, "AU4": 0.2, "AU5": 1.0, "AU26": 0.6, "AU20": 0.35},
    ),
}
"""Ways to show each basic emotion. The last way of anger and disgust, and of fear and surprise, are
near one another on purpose: there the voice has to decide."""


def blend(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The union of two sets of action units, each at its larger intensity (CFEE's compounds)."""
    units = {**first}
    for name, value in second.items():
        units[name] = max(value, units.get(name, 0.0))
    return units


def basics_of(label: str) -> tuple[str, ...]:
    """The basic emotions that a class is made of: one, or two for a compound.

    Raises:
        KeyError: `label` is neither a basic emotion nor a known compound.
    """
    if label in PROTOTYPES:
        return (label,)
    return COMPOUNDS[label]
