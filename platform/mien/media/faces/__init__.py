"""Faces in frames: found, followed over a clip, and brought to where they stand still.

`detect` finds faces in one frame, `tracks` links them to people over a clip, `align` cuts crops in
which the five landmarks have fixed places, `clip` does all three for one person.
"""

from mien.media.faces.align import DEFAULT_MARGIN, align, alignment
from mien.media.faces.clip import AlignedClip, align_clip
from mien.media.faces.detect import Face, FaceDetector, detect_faces
from mien.media.faces.select import FaceRule, choose_track
from mien.media.faces.tracks import FaceTrack, FaceTracker, follow_face, track_faces
from mien.media.faces.yunet import YUNET_FILE, YUNET_SHA256

__all__ = [
    "DEFAULT_MARGIN",
    "YUNET_FILE",
    "YUNET_SHA256",
    "AlignedClip",
    "Face",
    "FaceDetector",
    "FaceRule",
    "FaceTrack",
    "FaceTracker",
    "align",
    "align_clip",
    "alignment",
    "choose_track",
    "detect_faces",
    "follow_face",
    "track_faces",
]
