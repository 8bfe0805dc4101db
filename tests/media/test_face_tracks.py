"""Several people in one clip: followed without being mixed up, and the one a rule names chosen.

People are rendered faces that move over a canvas on known paths, later ones in front of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.media.decode import decode_clip
from mien.media.faces import (
    Face,
    FaceDetector,
    FaceRule,
    FaceTrack,
    FaceTracker,
    align_clip,
    choose_track,
    track_faces,
)

HEIGHT, WIDTH = 240, 480
Path3 = Callable[[float], tuple[float, float, float] | None]
"""From the share of the clip that is over to centre x, y and side in pixels; None: not there."""


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def people(synth_manifest: Path) -> list[np.ndarray]:
    """The frames of four people [T, 64, 64, 3]."""
    films = sorted(synth_manifest.parent.rglob("*.mp4"))[::3][:4]
    return [
        decode_clip(str(film), choose_frames=lambda n: list(range(n)), with_audio=False).frames_THWC
        for film in films
    ]


def scene(actors: Sequence[tuple[np.ndarray, Path3]], num_frames: int) -> np.ndarray:
    """A clip [T, HEIGHT, WIDTH, 3] of people on their paths."""
    stripes = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 40).astype(np.uint8)
    frames = np.repeat((stripes + 90)[None, ..., None], num_frames, axis=0).repeat(3, axis=-1)
    for film, path in actors:
        for index, frame in enumerate(frames):
            place = path(index / (num_frames - 1))
            if place is not None:
                paste(frame, film[index % len(film)], *place)
    return frames


def paste(frame: np.ndarray, picture: np.ndarray, x: float, y: float, side: float) -> None:
    side, left, top = round(side), round(x - side / 2), round(y - side / 2)
    large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(WIDTH, left + side), min(HEIGHT, top + side)
    if x0 < x1 and y0 < y1:
        frame[y0:y1, x0:x1] = large[y0 - top : y1 - top, x0 - left : x1 - left]


def centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def off_path(boxes_T4: np.ndarray, path: Path3) -> np.ndarray:
    """How far each box's centre is from where the person is, in sides of the person; NaN: none."""
    truth = [path(index / (len(boxes_T4) - 1)) for index in range(len(boxes_T4))]
    return np.array(
        [
            np.inf
            if place is None
            else np.hypot(*(centre(box) - place[:2])) / place[2]
            if np.isfinite(box).all()
            else np.nan
            for box, place in zip(boxes_T4, truth, strict=True)
        ]
    )


def to_the_right(share: float) -> tuple[float, float, float]:
    return 60 + 360 * share, 120, 110


def to_the_left(share: float) -> tuple[float, float, float]:
    return 420 - 360 * share, 130, 100


@pytest.mark.parametrize("num_frames", [12, 40, 90])
@pytest.mark.parametrize("pair", [(0, 1), (2, 3)])
def test_two_people_who_cross_stay_themselves(
    people: list[np.ndarray], detector: FaceDetector, num_frames: int, pair: tuple[int, int]
) -> None:
    actors = [(people[pair[0]], to_the_left), (people[pair[1]], to_the_right)]
    frames = scene(actors, num_frames)
    for _, path in actors:
        x, y, side = path(0.0)
        box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
        clip = align_clip(frames, size_px=32, detector=detector, rule="given_box", given_box=box)
        miss = off_path(clip.boxes_T4, path)
        assert np.nanmax(miss) < 0.35  # the other is 3 sides away at the end
        assert clip.has_face_T[[0, -1]].all()
        assert clip.has_face_T.mean() > 0.75  # one hides the other for a while


