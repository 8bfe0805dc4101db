"""The same person from frame to frame: detections of all frames linked to tracks.

A track is what a tracker followed and not an identity: a person who leaves the picture and enters
it elsewhere starts a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mien.media.faces.detect import Face, FaceDetector, Frame, detect_faces
from mien.media.faces.yunet import Floats

MIN_OVERLAP = 0.1
"""Intersection over union from which on a face continues a track wherever its centre is."""
MAX_STEP_SIDES = 1.0
"""Sides of the box that a face may move between two frames; sparse sampling needs that much."""
_IMPOSSIBLE = 1e6
_VELOCITY_SHARE = 0.6
"""How much the newest step counts in a track's velocity."""
_CONTACT_SIDES = 1.5
"""Faces whose centres are nearer than this hide parts of each other."""
_LOOK_WEIGHT = 10.0
"""Another person's look differs by 0.1 to 0.3 and one's own by 0.03: that of a face's side."""
_LOOK_SHARE = 0.2
"""How much the newest look counts in a track's."""
_MAX_COASTING_FRAMES = 10
"""For so long a person who is not seen is expected to go on as before."""


@dataclass(slots=True, kw_only=True)
class FaceTrack:
    """One person's faces over a clip or film."""

    track_id: int
    """Counts up from 0 in the order in which tracks begin."""
    frames: list[int] = field(default_factory=list)
    """Numbers of the frames in which the person was found, increasing."""
    faces: list[Face] = field(default_factory=list)
    """The face in each of these frames."""

    @property
    def area_px(self) -> float:
        """Square pixels that the face covers, summed over the frames."""
        return sum(face.area_px for face in self.faces)

    @property
    def boxes_N4(self) -> Floats:
        """x0, y0, x1, y1 in each of `frames`."""
        return np.stack([face.box for face in self.faces])

    @property
    def landmarks_N52(self) -> Floats:
        """As `Face.landmarks`, in each of `frames`."""
        return np.stack([face.landmarks for face in self.faces])

    @property
    def scores_N(self) -> Floats:
        """The detector's confidence in each of `frames`."""
        return np.array([face.score for face in self.faces], dtype=np.float32)

    def in_frames(self, num_frames: int) -> list[Face | None]:
        """The face in each of the first ``num_frames`` frames, None where it was not found."""
        found = dict(zip(self.frames, self.faces, strict=True))
        return [found.get(index) for index in range(num_frames)]


class FaceTracker:
    """Links faces to tracks, frame after frame.

    All faces of a frame are matched with all tracks at once (Hungarian method), so that two people
    who pass each other don't swap. What is compared: place and size with those that the track's
    last steps make expected, and the face's look with the track's. A face continues a track only
    if its box overlaps the last or the expected one (intersection over union of `MIN_OVERLAP`) or
    its centre is less than `MAX_STEP_SIDES` away from one of them; every other face begins a track.

    Args:
        max_gap_frames: A track that was not found for more frames than this is over. None: never,
            which suits clips; films need a bound.
        keeps_faces: Whether `tracks` is kept. False for films: memory then holds the newest faces
            of the tracks that are not over, however long the film.
    """

    def __init__(self, *, max_gap_frames: int | None = None, keeps_faces: bool = True) -> None:
        self._max_gap_frames = max_gap_frames
        self._keeps_faces = keeps_faces
        self._open: list[_OpenTrack] = []
        self.num_tracks = 0
        """Tracks so far, those that are over included."""
        self.tracks: list[FaceTrack] = []
        """All of them; empty where faces are not kept."""

    def update(self, frame: int, faces: Sequence[Face]) -> list[int]:
        """Takes in a frame's faces and returns their track ids, in the faces' order.

        Args:
            frame: The frame's number, larger than that of the last call.
            faces: All of its faces.
        """
        if self._max_gap_frames is not None:
            oldest = frame - self._max_gap_frames - 1
            self._open = [track for track in self._open if track.last_frame >= oldest]
        continued = self._match(frame, faces)
        ids = []
        for index, face in enumerate(faces):
            track = continued.get(index) or self._begin()
            track.extend(frame, face, is_alone=_is_alone(face, faces))
            if not self._keeps_faces:
                track.forget_old_faces()
            ids.append(track.track.track_id)
        return ids

    def _match(self, frame: int, faces: Sequence[Face]) -> dict[int, _OpenTrack]:
        """The track that each face continues, by the face's index.

        Tracks that were just seen come first: whoever reappears gets a face that nobody else has.
        """
        continued: dict[int, _OpenTrack] = {}
        newest = max((track.last_frame for track in self._open), default=0)
        for is_in_view in (True, False):
            tracks = [t for t in self._open if (t.last_frame == newest) == is_in_view]
            free = [index for index in range(len(faces)) if index not in continued]
            if not tracks or not free:
                continue
            costs = np.array([[track.cost(frame, faces[i]) for i in free] for track in tracks])
            for row, column in zip(*linear_sum_assignment(costs), strict=True):
                if costs[row, column] < _IMPOSSIBLE:
                    continued[free[column]] = tracks[row]
        return continued

    def _begin(self) -> _OpenTrack:
        track = _OpenTrack(FaceTrack(track_id=self.num_tracks))
        self.num_tracks += 1
        if self._keeps_faces:
            self.tracks.append(track.track)
        self._open.append(track)
        return track


