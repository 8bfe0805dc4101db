"""How the face moves: action-unit curves, blinks, talking, gaze and head sway, frame by frame."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mien.synth.chance import generator
from mien.synth.expressions import ACTION_UNITS, LIPS_PART, LIPS_SHUT, MESH_UNITS
from mien.synth.head import FaceUnits
from mien.synth.plan import ClipPlan, Expression

FloatArray = npt.NDArray[np.float32]

_MESH_ROWS = [ACTION_UNITS.index(name) for name in MESH_UNITS]
_TALK_UNITS = ("AU18", "AU22", "AU24", "AU16", "AU20")
"""Besides the jaw, speech shapes the lips: rounded, pressed, lowered, stretched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """All curves of a clip, T frames."""

    action_units: FloatArray
    """[T, A] in [0, 1], columns in the order of ACTION_UNITS."""
    pose_deg: FloatArray
    """[T, 3] yaw, pitch, roll."""
    gaze: FloatArray
    """[T, 2] where the eyes look, in eye radii."""


def move(plan: ClipPlan, mouth: FloatArray) -> Motion:
    """Draws the curves of a clip.

    Args:
        plan: What is expressed and when.
        mouth: [T] how far speech opens the mouth, in [0, 1].
    """
    rng = generator(plan.seed, "motion")
    time = (np.arange(plan.num_frames) / plan.fps).astype(np.float32)
    curves = {name: np.zeros(plan.num_frames, np.float32) for name in ACTION_UNITS}
    for name, value in plan.person.resting.items():
        curves[name] += value
    for name in MESH_UNITS:
        curves[name] += 0.035 * _wander(rng, time, 3)
    for shown in plan.expressions:
        _express(curves, rng, time, shown)
    _talk(curves, rng, time, mouth)
    curves["AU43"] = np.maximum(curves["AU43"], _blinks(rng, time))
    table = np.stack([np.clip(curves[name], 0, 1) for name in ACTION_UNITS], axis=1)
    table[:, ACTION_UNITS.index("AU25")] = lips_part(table)
    return Motion(
        action_units=table.astype(np.float32),
        pose_deg=_pose(rng, plan, time, mouth),
        gaze=np.stack([0.09 * _wander(rng, time, 2), 0.05 * _wander(rng, time, 2)], axis=1),
    )


def lips_part(table: FloatArray) -> FloatArray:
    """AU25 [T] from the other action units [T, A]: what opens the lips less what shuts them."""
    part = np.zeros(len(table), np.float32)
    for name, share in LIPS_PART.items():
        part += share * table[:, ACTION_UNITS.index(name)]
    for name, share in LIPS_SHUT.items():
        part -= share * table[:, ACTION_UNITS.index(name)]
    return np.clip(part, 0, 1)


def mesh_weights(table: FloatArray, units: FaceUnits) -> FloatArray:
    """Weights [T, U] of the mesh's units for action-unit curves [T, A] in [0, 1]."""
    weights = np.zeros((len(table), len(units.names)), np.float32)
    for row, moved in zip(_MESH_ROWS, MESH_UNITS.values(), strict=True):
        for unit, share in moved.items():
            weights[:, units.names.index(unit)] += share * table[:, row]
    return np.clip(weights, 0, 1.5)


def _wander(rng: np.random.Generator, time: FloatArray, waves: int) -> FloatArray:
    """A slow irregular curve, roughly in [-1, 1]: a few sines below 1.5 Hz."""
    total = np.zeros_like(time)
    for rate_hz, phase in rng.uniform((0.1, 0), (1.2, 2 * np.pi), (waves, 2)):
        total += np.sin(2 * np.pi * rate_hz * time + phase).astype(np.float32)
    return np.asarray(total / np.sqrt(waves), np.float32)


def _smooth_step(x: FloatArray) -> FloatArray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _express(
    curves: dict[str, FloatArray], rng: np.random.Generator, time: FloatArray, shown: Expression
) -> None:
    """Adds onset, apex and offset of one expression; the units do not move quite together."""
    for name, value in shown.action_units.items():
        delay = rng.uniform(-0.04, 0.06)
        rise = (time - shown.onset_s - delay) / (shown.apex_s - shown.onset_s)
        fall = (shown.offset_s + delay - time) / (shown.offset_s - shown.release_s)
        curves[name] += value * np.minimum(_smooth_step(rise), _smooth_step(fall))


def _talk(
    curves: dict[str, FloatArray], rng: np.random.Generator, time: FloatArray, mouth: FloatArray
) -> None:
    opened = 0.34 * mouth * (1 - 0.4 * curves["AU26"])
    curves["AU26"] += opened
    for name in _TALK_UNITS:
        rate_hz, phase = rng.uniform((2.0, 0), (5.0, 2 * np.pi))
        syllables = np.clip(np.sin(2 * np.pi * rate_hz * time + phase), 0, 1)
        curves[name] += (0.16 * syllables * np.sqrt(mouth)).astype(np.float32)
    speaking = np.clip(4 * mouth, 0, 1)  # pressed lips have to part to speak
    for name in ("AU24", "AU28", "AU17"):
        curves[name] *= 1 - 0.6 * speaking


def _blinks(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    """Blinks every 1.5 to 5 s, 0.2 to 0.35 s long."""
    curve = np.zeros_like(time)
    middle = float(rng.uniform(0.1, 3.5))
    while middle < float(time[-1]) + 0.2:
        half = rng.uniform(0.1, 0.17)
        shape = 1 - np.abs(time - middle) / half
        curve = np.maximum(curve, _smooth_step((1.6 * shape).astype(np.float32)))
        middle += float(rng.uniform(1.5, 5.0))
    return curve


def _pose(
    rng: np.random.Generator, plan: ClipPlan, time: FloatArray, mouth: FloatArray
) -> FloatArray:
    scene = plan.scene
    kernel = np.ones(5, np.float32) / 5
    nod = np.convolve(mouth, kernel, mode="same")[: len(time)] if len(time) >= 5 else 0 * mouth
    yaw = scene.yaw_deg + scene.sway_deg * _wander(rng, time, 2)
    pitch = scene.pitch_deg + 0.6 * scene.sway_deg * _wander(rng, time, 2) + 1.2 * nod
    roll = scene.roll_deg + 0.5 * scene.sway_deg * _wander(rng, time, 2)
    return np.stack([yaw, pitch, roll], axis=1).astype(np.float32)
