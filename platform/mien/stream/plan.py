"""How clips are read, whatever the method that wants them."""

from __future__ import annotations

from dataclasses import dataclass

from mien.media.faces import FaceRule


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPlan:
    """How clips are read: the part of a stream that the recipe decides and not the method."""

    face_rule: FaceRule = "largest"
    """Whose face is followed where a clip shows several."""


DEFAULT = LoadPlan()