def test_tracks_hold_everybody_with_boxes_landmarks_and_scores(
    people: list[np.ndarray], detector: FaceDetector
) -> None:
    frames = scene([(people[0], to_the_left), (people[1], to_the_right)], 20)
    tracks = track_faces(iter(frames), detector=detector, num_threads=2)
    assert [track.track_id for track in tracks] == [0, 1]
    assert len(tracks[0].frames) == 20
    for track, path in zip(tracks, (to_the_right, to_the_left), strict=True):
        number = len(track.frames)
        assert track.boxes_N4.shape == (number, 4)
        assert track.landmarks_N52.shape == (number, 5, 2)
        assert track.scores_N.min() > 0.6
        for frame, box in zip(track.frames, track.boxes_N4, strict=True):
            x, y, side = path(frame / 19)
            assert np.hypot(*(centre(box) - [x, y])) < 0.35 * side


def test_nobody_takes_the_place_of_one_who_left(
    people: list[np.ndarray], detector: FaceDetector
) -> None:
    """A large person leaves to the left after a third; a smaller one stays for the whole clip."""

    def leaves(share: float) -> tuple[float, float, float]:
        return 120 - 600 * share, 120, 120

    def stays(share: float) -> tuple[float, float, float]:
        return 330, 130, 90

    frames = scene([(people[0], leaves), (people[1], stays)], 30)
    wanted: list[tuple[FaceRule, list[float] | None, Path3]] = [
        ("longest_track", None, stays),
        ("largest", None, stays),  # 90 x 90 in 30 frames is more than 120 x 120 in 8
        ("given_box", [0.1, 0.2, 0.4, 0.8], leaves),
        ("given_box", [285, 85, 375, 175], stays),
    ]
    for rule, box, path in wanted:
        clip = align_clip(frames, size_px=32, detector=detector, rule=rule, given_box=box)
        miss = off_path(clip.boxes_T4, path)
        assert np.nanmax(miss) < 0.35, rule
        expected = 1.0 if path is stays else 0.2
        assert clip.has_face_T.mean() == pytest.approx(expected, abs=0.12)
        if path is leaves:
            assert not clip.has_face_T[12:].any()


def test_sizes_that_swap_do_not_swap_people(
    people: list[np.ndarray], detector: FaceDetector
) -> None:
    def shrinks(share: float) -> tuple[float, float, float]:
        return 130, 120, 150 - 90 * share

    def grows(share: float) -> tuple[float, float, float]:
        return 350, 120, 60 + 110 * share

    frames = scene([(people[2], shrinks), (people[3], grows)], 24)
    for rule, box, path in (
        ("largest", None, grows),  # 60 to 170 px is more than 150 to 60
        ("longest_track", None, grows),
        ("given_box", [60, 50, 200, 190], shrinks),
    ):
        clip = align_clip(frames, size_px=32, detector=detector, rule=rule, given_box=box)
        assert clip.has_face_T.all(), rule
        assert off_path(clip.boxes_T4, path).max() < 0.35, rule


def face_at(x: float, y: float = 50.0, side: float = 40.0) -> Face:
    box = np.array([x, y, x + side, y + side], dtype=np.float32)
    return Face(box=box, landmarks=np.zeros((5, 2), dtype=np.float32), score=0.9)


def linked(*faces_T: Sequence[Face]) -> list[FaceTrack]:
    tracker = FaceTracker()
    for index, faces in enumerate(faces_T):
        tracker.update(index, faces)
    return tracker.tracks


def test_rules_by_hand() -> None:
    near, far = face_at(0, side=100), face_at(300, side=40)
    tracks = linked([near, far], [far], [far], [far, near])
    assert [track.frames for track in tracks] == [[0, 3], [0, 1, 2, 3]]
    assert choose_track(tracks, "largest") is tracks[0]  # 2 x 10,000 against 4 x 1,600
    assert choose_track(tracks, "longest_track") is tracks[1]
    for box, expected in (
        ([290, 40, 350, 100], tracks[1]),
        ([200, 0, 480, 240], tracks[1]),  # a loose box, all of the face in it
        ([0, 40, 400, 140], tracks[0]),  # both are in it: the better overlap
        ([20, 70, 60, 110], tracks[0]),  # a box inside of the face
        ([60, 50, 280, 150], None),  # grazes one
        ([400, 0, 480, 240], None),
    ):
        assert choose_track(tracks, "given_box", np.array(box, dtype=np.float32)) is expected, box
    assert choose_track([], "largest") is None
    assert choose_track([], "longest_track") is None


