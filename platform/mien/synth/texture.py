"""Paints a person's skin, brows, lips, beard, hairline and clothes onto a map of the head.

The map unrolls the base head around its vertical axis: columns are the angle (0 in the middle of
the face), rows the height. What is painted follows the skin when the face moves, because every
vertex keeps its place on the map. Colours are painted in display space and stored linear.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mien.synth.anatomy import SKIN, load_anatomy
from mien.synth.chance import generator
from mien.synth.person import HAIR_COLOURS, Person
from mien.synth.raster import rasterise

FloatArray = npt.NDArray[np.float32]
_Offsets = npt.NDArray[np.floating[Any]]

MAP_HEIGHT, MAP_WIDTH = 352, 448
TOP_Y, BOTTOM_Y = 8.56, 5.3
AXIS_Z = 0.35
"""The head is unrolled around the vertical line x = 0, z = AXIS_Z."""
GAMMA = 2.2
EYE_CENTRES = ((0.3078, 7.2842, 1.22), (-0.3078, 7.2842, 1.22))
EYE_RADIUS = 0.1385
WRINKLES = ("frown", "forehead", "cheek_fold", "crows_feet")
"""The creases that expressions bring out; `render` says by which action units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadMap:
    """What lies at each texel of the unrolled base head."""

    position: FloatArray
    """[H, W, 3] place on the base head (dm); far away where there is no skin."""
    lip: FloatArray
    lid_edge: FloatArray
    """[H, W] 1 at the edge of the eyelids, where the lashes are."""
    angle: FloatArray
    """[H, W] radians around the head."""
    height: FloatArray
    """[H, W] dm."""


def unroll(positions: FloatArray) -> FloatArray:
    """Places on the map [V, 2] (column, row) of points on the base head [V, 3]."""
    angle = np.arctan2(positions[:, 0], positions[:, 2] - AXIS_Z)
    columns = (angle / (2 * np.pi) + 0.5) * MAP_WIDTH
    rows = (TOP_Y - positions[:, 1]) / (TOP_Y - BOTTOM_Y) * MAP_HEIGHT
    return np.stack([columns, rows], axis=1).astype(np.float32)


def hairline(angle: FloatArray) -> FloatArray:
    """Height (dm) above which hair grows, for angles around the head (radians)."""
    degrees = np.abs(np.rad2deg(angle))
    marks = ((0, 7.93), (25, 7.97), (42, 7.88), (52, 7.6), (66, 7.5), (76, 7.2), (92, 7.1),
             (105, 7.0), (120, 6.75), (180, 6.6))  # fmt: skip
    return np.interp(degrees, [a for a, _ in marks], [y for _, y in marks]).astype(np.float32)


@lru_cache(maxsize=1)
def head_map() -> HeadMap:
    """Bakes the base head onto the map once a process."""
    anatomy = load_anatomy()
    rest = anatomy.rest
    places = unroll(rest)
    radius = np.hypot(rest[:, 0], rest[:, 2] - AXIS_Z)
    screen = np.concatenate([places, radius[:, None]], axis=1).astype(np.float32)
    triangles = anatomy.triangles[anatomy.materials == SKIN]
    columns = places[triangles, 0]
    triangles = triangles[(columns.max(axis=1) - columns.min(axis=1)) < MAP_WIDTH / 2]
    side = max(MAP_HEIGHT, MAP_WIDTH)
    depth = np.empty((side, side), np.float32)
    seen = np.empty((side, side), np.int32)
    weights = np.empty((side, side, 2), np.float32)
    rasterise(screen, triangles, np.ones(len(triangles), np.bool_), depth, seen, weights)
    lid = np.zeros(len(rest), np.float32)
    for centre in EYE_CENTRES:
        gap = np.linalg.norm(rest - np.array(centre, np.float32), axis=1) - EYE_RADIUS
        lid = np.maximum(lid, np.clip(1.0 - (gap - 0.004) / 0.022, 0, 1))
    values = np.concatenate([rest, anatomy.lip[:, None], lid[:, None]], axis=1)
    baked = _interpolate(values, triangles, seen, weights)[:MAP_HEIGHT, :MAP_WIDTH]
    rows, columns = np.mgrid[0:MAP_HEIGHT, 0:MAP_WIDTH].astype(np.float32) + 0.5
    return HeadMap(
        position=np.ascontiguousarray(baked[..., :3]),
        lip=baked[..., 3],
        lid_edge=baked[..., 4],
        angle=((columns / MAP_WIDTH - 0.5) * 2 * np.pi).astype(np.float32),
        height=(TOP_Y - rows / MAP_HEIGHT * (TOP_Y - BOTTOM_Y)).astype(np.float32),
    )


def _interpolate(
    values: FloatArray, triangles: npt.NDArray[np.int32], seen: npt.NDArray[np.int32],
    weights: FloatArray,
) -> FloatArray:  # fmt: skip
    baked = np.zeros((*seen.shape, values.shape[1]), np.float32)
    baked[..., :3] = -9.0
    covered = seen >= 0
    corners = triangles[seen[covered]]
    first, second = weights[covered, 0:1], weights[covered, 1:2]
    baked[covered] = (
        first * values[corners[:, 0]]
        + second * values[corners[:, 1]]
        + (1 - first - second) * values[corners[:, 2]]
    )
    return baked


