"""Faces a second on one core: detection, and detection with alignment to 224 px; and what is found.

Speed is CPU time, all kinds side by side in every round; two workers are compared by the clock and
mean something on an idle machine only. Recall is measured on rendered people whose place in the
picture is known: by size of the face, yaw of the head, and with a mask over mouth and nose. With
``--clips FOLDER`` also on the first frames of real films that show one face each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from report import finish

from mien.media.decode import decode_clip
from mien.media.faces import Face, FaceDetector, align_clip, detect_faces
from mien.media.faces.yunet import read_weights
from mien.synth import SynthSpec
from mien.synth.plan import ClipPlan, plan_clips
from mien.synth.render import render_clip

Frames = npt.NDArray[np.uint8]

SIZES = ((320, 240), (640, 480))
CROP_PX = 224
FACE_SIDES_PX = (16, 20, 24, 32, 48, 96)
YAWS_DEG = (0, 30, 45, 60, 75, 90)
_HEAD_SHARE = 0.8
"""Of the rendered picture's height."""
FILM_SUFFIXES = (".mp4", ".mpg", ".avi", ".mkv", ".mov", ".webm")


def plans(num_people: int) -> list[ClipPlan]:
    """One calm, short clip for each of some people, the head in the middle."""
    spec = SynthSpec(
        num_subjects=num_people, classes=("neutral",), size_px=256, duration_s=0.2, fps=10, seed=11
    )
    return [
        replace(plan, scene=replace(plan.scene, head_share=_HEAD_SHARE, shift_x=0, shift_y=0))
        for plan in plan_clips(spec)
    ]


def render(plan: ClipPlan, yaw_deg: float = 0.0) -> Frames:
    """One picture [256, 256, 3] of a person."""
    turned = replace(plan, scene=replace(plan.scene, yaw_deg=yaw_deg, sway_deg=0.0))
    return np.asarray(render_clip(turned).frames[1])


def canvas(
    picture: Frames, width: int, height: int, side: float, place: tuple[float, float]
) -> Frames:
    """A frame with a picture of ``side`` px, its centre at a share of the frame."""
    scale = side / len(picture)
    x, y = place[0] * width - side / 2, place[1] * height - side / 2
    smaller = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, x], [0, 1, y]], dtype=np.float32)
    return cv2.warpAffine(smaller, move, (width, height), borderValue=(96, 110, 120))


def film(pictures: Sequence[Frames], width: int, height: int, num_frames: int) -> Frames:
    """People who move through a frame, one face at a time, 60 % of its height."""
    frames = []
    for index in range(num_frames):
        share = index / num_frames
        place = (0.5 + 0.15 * np.sin(6 * share), 0.5 + 0.05 * np.cos(9 * share))
        picture = pictures[index * len(pictures) // num_frames]
        frames.append(canvas(picture, width, height, 0.6 * height, place))
    return np.stack(frames)


def cpu_fps(action: Callable[[], Any], num_frames: int) -> float:
    start = time.process_time()
    action()
    return num_frames / (time.process_time() - start)


def opencv_detection(frames: Frames) -> Callable[[], None]:
    """The same network by OpenCV's own engine, at 320 px as ours."""
    height, width = frames.shape[1:3]
    size = (320, round(320 * height / width))
    weights = np.frombuffer(read_weights(), dtype=np.uint8)
    detector = cv2.FaceDetectorYN.create(
        "onnx", weights, np.empty(0, dtype=np.uint8), size, 0.6, 0.3, 50
    )

    def run() -> None:
        for frame in frames:
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))

    return run


def speeds(films: dict[str, Frames], rounds: int) -> dict[str, float]:
    """Frames a second of one core, the median of interleaved rounds."""
    detector = FaceDetector()
    actions: dict[str, tuple[Callable[[], Any], int]] = {}
    for name, frames in films.items():

        def detect(frames: Frames = frames) -> None:
            list(detect_faces(frames, detector))

        def align(frames: Frames = frames) -> None:
            align_clip(frames, size_px=CROP_PX, detector=detector)

        actions[f"detect_fps_{name}"] = detect, len(frames)
        actions[f"detect_align_fps_{name}"] = align, len(frames)
        actions[f"opencv_engine_detect_fps_{name}"] = opencv_detection(frames), len(frames)
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, (action, num_frames) in actions.items():
            fps = cpu_fps(action, num_frames)
            if number:  # the first round warms up
                found[name].append(fps)
    return {name: statistics.median(values) for name, values in found.items()}


_worker: dict[str, Any] = {}


def _prepare_worker(frames: Frames) -> None:
    _worker.update(frames=frames, detector=FaceDetector())
    list(detect_faces(frames[:4], _worker["detector"]))


def _work(_: int) -> int:
    clip = align_clip(_worker["frames"], size_px=CROP_PX, detector=_worker["detector"])
    return len(clip.crops_TSSC)


