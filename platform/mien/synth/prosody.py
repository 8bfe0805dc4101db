"""How an emotion sounds: pitch, rate, loudness and tremor of the voice, drawn once a clip.

The means follow what speakers do (Scherer, 2003: anger loud and fast, sadness low and slow); the
spreads are wide, so that the voice alone does not settle the class. Where two faces look alike
(anger and disgust, fear and surprise, a weak sadness and a neutral face) the voices differ most.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mien.synth.person import Person

SENTENCES = (
    "The parcel is on the table by the door.",
    "They said the bus will come at nine.",
    "I have put the keys in the other room.",
    "We are meeting them on Monday morning.",
    "She told me about it yesterday evening.",
    "There are seven chairs in the big hall.",
    "He is going to the station with his bag.",
    "You can leave the letter on my desk.",
    "The window on the left has been open.",
    "My sister lives above the old shop.",
    "It was the second time this week.",
    "Somebody is waiting for you outside.",
)
"""Sentences without emotional content: what is said tells nothing about the class."""

_MEANS: Mapping[str, tuple[float, float, float, float, float]] = {
    # pitch 0-99, pitch range 0-99, words a minute, loudness dB, tremor 0-1
    "happiness": (68, 72, 178, 0.0, 0.05),
    "sadness": (30, 22, 118, -8.0, 0.25),
    "neutral": (48, 40, 158, -3.0, 0.0),
    "anger": (42, 62, 190, 5.0, 0.0),
    "surprise": (80, 92, 168, 1.0, 0.0),
    "disgust": (26, 45, 132, -2.0, 0.05),
    "fear": (76, 35, 212, -4.0, 0.6),
}
_SPREAD = (9.0, 13.0, 15.0, 3.0, 0.08)
_REST = np.array(_MEANS["neutral"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """One clip's speech."""

    text: str
    voice: str
    """espeak-ng variant, for example f2."""
    pitch: float
    """espeak-ng's scale, 0 to 99."""
    pitch_range: float
    """espeak-ng's scale, 0 monotone to 99."""
    rate_wpm: float
    loudness_db: float
    tremor: float
    """Depth of a 6 Hz shaking of the voice."""
    start_s: float
    background_db: float
    """Level of the background noise, dB of full scale."""


def draw_speech(
    rng: np.random.Generator, person: Person, emotions: tuple[str, ...], intensity: float
) -> Speech:
    """Draws how a person says something.

    Args:
        rng: The clip's stream of chance.
        person: Has a voice, a pitch and a rate of their own.
        emotions: One emotion, or several to mix.
        intensity: 0 speaks as if neutral, 1 the full prosody.
    """
    mean = np.mean([_MEANS[emotion] for emotion in emotions], axis=0)
    strength = 0.45 + 0.55 * intensity
    pitch, spread, rate, loudness, tremor = (
        _REST + strength * (mean - _REST) + rng.normal(0, _SPREAD)
    )
    return Speech(
        text=SENTENCES[int(rng.integers(len(SENTENCES)))],
        voice=person.voice,
        pitch=float(np.clip(pitch + person.voice_pitch_shift, 0, 99)),
        pitch_range=float(np.clip(spread, 5, 99)),
        rate_wpm=float(np.clip(rate * person.voice_rate_factor, 80, 320)),
        loudness_db=float(loudness),
        tremor=float(np.clip(tremor, 0, 0.8)),
        start_s=float(rng.uniform(0.03, 0.3)),
        background_db=float(rng.uniform(-62, -40)),
    )