class _OpenTrack:
    """A track, and where its next face is expected."""

    def __init__(self, track: FaceTrack) -> None:
        self.track = track
        self.last_frame = -1
        self._velocity = np.zeros(2)
        self._look: Floats | None = None

    def extend(self, frame: int, face: Face, *, is_alone: bool) -> None:
        # Beside another face the box is dragged along and shows part of the other.
        if self.track.faces and is_alone:
            step = (_centre(face) - _centre(self.track.faces[-1])) / (frame - self.last_frame)
            share = 1.0 if len(self.track.faces) == 1 else _VELOCITY_SHARE
            self._velocity = share * step + (1 - share) * self._velocity
        if face.look is not None and (is_alone or self._look is None):
            looked = face.look if self._look is None else self._look
            self._look = looked + _LOOK_SHARE * (face.look - looked)
        self.track.frames.append(frame)
        self.track.faces.append(face)
        self.last_frame = frame

    def forget_old_faces(self) -> None:
        # Two are left: that a track has just begun shows in its having one.
        del self.track.frames[:-2], self.track.faces[:-2]

    def cost(self, frame: int, face: Face) -> float:
        """How badly a face fits; `_IMPOSSIBLE` if it can't be this person's."""
        last = self.track.faces[-1]
        moved = self._velocity * min(frame - self.last_frame, _MAX_COASTING_FRAMES)
        expected = last.box + np.concatenate([moved, moved])
        is_possible = any(
            overlap(box, face.box) >= MIN_OVERLAP or _steps(box, face.box) < MAX_STEP_SIDES
            for box in (last.box, expected)
        )
        if not is_possible:
            return _IMPOSSIBLE
        misfit = abs(float(np.log(max(1.0, face.area_px) / max(1.0, last.area_px)))) / 2
        if face.look is not None and self._look is not None:
            misfit += _LOOK_WEIGHT * float(np.abs(face.look - self._look).mean())
        return min(_steps(expected, face.box), 2 * MAX_STEP_SIDES) + misfit


def track_faces(
    frames: Iterable[Frame],
    *,
    detector: FaceDetector,
    max_gap_frames: int | None = None,
    num_threads: int = 1,
) -> list[FaceTrack]:
    """Everybody's faces over the frames of a clip or film; nothing is cropped.

    Args:
        frames: RGB [H, W, 3], uint8, in order of time; an iterator is read once, frame by frame.
        detector: Finds the faces.
        max_gap_frames: See `FaceTracker`.
        num_threads: Cores that detection uses.

    Returns:
        The tracks in the order in which they begin, the larger face first. Each has its frames'
        numbers, boxes, landmarks and scores.
    """
    tracker = FaceTracker(max_gap_frames=max_gap_frames)
    for index, faces in enumerate(detect_faces(frames, detector, num_threads=num_threads)):
        tracker.update(index, faces)
    return tracker.tracks


def link_faces(faces_T: Sequence[Sequence[Face]]) -> list[FaceTrack]:
    """As `track_faces`, from the faces that were found in each frame."""
    tracker = FaceTracker()
    for index, faces in enumerate(faces_T):
        tracker.update(index, faces)
    return tracker.tracks


def follow_face(faces_T: Sequence[Sequence[Face]]) -> list[Face | None]:
    """One person's face in each frame, or None where it is not found.

    The person is the largest face of the first frame that has any.
    """
    start = next((index for index, faces in enumerate(faces_T) if faces), None)
    if start is None:
        return [None] * len(faces_T)
    largest = max(faces_T[start], key=lambda face: face.area_px)
    track = next(track for track in link_faces(faces_T) if track.faces[0] is largest)
    return track.in_frames(len(faces_T))


def overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    shared = float(width * height)
    return shared / (sum(areas) - shared)


def _is_alone(face: Face, faces: Sequence[Face]) -> bool:
    others = (other for other in faces if other is not face)
    return all(_steps(face.box, other.box) > _CONTACT_SIDES for other in others)


def _centre(face: Face) -> Floats:
    return np.asarray((face.box[:2] + face.box[2:]) / 2, dtype=np.float32)


def _steps(last: Floats, box: Floats) -> float:
    """Distance of two boxes' centres in sides of the first."""
    move = (box[:2] + box[2:] - last[:2] - last[2:]) / 2
    side = np.sqrt((last[2] - last[0]) * (last[3] - last[1]))
    return float(np.hypot(*move) / max(1.0, side))
