"""What the entries of one kind were made with; other settings are other entries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from mien.cache.images import ENCODER_VERSION, ImageFormat
from mien.media.faces import DEFAULT_MARGIN, YUNET_SHA256
from mien.stream.prepare import PREPARE_VERSION, SAMPLE_RATE_HZ, CropSettings

FORMAT_VERSION = 2
"""To be raised when the files of a cache change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAs:
    """How prepared clips are stored."""

    image_format: ImageFormat = "jpeg"
    max_frames: int | None = None
    """Longer clips are kept as this many evenly spaced frames; None: every frame."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(
                "data.cache_max_frames: a cache keeps at least one frame of a clip (or none: all "
                f"of them), got {self.max_frames}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """Everything that decides what an entry holds, but for the clip itself."""

    crops: CropSettings
    stored_as: StoredAs

    @property
    def digest(self) -> str:
        """A name for these settings in this version of Mien."""
        return _digest(self)

    def to_json(self) -> dict[str, Any]:
        """Readable values, and enough for :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CacheSettings:
        """The settings that :meth:`to_json` wrote."""
        return cls(crops=CropSettings(**values["crops"]), stored_as=StoredAs(**values["stored_as"]))

    def describe(self) -> str:
        """One line for people."""
        crops, stored = self.crops, self.stored_as
        what = f"faces ({crops.face_rule})" if crops.align_faces else "whole pictures"
        frames = "all frames" if stored.max_frames is None else f"{stored.max_frames} frames"
        own = ", at its own rate" if crops.native_sound else ""
        sound = f"sound{own}" if crops.with_audio else "no sound"
        return f"{what} at {crops.image_size_px} px, {stored.image_format}, {frames}, {sound}"


@lru_cache(maxsize=64)
def _digest(settings: CacheSettings) -> str:
    made_by = {
        "format": FORMAT_VERSION,
        "prepare": PREPARE_VERSION,
        "encoder": ENCODER_VERSION,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "detector": YUNET_SHA256,
        "margin": DEFAULT_MARGIN,
    }
    text = json.dumps([settings.to_json(), made_by], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
