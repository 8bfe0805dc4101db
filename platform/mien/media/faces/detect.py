"""Faces in one frame, with five landmarks each. Shapes: T frames, H W pixels, C channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mien.media.faces.yunet import Floats, YuNet

Frame = npt.NDArray[np.uint8]

DETECTION_SIDE_PX = 320
"""Frames are shrunk to this long side for detection: 3x faster than 640 and no face lost there."""
ENLARGED_SIDE_PX = 128
"""Smaller frames are enlarged to it: that halves the landmarks' error in frames of 48 to 64 px."""
MIN_SCORE = 0.6
_LOOK_SIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face in one frame, in pixels of that frame."""

    box: Floats
    """x0, y0, x1, y1; may reach beyond the frame."""
    landmarks: Floats
    """[5, 2] x, y: the person's right eye, left eye, nose tip, right and left mouth corner."""
    score: float
    """The detector's confidence, 0 to 1."""
    look: Floats | None = None
    """The box's content in RGB [8, 8, 3], 0 to 1: enough to tell two people who pass each other."""

    @property
    def area_px(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceDetector:
    """YuNet on one CPU thread; several threads may use one detector at the same time.

    Making one sets OpenCV's number of threads to 1 for the whole process: a worker is one core.

    Args:
        min_score: Detections below this confidence are not faces.
        max_side_px: Frames whose long side is longer are shrunk to it for detection.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ValueError: the weights are not the ones this was tested with.
    """

    def __init__(
        self, *, min_score: float = MIN_SCORE, max_side_px: int = DETECTION_SIDE_PX
    ) -> None:
        cv2.setNumThreads(1)
        self._max_side_px = max_side_px
        self._network = YuNet(min_score)

    def detect(self, frame_HWC: Frame) -> list[Face]:
        """All faces of an RGB frame [H, W, 3], the largest first."""
        height, width = frame_HWC.shape[:2]
        long_side = max(height, width)
        smallest = min(ENLARGED_SIDE_PX, self._max_side_px)
        scale = min(max(long_side, smallest), self._max_side_px) / long_side
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = frame_HWC
        if scale != 1:
            kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(frame_HWC, size, interpolation=kind)
        to_frame = np.array([width / size[0], height / size[1]], dtype=np.float32)
        faces = [_face(row, to_frame, picture) for row in self._network.find(picture)]
        return sorted(faces, key=lambda face: -face.area_px)


def _face(row: Floats, to_frame: Floats, picture_HWC: Frame) -> Face:
    corner, sides = row[0:2] * to_frame, row[2:4] * to_frame
    return Face(
        box=np.concatenate([corner, corner + sides]).astype(np.float32),
        landmarks=(row[4:14].reshape(5, 2) * to_frame).astype(np.float32),
        score=float(row[14]),
        look=_look(picture_HWC, row[:4]),
    )


def _look(picture_HWC: Frame, corner_and_sides: Floats) -> Floats | None:
    x, y, width, height = np.round(corner_and_sides).astype(int).tolist()
    inside = picture_HWC[max(0, y) : y + height, max(0, x) : x + width]
    if inside.size == 0:
        return None
    small = cv2.resize(inside, (_LOOK_SIDE, _LOOK_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, dtype=np.float32)


def detect_faces(
    frames: Iterable[Frame], detector: FaceDetector, *, num_threads: int = 1
) -> Iterator[list[Face]]:
    """The faces of each frame, in the frames' order.

    Frames are taken from an iterator as they are needed, a few per thread ahead, so that a film
    need not be in memory as a whole.

    Args:
        frames: RGB [H, W, 3], uint8.
        detector: Finds the faces.
        num_threads: Cores to use. The network and OpenCV work outside of Python's lock.

    Raises:
        ValueError: less than one thread.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, not {num_threads}")
    if num_threads == 1:
        yield from map(detector.detect, frames)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: list[Future[list[Face]]] = []
        for frame in frames:
            waiting.append(pool.submit(detector.detect, frame))
            if len(waiting) >= 4 * num_threads:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