def two_workers(frames: Frames, bursts: int) -> dict[str, float]:
    """Frames a second by the clock of one worker, two threads and two processes.

    The best of many short bursts: on a busy machine most of them meet other work.
    """
    detector = FaceDetector()
    fps: dict[str, float] = {}

    def note(name: str, start: float, num_frames: int) -> None:
        found = num_frames / (time.perf_counter() - start)
        fps[name] = max(found, fps.get(name, 0.0))

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _prepare_worker, (frames,)) as pool:
        list(pool.map(_work, range(4)))
        for _ in range(bursts):
            for name, num_threads in (("one", 1), ("two_threads", 2)):
                start = time.perf_counter()
                align_clip(frames, size_px=CROP_PX, detector=detector, num_threads=num_threads)
                note(name, start, len(frames))
            start = time.perf_counter()
            note("two_processes", start, sum(pool.map(_work, range(2))))
    return {
        "wall_fps_one_worker": fps["one"],
        "wall_gain_two_threads": fps["two_threads"] / fps["one"],
        "wall_gain_two_processes": fps["two_processes"] / fps["one"],
        "load_average": os.getloadavg()[0],
    }


def is_found(faces: Sequence[Face], x: float, y: float, side: float) -> bool:
    """Whether a face was found within a third of its side of where it is."""
    centres = [(face.box[:2] + face.box[2:]) / 2 for face in faces]
    return any(np.hypot(*(centre - [x, y])) < side / 3 for centre in centres)


def recall(
    pictures: Sequence[Frames], face_px: float, width: int = 320, height: int = 240
) -> float:
    """Share of people who are found in frames of 320 px; ``face_px`` is the head's height."""
    detector = FaceDetector()
    found = []
    for picture in pictures:
        for place in ((0.25, 0.4), (0.5, 0.5), (0.7, 0.45)):
            side = face_px / _HEAD_SHARE
            frame = canvas(picture, width, height, side, place)
            x, y = place[0] * width, place[1] * height
            found.append(is_found(detector.detect(frame), x, y, face_px))
    return float(np.mean(found))


def masked(picture: Frames) -> Frames:
    """The picture with a blue surgical mask over mouth and nose, placed by the landmarks."""
    faces = FaceDetector().detect(picture)
    if not faces:
        return picture
    _, _, nose, right_mouth, left_mouth = faces[0].landmarks
    width = 0.9 * np.linalg.norm(left_mouth - right_mouth)
    bottom = faces[0].box[3]
    corners = [
        [right_mouth[0] - width / 2, nose[1] - 4],
        [left_mouth[0] + width / 2, nose[1] - 4],
        [left_mouth[0] + width / 3, bottom],
        [right_mouth[0] - width / 3, bottom],
    ]
    covered = picture.copy()
    cv2.fillConvexPoly(covered, np.round(corners).astype(np.int32), (140, 180, 205))
    return covered


def recalls(people: Sequence[ClipPlan]) -> dict[str, float]:
    """What is found of people by size, yaw and mask."""
    frontal = [render(plan) for plan in people]
    found = {f"recall_head_{side}px": recall(frontal, side) for side in FACE_SIDES_PX}
    for yaw in YAWS_DEG:
        turned = [
            render(plan, sign * yaw) for plan in people for sign in ((1, -1) if yaw else (1,))
        ]
        found[f"recall_yaw_{yaw}deg"] = recall(turned, 120)
    found["recall_masked"] = recall([masked(picture) for picture in frontal], 120)
    return found


def real_films(folder: Path) -> dict[str, float]:
    """Share of real frames in which exactly one face is found."""
    detector = FaceDetector()
    with_face = alone = total = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in FILM_SUFFIXES:
            continue
        clip = decode_clip(
            str(path), choose_frames=lambda n: list(range(0, min(n, 75), 3)), with_audio=False
        )
        counts = [len(faces) for faces in detect_faces(clip.frames_THWC, detector)]
        total += len(counts)
        with_face += sum(count > 0 for count in counts)
        alone += sum(count == 1 for count in counts)
    if not total:
        raise SystemExit(f"no films in {folder}")
    return {
        "real_frames": total,
        "real_recall": with_face / total,
        "real_exactly_one": alone / total,
    }


def main() -> None:
    # OpenCV 5 warns of a setting (the target) that nobody has set.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=Path, help="folder of real films that show one face each")
    args = parser.parse_args()
    people = plans(3 if args.quick else 12)
    pictures = [render(plan) for plan in people[:4]]
    num_frames, rounds = (48, 3) if args.quick else (120, 9)
    films = {f"{w}x{h}": film(pictures, w, h, num_frames) for w, h in SIZES}
    figures: dict[str, float] = speeds(films, rounds)
    figures |= two_workers(films["320x240"][:48], 10 if args.quick else 60)
    figures |= recalls(people)
    if args.clips is not None:
        figures |= real_films(args.clips)
    for name, value in figures.items():
        print(f"{name:36} {value:8.3f}")
    targets = {f"one core, {w}x{h}": (f"detect_align_fps_{w}x{h}", ">=", 200.0) for w, h in SIZES}
    targets["frontal faces found"] = ("recall_head_48px", ">=", 0.99)
    finish("faces", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