def paint(person: Person) -> FloatArray:
    """The person's map [2, H, W, 3]: layer 0 the skin with all on it, layer 1 hair everywhere."""
    rng = generator(person.seed, "texture")
    place = head_map()
    hair = _hair_layer(rng, person)
    skin = _skin_layer(rng, person, place)
    for alpha, colour in (
        (_lip_alpha(person, place), _lip_colour(person)),
        (0.75 * place.lid_edge, np.array([0.12, 0.08, 0.07], np.float32)),
        (_eye_shadow(person, place), np.array([0.30, 0.18, 0.22], np.float32)),
        (_beard_alpha(rng, person, place), hair * 0.9),
        (_brow_alpha(rng, person, place), 0.75 * hair),
        (_scalp_alpha(rng, person, place), hair),
        (_cloth_alpha(rng, place), np.array(person.cloth_rgb, np.float32)),
    ):
        skin += alpha[..., None] * (colour - skin)
    return np.power(np.clip(np.stack([skin, hair]), 0.003, 1.0), GAMMA).astype(np.float32)


def _noise(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    """Smooth noise on the map with about `rows` x `columns` bumps, standard deviation near 1."""
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    fine = cv2.resize(coarse, (MAP_WIDTH, MAP_HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine, np.float32)


def _bump(place: HeadMap, x: float, y: float, width: float, height: float) -> FloatArray:
    """A soft spot on both sides of the face."""
    dx = (np.abs(place.position[..., 0]) - x) / width
    dy = (place.position[..., 1] - y) / height
    front = place.position[..., 2] > 0.7
    return (np.exp(-0.5 * (dx * dx + dy * dy)) * front).astype(np.float32)


def _skin_layer(rng: np.random.Generator, person: Person, place: HeadMap) -> FloatArray:
    base = np.array(person.skin_rgb, np.float32)
    mottle = 1 + 0.025 * _noise(rng, 40, 50) + 0.02 * _noise(rng, 140, 180)
    skin = base * mottle[..., None]
    flush = 0.14 * rng.random() + 0.03
    red = flush * (_bump(place, 0.42, 6.95, 0.16, 0.13) + _bump(place, 0.0, 6.93, 0.1, 0.08))
    skin *= 1 - red[..., None] * np.array([0.1, 1.0, 0.9], np.float32)
    ring = (0.08 + 0.14 * (person.age - 18) / 57) * _bump(place, 0.3, 7.13, 0.14, 0.05)
    socket = 0.10 * _bump(place, 0.3, 7.38, 0.18, 0.05)
    skin *= 1 - (ring + socket)[..., None]
    if rng.random() < 0.25:
        spots = (_noise(rng, 120, 150) > 1.3).astype(np.float32)
        area = _bump(place, 0.25, 7.0, 0.25, 0.15)
        skin *= 1 - 0.22 * (spots * area)[..., None]
    years = max(0.0, (person.age - 35) / 40)
    for crease in wrinkle_maps():
        skin *= 1 - 0.2 * years * crease[..., None]
    return skin


def _lip_alpha(person: Person, place: HeadMap) -> FloatArray:
    strength = (0.62 if person.sex == "female" else 0.45) + 0.3 * person.makeup
    return (min(strength, 0.92) * np.clip(place.lip, 0, 1)).astype(np.float32)


def _lip_colour(person: Person) -> FloatArray:
    rng = generator(person.seed, "lips")
    skin = np.array(person.skin_rgb, np.float32)
    natural = skin * np.array([0.88, 0.52, 0.54], np.float32)
    stick = np.array([0.72, 0.10, 0.16], np.float32) * rng.uniform(0.6, 1.1)
    return np.asarray(natural + person.makeup * 0.55 * (stick - natural), np.float32)


def _eye_shadow(person: Person, place: HeadMap) -> FloatArray:
    return 0.55 * person.makeup * _bump(place, 0.31, 7.37, 0.14, 0.04)


def _brow_alpha(rng: np.random.Generator, person: Person, place: HeadMap) -> FloatArray:
    x, y = np.abs(place.position[..., 0]), place.position[..., 1]
    along = np.clip((x - 0.11) / 0.44, 0, 1)
    middle = 7.468 + 0.035 * along - 0.14 * np.clip(along - 0.5, 0, 1) ** 1.3
    half_width = person.brow_thickness * 0.034 * (1.05 - 0.7 * along**2)
    across = (y - middle) / half_width
    inside = (x > 0.09) & (x < 0.57) & (place.position[..., 2] > 0.6)
    strokes = np.clip(0.85 + 0.15 * _noise(rng, 200, 220), 0.4, 1)
    ends = np.clip((x - 0.08) / 0.05, 0, 1) * np.clip((0.57 - x) / 0.06, 0, 1)
    profile = 0.9 * np.exp(-(np.abs(across) ** 3))
    return np.asarray(inside * ends * strokes * profile, np.float32)


def _beard_alpha(rng: np.random.Generator, person: Person, place: HeadMap) -> FloatArray:
    if person.beard == 0.0:
        return np.zeros_like(place.lip)
    x, y = np.abs(place.position[..., 0]), place.position[..., 1]
    upper = 6.62 + 0.55 * np.clip(x - 0.38, 0, 1) ** 0.7
    lower = 6.2 + 0.9 * x**2  # the edge of the jaw
    jaw = np.clip((upper - y) / 0.08, 0, 1) * np.clip((y - lower) / 0.08, 0, 1)
    moustache = np.clip((6.83 - y) / 0.03, 0, 1) * np.clip((y - 6.62) / 0.03, 0, 1) * (x < 0.36)
    # Skin stays free right below the lower lip at the sides, and the lips themselves.
    area = np.maximum(jaw, moustache) * (1 - np.clip(1.5 * place.lip, 0, 1))
    area *= (place.position[..., 2] > 0.35) & (np.abs(place.angle) < 1.6)
    grain = np.clip(0.75 + 0.25 * _noise(rng, 200, 240), 0.2, 1)
    soft = cv2.GaussianBlur(area.astype(np.float32), (0, 0), 2.0)
    return np.asarray(min(0.12 + 0.75 * person.beard, 0.85) * soft * grain, np.float32)


def scalp_weight(angle: FloatArray, height: FloatArray, softness: float) -> FloatArray:
    """1 where hair grows on the head, 0 below the hairline, over `softness` dm between."""
    return np.asarray(np.clip((height - hairline(angle)) / softness, 0, 1), np.float32)


def _scalp_alpha(rng: np.random.Generator, person: Person, place: HeadMap) -> FloatArray:
    shift = 0.03 * _noise(rng, 3, 14) + 0.012 * _noise(rng, 12, 120)
    receding = 0.0
    if person.sex == "male":
        receding = 0.22 * max(0.0, (person.age - 35) / 40) * rng.random()
    alpha = scalp_weight(place.angle, place.height + shift - receding, 0.09)
    return np.asarray(alpha * (0.45 if person.hair_style == "shaved" else 0.97), np.float32)


def _hair_layer(rng: np.random.Generator, person: Person) -> FloatArray:
    colour = np.array(HAIR_COLOURS[person.hair_colour], np.float32)
    strands = 1 + 0.10 * _noise(rng, 5, 120) + 0.10 * _noise(rng, 14, 430)
    return np.asarray(colour * np.clip(strands, 0.4, 1.8)[..., None], np.float32)


def _cloth_alpha(rng: np.random.Generator, place: HeadMap) -> FloatArray:
    collar = rng.uniform(5.72, 5.95) - 0.25 * rng.random() * np.cos(place.angle)
    return (np.clip((collar - place.height) / 0.015, 0, 1)).astype(np.float32)


def _line(x: _Offsets, y: _Offsets, half_width: float) -> FloatArray:
    """Darkness of a crease where the curve's distance, given as x and y offsets, is small."""
    return np.exp(-0.5 * (x * x + y * y) / half_width**2).astype(np.float32)


@lru_cache(maxsize=1)
def wrinkle_maps() -> FloatArray:
    """Creases [K, H, W] in [0, 1], in the order of WRINKLES, on the base head."""
    place = head_map()
    x, y = np.abs(place.position[..., 0]), place.position[..., 1]
    front = place.position[..., 2] > 0.6
    zero = np.zeros_like(x)
    frown = _line(x - 0.075, np.maximum(zero, np.abs(y - 7.46) - 0.09), 0.014)
    lines = [
        _line(np.maximum(zero, x - 0.38), y - at - 0.03 * np.cos(3 * x), 0.016)
        for at in (7.62, 7.71, 7.80)
    ]
    forehead = np.max(lines, axis=0)
    along = np.clip((6.98 - y) / 0.42, 0, 1)
    fold_x = 0.19 + 0.23 * along**1.2
    fold = _line(x - fold_x, np.maximum(zero, np.abs(y - 6.77) - 0.2), 0.018)
    root = [_line(np.maximum(zero, x - 0.07), y - at, 0.012) for at in (7.2, 7.26)]
    fold = np.maximum(fold, 0.6 * np.max(root, axis=0))
    rays = [
        _line(np.maximum(zero, np.abs(x - 0.57) - 0.05), y - 7.27 - s * (x - 0.47), 0.012)
        for s in (-0.5, 0.0, 0.5)
    ]
    feet = np.max(rays, axis=0)
    return np.stack([m * front for m in (frown, forehead, fold, feet)]).astype(np.float32)


@lru_cache(maxsize=1)
def wrinkle_window() -> tuple[slice, slice]:
    """Rows and columns of the map outside which there are no creases."""
    drawn = wrinkle_maps().max(axis=0) > 0.01
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
