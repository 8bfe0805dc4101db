"""Software rasteriser: triangles to a picture, deferred, in numba.

Two passes a frame. `rasterise` walks the triangles and leaves, for each pixel, which triangle is
seen and where in it (a z-buffer with perspective-free barycentric weights). `shading.shade` then
colours each pixel once, however many triangles lay over each other. Everything is single-threaded
and without fast-math, so that the same input gives the same bytes on any number of processes.

Camera space: x to the right of the picture, y up, z towards the viewer.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@njit(cache=True)
def add_deltas(
    positions: FloatArray,
    weights: FloatArray,
    starts: IntArray,
    vertex_ids: IntArray,
    deltas: FloatArray,
) -> None:
    """Adds weighted sparse displacements to vertices in place.

    Args:
        positions: [V, 3], changed in place.
        weights: [N] one weight a displacement set; zeros cost nothing.
        starts: [N + 1] where each set begins in the next two arrays.
        vertex_ids: [M] the vertices that move.
        deltas: [M, 3] how far they move at weight one.
    """
    for unit in range(weights.shape[0]):
        weight = weights[unit]
        if weight == 0.0:
            continue
        for row in range(starts[unit], starts[unit + 1]):
            vertex = vertex_ids[row]
            positions[vertex, 0] += weight * deltas[row, 0]
            positions[vertex, 1] += weight * deltas[row, 1]
            positions[vertex, 2] += weight * deltas[row, 2]


@njit(cache=True)
def vertex_normals(positions: FloatArray, triangles: IntArray) -> FloatArray:
    """Area-weighted unit normals [V, 3] of a mesh with counter-clockwise `triangles` [F, 3]."""
    normals = np.zeros_like(positions)
    for face in range(triangles.shape[0]):
        a, b, c = triangles[face, 0], triangles[face, 1], triangles[face, 2]
        ux = positions[b, 0] - positions[a, 0]
        uy = positions[b, 1] - positions[a, 1]
        uz = positions[b, 2] - positions[a, 2]
        vx = positions[c, 0] - positions[a, 0]
        vy = positions[c, 1] - positions[a, 1]
        vz = positions[c, 2] - positions[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        for vertex in (a, b, c):
            normals[vertex, 0] += nx
            normals[vertex, 1] += ny
            normals[vertex, 2] += nz
    for vertex in range(normals.shape[0]):
        x, y, z = normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > 0.0:
            normals[vertex, 0] = x / length
            normals[vertex, 1] = y / length
            normals[vertex, 2] = z / length
    return normals


@njit(cache=True)
def project(
    positions: FloatArray,
    normals: FloatArray,
    rotation: FloatArray,
    pivot: FloatArray,
    camera: FloatArray,
    size_px: int,
) -> tuple[FloatArray, FloatArray]:
    """Turns the head about `pivot` and projects it.

    Args:
        positions: [V, 3] in decimetres.
        normals: [V, 3].
        rotation: [3, 3] head pose.
        pivot: [3] the point that stays in place.
        camera: [4] pixels a decimetre, picture x and y of the pivot (px), distance (dm).
        size_px: Side of the square picture.

    Returns:
        Screen positions [V, 3] (x, y in pixels from the top left, depth towards the viewer) and the
        turned normals [V, 3].
    """
    screen = np.empty_like(positions)
    turned = np.empty_like(normals)
    for vertex in range(positions.shape[0]):
        dx = positions[vertex, 0] - pivot[0]
        dy = positions[vertex, 1] - pivot[1]
        dz = positions[vertex, 2] - pivot[2]
        x = rotation[0, 0] * dx + rotation[0, 1] * dy + rotation[0, 2] * dz
        y = rotation[1, 0] * dx + rotation[1, 1] * dy + rotation[1, 2] * dz
        z = rotation[2, 0] * dx + rotation[2, 1] * dy + rotation[2, 2] * dz
        scale = camera[0] * camera[3] / (camera[3] - z)
        screen[vertex, 0] = camera[1] + x * scale
        screen[vertex, 1] = camera[2] - y * scale
        screen[vertex, 2] = z
        for axis in range(3):
            turned[vertex, axis] = (
                rotation[axis, 0] * normals[vertex, 0]
                + rotation[axis, 1] * normals[vertex, 1]
                + rotation[axis, 2] * normals[vertex, 2]
            )
    return screen, turned


@njit(cache=True)
def rasterise(
    screen: FloatArray,
    triangles: IntArray,
    two_sided: npt.NDArray[np.bool_],
    depth: FloatArray,
    seen: IntArray,
    weights: FloatArray,
) -> None:
    """Fills the z-buffer, the seen triangle (-1: none) and its barycentric weights a pixel.

    Args:
        screen: [V, 3] from `project`.
        triangles: [F, 3], counter-clockwise seen from outside.
        two_sided: [F] True where the back of a triangle is drawn as well.
        depth: [S, S], overwritten.
        seen: [S, S], overwritten.
        weights: [S, S, 2] weights of the first two corners, overwritten.
    """
    size = depth.shape[0]
    depth[:] = -1e9
    seen[:] = -1
    for face in range(triangles.shape[0]):
        a, b, c = triangles[face, 0], triangles[face, 1], triangles[face, 2]
        ax, ay = screen[a, 0], screen[a, 1]
        bx, by = screen[b, 0], screen[b, 1]
        cx, cy = screen[c, 0], screen[c, 1]
        # The picture's y points down, so that a triangle facing us has a negative area here.
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0 or (area > 0.0 and not two_sided[face]):
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        right = min(size - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        bottom = min(size - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        inverse = np.float32(1.0) / area
        # Weights and depth are affine in the pixel, so that a row needs only additions.
        step_a, step_b = (by - cy) * inverse, (cy - ay) * inverse
        rise_a, rise_b = (cx - bx) * inverse, (ax - cx) * inverse
        from_a, from_b = screen[a, 2] - screen[c, 2], screen[b, 2] - screen[c, 2]
        offset = np.float32(left + 0.5)
        for row in range(top, bottom + 1):
            height = np.float32(row + 0.5)
            wa = (offset - cx) * step_a + (height - cy) * rise_a
            wb = (offset - cx) * step_b + (height - cy) * rise_b
            for column in range(left, right + 1):
                if wa >= 0.0 and wb >= 0.0 and wa + wb <= 1.0:
                    z = screen[c, 2] + wa * from_a + wb * from_b
                    if z > depth[row, column]:
                        depth[row, column] = z
                        seen[row, column] = face
                        weights[row, column, 0] = wa
                        weights[row, column, 1] = wb
                wa += step_a
                wb += step_b
