"""Who is in the frames of a film: faces found, followed, and cut out as training cut them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import tee

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional

from mien.media.faces import Face, FaceDetector, FaceTracker, align, detect_faces
from mien.media.film import Film, FilmFrame
from mien.stream.prepare import CropSettings, face_detector

Crop = npt.NDArray[np.uint8]

MAX_GAP_S = 2.0
"""Whoever is not found for longer, and then is, is taken for somebody else."""
MOST_CROPS = 256
"""Crops of one person in a window: longer windows are cut out less often, not at more cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in a frame, or the whole picture where faces are not looked for."""

    track: int | None
    """Number of the face's track; None where faces are not looked for."""
    face: Face | None
    crop_SSC: Crop | None
    """What the network sees; None of frames and people that are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFrame:
    """A frame and who is in it."""

    index: int
    time_s: float
    people: tuple[Person, ...]
    """The largest face first."""

    def without_crops(self) -> SeenFrame:
        """The frame without its pictures."""
        people = tuple(replace(person, crop_SSC=None) for person in self.people)
        return replace(self, people=people)


def seen_frames(
    film: Film,
    crops: CropSettings,
    *,
    max_people: int,
    longest_window_s: float,
    num_threads: int = 1,
    detector: FaceDetector | None = None,
) -> Iterator[SeenFrame]:
    """Every frame of a film with its people.

    Args:
        film: Not yet read.
        crops: As in training.
        max_people: Only the largest faces of a frame are cut out; the others are still followed.
        longest_window_s: At most `MOST_CROPS` frames of it are cut out.
        num_threads: Cores that detection uses.
        detector: Finds the faces; None: this process's.

    Raises:
        ClipError: the file can't be used.
    """
    frames, looked_at = tee(film.frames())
    if not crops.align_faces:
        for frame in frames:
            next(looked_at)
            crop = None
            if _is_cut_out(frame, film, longest_window_s):
                crop = _whole_picture(frame, crops.image_size_px)
            whole = Person(track=None, face=None, crop_SSC=crop)
            yield SeenFrame(index=frame.index, time_s=frame.time_s, people=(whole,))
        return
    found = detect_faces(
        (frame.picture_HWC for frame in looked_at),
        detector or face_detector(),
        num_threads=num_threads,
    )
    tracker: FaceTracker | None = None
    for faces, frame in zip(found, frames, strict=False):
        if tracker is None:
            gap = max(1, round(MAX_GAP_S * film.frame_rate))
            tracker = FaceTracker(max_gap_frames=gap, keeps_faces=False)
        tracks = tracker.update(frame.index, faces)
        is_cut_out = _is_cut_out(frame, film, longest_window_s)
        people = []
        for rank, (track, face) in enumerate(zip(tracks, faces, strict=True)):
            crop = None
            if is_cut_out and rank < max_people:
                crop = align(frame.picture_HWC, face.landmarks, crops.image_size_px)
            people.append(Person(track=track, face=face, crop_SSC=crop))
        yield SeenFrame(index=frame.index, time_s=frame.time_s, people=tuple(people))


def _is_cut_out(frame: FilmFrame, film: Film, longest_window_s: float) -> bool:
    every = max(1, -(-int(film.frame_rate * longest_window_s) // MOST_CROPS))
    return frame.index % every == 0


def _whole_picture(frame: FilmFrame, size_px: int) -> Crop:
    picture_CHW = torch.from_numpy(frame.picture_HWC).permute(2, 0, 1)
    resized = functional.resize(picture_CHW, [size_px, size_px], antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