@given(
    seen=st.lists(st.lists(st.integers(0, 4), unique=True, max_size=5), min_size=1, max_size=30),
    shake=st.integers(0, 2**32 - 1),
)
def test_people_who_stand_apart_are_never_mixed_up(seen: list[list[int]], shake: int) -> None:
    """Whoever is missed in whichever frames, in whatever order faces are listed."""
    rng = np.random.default_rng(shake)
    tracker = FaceTracker()
    person_of: dict[int, int] = {}
    for frame, people in enumerate(seen):
        faces = [face_at(140 * who + rng.uniform(-8, 8), 50 + rng.uniform(-8, 8)) for who in people]
        for person, track in zip(people, tracker.update(frame, faces), strict=True):
            assert person_of.setdefault(track, person) == person
    assert len(tracker.tracks) == len({person for people in seen for person in people})
    assert sum(len(track.frames) for track in tracker.tracks) == sum(map(len, seen))


def test_equally_long_tracks_are_decided_by_size() -> None:
    small, large = face_at(0, side=30), face_at(200, side=60)
    tracks = linked([small, large], [small, large])
    chosen = choose_track(tracks, "longest_track")
    assert chosen is not None
    assert chosen.faces[0] is large


def test_a_bound_on_gaps_ends_tracks() -> None:
    for bound, expected in ((None, 1), (3, 1), (2, 2)):
        tracker = FaceTracker(max_gap_frames=bound)
        for frame in (0, 1, 5):  # not found in 2, 3, 4
            tracker.update(frame, [face_at(10)])
        assert len(tracker.tracks) == expected, bound


@pytest.mark.parametrize(
    "box", [[0.6, 0.1, 0.95, 0.9], [288, 24, 456, 216], [288.0, 24.0, 456.0, 216.0]]
)
def test_a_box_without_a_face_is_shown_and_has_no_face(
    people: list[np.ndarray], detector: FaceDetector, box: list[float]
) -> None:
    frames = scene([(people[0], lambda share: (100, 120, 100))], 4)
    clip = align_clip(frames, size_px=48, detector=detector, rule="given_box", given_box=box)
    assert not clip.has_face_T.any()
    assert np.isnan(clip.boxes_T4).all()
    # The square of the longer side, 192 px, around the box's centre (372, 120): 4 px a pixel.
    shown = frames[:, 24:216, 276:468].astype(float).reshape(4, 48, 4, 48, 4, 3).mean(axis=(2, 4))
    assert np.abs(clip.crops_TSSC - shown).mean() < 6


def test_other_rules_look_at_no_box(people: list[np.ndarray], detector: FaceDetector) -> None:
    frames = scene([(people[0], lambda share: (100, 120, 100))], 3)
    plain = align_clip(frames, size_px=32, detector=detector)
    boxed = align_clip(frames, size_px=32, detector=detector, given_box=[300, 0, 400, 100])
    np.testing.assert_array_equal(plain.crops_TSSC, boxed.crops_TSSC)


@pytest.mark.parametrize(
    ("rule", "box", "message"),
    [
        ("biggest", None, "'biggest' is not one of largest, longest_track, given_box"),
        ("given_box", None, "needs a box"),
        ("given_box", [0, 0, 1], "four numbers"),
        ("given_box", [0, 0, 1, float("nan")], "four numbers"),
        ("given_box", [10, 10, 10, 20], "is empty"),
        ("given_box", [-20, -20, -5, -5], "is empty"),
    ],
)
def test_rules_and_boxes_that_make_no_sense(
    detector: FaceDetector, rule: FaceRule, box: list[float] | None, message: str
) -> None:
    frames = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=message):
        align_clip(frames, size_px=32, detector=detector, rule=rule, given_box=box)
