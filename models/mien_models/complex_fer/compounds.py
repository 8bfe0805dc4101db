"""Which basic expressions a class is made of, read from its name.

Names are those that data sets use: ``happily surprised`` (CFEE, RAF-DB), ``happily_surprised``
(built-in clips), ``anger_anxiety`` (lists of singles, as MAFW's), and CFEE's three single words.
"""

from __future__ import annotations

import re

_WORDS: dict[str, str] = {
    word: basic
    for basic, words in {
        "happiness": "happiness happy happily joy",
        "sadness": "sadness sad sadly",
        "fear": "fear fearful fearfully",
        "anger": "anger angry angrily",
        "surprise": "surprise surprised surprisingly",
        "disgust": "disgust disgusted disgustedly",
        "neutral": "neutral",
        "contempt": "contempt contemptuous",
        # MAFW's further single expressions, of which its compound classes are made too.
        "anxiety": "anxiety anxious",
        "helplessness": "helplessness helpless",
        "disappointment": "disappointment disappointed",
    }.items()
    for word in words.split()
}
_BLENDS: dict[str, tuple[str, ...]] = {
    "appalled": ("disgust", "anger"),
    "hatred": ("anger", "disgust"),
    "awed": ("surprise", "fear"),
}
"""CFEE's compounds that are no pair of words (Du et al. 2014); the first part is the stronger."""


def components_of(name: str) -> tuple[str, ...]:
    """The basic expressions that a class is made of; a class that is no blend is its own.

    >>> components_of("happily_surprised")
    ('happiness', 'surprise')
    >>> components_of("happiness")
    ('happiness',)
    """
    words = [word for word in re.split(r"[\s_,+&/-]+", name.lower()) if word not in ("", "and")]
    if len(words) == 1 and words[0] in _BLENDS:
        return _BLENDS[words[0]]
    parts = tuple(dict.fromkeys(_WORDS[word] for word in words if word in _WORDS))
    if len(parts) != len(words):
        return (name,)
    return parts


def is_compound(name: str) -> bool:
    """Whether a class is made of more than one basic expression."""
    return len(components_of(name)) > 1
