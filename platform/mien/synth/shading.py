"""Colours the pixels that `raster.rasterise` found: lights, skin, eyes, teeth, hair.

Works in linear light; the last step averages the samples of a pixel, adds sensor noise and encodes
for display. Skin is Lambert with a wrapped terminator (a cheap stand-in for light that scatters
under the skin) plus a Blinn highlight that grows at grazing angles.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from mien.synth.anatomy import EYE, HAIR, MOUTH, SKIN, TEETH

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_SAME_SURFACE_DM = np.float32(0.06)
"""Samples of a pixel that differ more in depth than this lie on different surfaces."""
Colour = tuple[float, float, float]


@njit(cache=True)
def _skin_or_hair(
    maps: FloatArray, wrinkles: FloatArray, layer: int, column: float, row: float
) -> Colour:
    """Bilinear sample of a layer of the person's map; creases darken the skin (layer 0)."""
    height, width = maps.shape[1], maps.shape[2]
    x = min(max(column - np.float32(0.5), _ZERO), np.float32(width - 1.001))
    y = min(max(row - np.float32(0.5), _ZERO), np.float32(height - 1.001))
    left, top = int(x), int(y)
    fx, fy = x - np.float32(left), y - np.float32(top)
    w00, w01 = (_ONE - fx) * (_ONE - fy), fx * (_ONE - fy)
    w10, w11 = (_ONE - fx) * fy, fx * fy
    dark = _ONE
    if layer == 0:
        dark -= (
            w00 * wrinkles[top, left]
            + w01 * wrinkles[top, left + 1]
            + w10 * wrinkles[top + 1, left]
            + w11 * wrinkles[top + 1, left + 1]
        )
    w00, w01, w10, w11 = w00 * dark, w01 * dark, w10 * dark, w11 * dark
    red = (
        w00 * maps[layer, top, left, 0]
        + w01 * maps[layer, top, left + 1, 0]
        + w10 * maps[layer, top + 1, left, 0]
        + w11 * maps[layer, top + 1, left + 1, 0]
    )
    green = (
        w00 * maps[layer, top, left, 1]
        + w01 * maps[layer, top, left + 1, 1]
        + w10 * maps[layer, top + 1, left, 1]
        + w11 * maps[layer, top + 1, left + 1, 1]
    )
    blue = (
        w00 * maps[layer, top, left, 2]
        + w01 * maps[layer, top, left + 1, 2]
        + w10 * maps[layer, top + 1, left, 2]
        + w11 * maps[layer, top + 1, left + 1, 2]
    )
    return red, green, blue


@njit(cache=True)
def _eyeball(x: float, y: float, iris: FloatArray) -> Colour:
    """Colour of the eyeball at a place in eye radii from the optical axis."""
    radius = np.sqrt(x * x + y * y)
    lid_shadow = min(1.0, max(0.0, (y - 0.12) / 0.5))
    light = 0.85 - 0.5 * lid_shadow
    if radius < 0.21:
        return 0.004 * light, 0.004 * light, 0.005 * light
    if radius < 0.50:
        rim = 1.0 if radius < 0.42 else 1.0 - 0.75 * (radius - 0.42) / 0.08
        light *= rim * (0.85 + 0.15 * np.sin(14.0 * np.arctan2(y, x)))
        return iris[0] * light, iris[1] * light, iris[2] * light
    red = min(1.0, max(0.0, (radius - 0.6) / 0.5))
    return 0.70 * light, (0.68 - 0.16 * red) * light, (0.66 - 0.16 * red) * light


