"""How clips are read, whatever the method that wants them."""

from __future__ import annotations

from dataclasses import dataclass

from mien.cache.view import CachedClips
from mien.clips.manifest import ClipRef
from mien.media.faces import FaceRule
from mien.stream.prepare import ChooseFrames, CropSettings, PreparedClip, prepare_clip
from mien_models.contract import StreamSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPlan:
    """How clips are read: the part of a stream that the recipe decides and not the method."""

    face_rule: FaceRule = "largest"
    """Whose face is followed where a clip shows several."""
    cache: CachedClips | None = None
    """Clips that need not be decoded any more."""

    def crops(self, spec: StreamSpec) -> CropSettings:
        """What a stream needs of each clip."""
        return CropSettings(
            image_size_px=spec.image_size_px,
            align_faces=spec.align_faces,
            face_rule=self.face_rule,
            with_audio=spec.audio is not None,
            native_sound=spec.audio is not None and spec.audio.sound == "native",
            picture_order=spec.picture_order,
        )

    def prepare(self, ref: ClipRef, spec: StreamSpec, choose_frames: ChooseFrames) -> PreparedClip:
        """The wanted frames and the sound of a clip: from the cache, or else decoded.

        Raises:
            ClipError: the clip cannot be decoded, now or when the cache was made; says why.
            CacheError: the cache is damaged, or was changed while it is in use.
        """
        crops = self.crops(spec)
        if self.cache is not None:
            clip = self.cache.read(ref.clip_id, crops, choose_frames)
            if clip is not None:
                return clip
        return prepare_clip(ref, crops, choose_frames)


DEFAULT = LoadPlan()