@njit(cache=True)
def shade(
    seen: IntArray,
    depth: FloatArray,
    weights: FloatArray,
    triangles: IntArray,
    materials: npt.NDArray[np.int8],
    normals: FloatArray,
    places: FloatArray,
    occlusion: FloatArray,
    maps: FloatArray,
    wrinkles: FloatArray,
    iris: FloatArray,
    gaze: FloatArray,
    lights: FloatArray,
    gloss: float,
    samples: int,
    picture: FloatArray,
) -> None:
    """Writes linear RGB over the background in `picture` wherever a triangle is seen.

    Args:
        seen: [S, S] from `rasterise`.
        depth: [S, S] from `rasterise`.
        weights: [S, S, 2] from `rasterise`.
        triangles: [F, 3].
        materials: [F].
        normals: [V, 3] turned to the camera.
        places: [V, 2] map column and row; on the eyes, place in eye radii from the axis at rest.
        occlusion: [V] share of the light of the surroundings that arrives.
        maps: [2, H, W, 3] from `texture.paint`.
        wrinkles: [H, W] darkening by the creases in this frame.
        iris: [3] linear RGB.
        gaze: [2] where the eyes look, in eye radii.
        lights: [3, 6] ambient, key, fill: direction towards the light, RGB.
        gloss: Strength of the highlights of the skin.
        samples: Samples of a pixel in each direction.
        picture: [S, S, 3], changed in place.
    """
    size = seen.shape[0]
    for top in range(0, size, samples):
        for left in range(0, size, samples):
            whole = _is_one_surface(seen, materials, depth, top, left, samples)
            for row in range(top, top + samples):
                for column in range(left, left + samples):
                    face = seen[row, column]
                    if face < 0:
                        continue
                    if whole and (row > top or column > left):
                        # Inside a surface one sample stands for the whole pixel.
                        picture[row, column, 0] = picture[top, left, 0]
                        picture[row, column, 1] = picture[top, left, 1]
                        picture[row, column, 2] = picture[top, left, 2]
                        continue
                    _shade_sample(
                        row, column, face, weights, triangles, materials, normals, places,
                        occlusion, maps, wrinkles, iris, gaze, lights, gloss, picture,
                    )  # fmt: skip


@njit(cache=True)
def _is_one_surface(
    seen: IntArray,
    materials: npt.NDArray[np.int8],
    depth: FloatArray,
    top: int,
    left: int,
    samples: int,
) -> bool:
    """Whether all samples of a pixel lie on the same piece of skin or hair."""
    first = seen[top, left]
    if first < 0 or (materials[first] != SKIN and materials[first] != HAIR):
        return False
    low = high = depth[top, left]
    for row in range(top, top + samples):
        for column in range(left, left + samples):
            face = seen[row, column]
            if face < 0 or materials[face] != materials[first]:
                return False
            low, high = min(low, depth[row, column]), max(high, depth[row, column])
    return bool(high - low < _SAME_SURFACE_DM)


@njit(inline="always")  # a call with so many arrays costs more than the shading
def _shade_sample(
    row: int,
    column: int,
    face: int,
    weights: FloatArray,
    triangles: IntArray,
    materials: npt.NDArray[np.int8],
    normals: FloatArray,
    places: FloatArray,
    occlusion: FloatArray,
    maps: FloatArray,
    wrinkles: FloatArray,
    iris: FloatArray,
    gaze: FloatArray,
    lights: FloatArray,
    gloss: float,
    picture: FloatArray,
) -> None:
    a, b, c = triangles[face, 0], triangles[face, 1], triangles[face, 2]
    wa, wb = weights[row, column, 0], weights[row, column, 1]
    wc = _ONE - wa - wb
    u = wa * places[a, 0] + wb * places[b, 0] + wc * places[c, 0]
    v = wa * places[a, 1] + wb * places[b, 1] + wc * places[c, 1]
    open_sky = wa * occlusion[a] + wb * occlusion[b] + wc * occlusion[c]
    nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
    ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
    nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
    inverse = _ONE / (np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9))
    material = materials[face]
    if nz < _ZERO and material == HAIR:
        inverse = -inverse
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    shine = gloss
    if material == EYE:
        red, green, blue = _eyeball(u - gaze[0], v - gaze[1], iris)
        shine = 0.9
    elif material == TEETH:
        red, green, blue = 0.62, 0.58, 0.48
    elif material == MOUTH:
        red, green, blue = 0.06, 0.012, 0.012
        shine = 0.0
    else:
        layer = 1 if material == HAIR else 0
        red, green, blue = _skin_or_hair(maps, wrinkles, layer, u, v)
    red, green, blue = _lit(red, green, blue, nx, ny, nz, open_sky, shine, material == EYE, lights)
    picture[row, column, 0] = red
    picture[row, column, 1] = green
    picture[row, column, 2] = blue


@njit(cache=True)
def _lit(
    red: float,
    green: float,
    blue: float,
    nx: float,
    ny: float,
    nz: float,
    open_sky: float,
    shine: float,
    is_wet: bool,
    lights: FloatArray,
) -> Colour:
    """Lights one sample; the viewer is at +z. Wet surfaces have small sharp highlights."""
    sky = (np.float32(0.65) + np.float32(0.35) * ny) * open_sky
    out_red = red * lights[0, 3] * sky
    out_green = green * lights[0, 4] * sky
    out_blue = blue * lights[0, 5] * sky
    for index in range(1, 3):
        lx, ly, lz = lights[index, 0], lights[index, 1], lights[index, 2]
        cosine = nx * lx + ny * ly + nz * lz
        wrapped = max(_ZERO, (cosine + np.float32(0.25)) * np.float32(0.8))
        highlight = _ZERO
        if cosine > _ZERO and shine > 0.0:
            # The half vector between the light and the viewer (0, 0, 1) has length sqrt(2 + 2 lz).
            half = (cosine + nz) / np.sqrt(np.float32(2.0) + np.float32(2.0) * lz)
            half *= half
            half *= half
            half *= half
            half *= half  # to the 16th power
            if is_wet:
                half *= half
                half *= half
            rim = np.float32(0.6) + np.float32(0.8) * (_ONE - np.float32(max(nz, 0.0)))
            highlight = np.float32(0.25 * shine) * half * rim
        # Red goes further under the skin: its terminator is softer.
        soft = np.float32(0.85) * wrapped + np.float32(0.15) * np.sqrt(wrapped)
        out_red += lights[index, 3] * open_sky * (red * soft + highlight)
        out_green += lights[index, 4] * open_sky * (green * wrapped + highlight)
        out_blue += lights[index, 5] * open_sky * (blue * wrapped + highlight)
    return out_red, out_green, out_blue


def _display_curve() -> FloatArray:
    """Display level (0 to 255) of linear light in steps of 1/2048, up to 4: gamma 2.2, with a soft
    shoulder instead of clipped highlights."""
    light = np.arange(4 * 2048 + 1) / 2048
    light = np.where(light < 0.7, light, 0.7 + 0.3 * (1 - np.exp((0.7 - light) / 0.3)))
    return (255 * light ** (1 / 2.2)).astype(np.float32)


DISPLAY_CURVE = _display_curve()


@njit(cache=True)
def develop(
    picture: FloatArray,
    noise: FloatArray,
    exposure: float,
    curve: FloatArray,
    out: npt.NDArray[np.uint8],
) -> None:
    """Averages samples, exposes, encodes for display and adds sensor noise.

    Args:
        picture: [S * k, S * k, 3] linear light, k samples a pixel side.
        noise: [S, S] added in display space (levels of 255), the same on all channels.
        exposure: Factor on the light.
        curve: DISPLAY_CURVE.
        out: [S, S, 3], overwritten.
    """
    size = out.shape[0]
    samples = picture.shape[0] // size
    share = np.float32(2048 * exposure / (samples * samples))
    last = np.float32(curve.shape[0] - 1)
    for row in range(size):
        for column in range(size):
            for channel in range(3):
                total = np.float32(0.0)
                for i in range(samples):
                    for j in range(samples):
                        total += picture[row * samples + i, column * samples + j, channel]
                level = curve[int(min(total * share, last))] + noise[row, column]
                out[row, column, channel] = np.uint8(
                    min(np.float32(255.0), max(np.float32(0.0), level + np.float32(0.5)))
                )
