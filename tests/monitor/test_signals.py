"""Every signal alarms for what it is there for, and for nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mien.monitor.report import figures, monitor_report, to_json, verdict
from mien.monitor.sample import Sample, SampleError
from mien.monitor.signals import Comparison, compare

CLASSES = ("joy", "grief", "rage")


def sample(
    seed: int, films: int = 60, windows: int = 4, mix: tuple[float, ...] = (0.4, 0.3, 0.3)
) -> Sample:
    """Windows of a person a film; a film keeps its class in seven windows of ten."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(films), windows)
    mood_N = rng.choice(3, films, p=mix)[unit_N]
    label_N = np.where(rng.random(len(unit_N)) < 0.7, mood_N, rng.choice(3, len(unit_N), p=mix))
    logits_NK = rng.normal(size=(len(unit_N), 3))
    logits_NK[np.arange(len(unit_N)), label_N] = logits_NK.max(axis=1) + rng.random(len(unit_N))
    exp_NK = np.exp(logits_NK)
    return Sample(
        classes=CLASSES,
        weights_sha256="a" * 64,
        unit_N=unit_N,
        strand_N=unit_N,
        start_s_N=np.tile(np.arange(windows) * 3.0, films),
        probabilities_NK=exp_NK / exp_NK.sum(axis=1, keepdims=True),
        face_share_N=rng.uniform(0.8, 1.0, len(unit_N)),
        has_audio_N=np.ones(len(unit_N)),
        features_ND=rng.normal(size=(len(unit_N), 6)).astype(np.float32),
        picture_NP=rng.normal((0.5, 0.2, 0.3), 0.05, (len(unit_N), 3)).astype(np.float32),
    )


def loud(found: Comparison) -> set[str]:
    return {signal.name for signal in found.loud}


def test_another_sample_of_the_same_is_quiet() -> None:
    found = compare(sample(0), sample(1))
    assert loud(found) == set()
    assert all(signal.figure is not None for signal in found.signals)
    assert verdict(found).startswith("Quiet: nothing moved")


def test_a_changed_mix_of_classes() -> None:
    found = compare(sample(0), sample(1, mix=(0.85, 0.05, 0.1)))
    assert "class_mix" in loud(found)
    (mix,) = (signal for signal in found.signals if signal.name == "class_mix")
    assert mix.change.startswith("joy ")
    assert "class_mix (joy" in verdict(found)


def test_few_films_do_not_tell() -> None:
    """Twelve films of mostly joy: may be chance; the same in 20 films is looked at carefully."""
    found = compare(sample(0), sample(1, films=12, mix=(0.85, 0.05, 0.1)))
    assert loud(found) == set()
    assert "only 12 films or people" in found.signals[0].why_not


def test_a_trifle_in_very_many_films_is_no_alarm() -> None:
    found = compare(sample(0, films=4000), sample(1, films=4000, mix=(0.45, 0.3, 0.25)))
    (mix,) = (signal for signal in found.signals if signal.name == "class_mix")
    assert mix.figure is not None
    assert mix.by_chance is not None
    assert mix.by_chance < mix.figure < mix.threshold
    assert not mix.is_loud


def test_planted_faults_are_named() -> None:
    new = sample(1)
    rng = np.random.default_rng(5)
    assert new.features_ND is not None
    assert new.picture_NP is not None
    uniform_NK = np.full_like(new.probabilities_NK, 1 / 3)
    faults: dict[str, dict[str, Any]] = {
        "confidence": {"probabilities_NK": 0.4 * new.probabilities_NK + 0.6 * uniform_NK},
        "features": {"features_ND": new.features_ND + np.float32(0.6)},
        "picture": {"picture_NP": new.picture_NP * np.array([0.3, 1, 1], np.float32)},
        # Windows that don't follow their film's mood: shuffled over films.
        "agreement": {"probabilities_NK": rng.permutation(new.probabilities_NK)},
        "faces": {"face_share_N": new.face_share_N * 0.5},
        "sound": {"has_audio_N": (new.unit_N % 2).astype(np.float64)},
    }
    for name, fault in faults.items():
        found = compare(sample(0), dataclasses.replace(new, **fault))
        assert loud(found) == {name}, name
    dark = dataclasses.replace(new, **faults["picture"])
    (picture,) = compare(sample(0), dark).loud
    assert picture.change.startswith("brightness 0.50")


def test_windows_without_anybody_count_as_no_face() -> None:
    new = sample(1)
    gone_N = new.unit_N % 3 == 0
    new = dataclasses.replace(
        new,
        probabilities_NK=np.where(gone_N[:, None], np.nan, new.probabilities_NK),
        face_share_N=np.where(gone_N, 0.0, new.face_share_N),
        features_ND=None,
    )
    found = compare(sample(0), new)
    assert loud(found) == {"faces"}
    (features,) = (signal for signal in found.signals if signal.name == "features")
    assert "mien predict --features" in features.why_not


def test_predictions_of_another_model_are_refused() -> None:
    with pytest.raises(SampleError, match="they are of another model"):
        compare(sample(0), dataclasses.replace(sample(1), classes=("joy", "rage", "grief")))
    with pytest.raises(SampleError, match="other weights \\(bbbbbbbbbbbb\\)"):
        compare(sample(0), dataclasses.replace(sample(1), weights_sha256="b" * 64))
    compare(sample(0, films=20), dataclasses.replace(sample(1, films=20), weights_sha256=""))


def test_the_report_tells_all_of_it() -> None:
    reference, new = sample(0, films=30), sample(1, films=30, mix=(0.9, 0.05, 0.05))
    found = compare(reference, new)
    text = monitor_report(found, reference, new, title="Monitor").to_markdown()
    assert "A person should look: class_mix (joy" in text
    assert all(signal.name in text and signal.reason in text for signal in found.signals)
    told = to_json(found, reference, new)
    assert told["look"] is True
    assert [one["name"] for one in told["signals"] if one["look"]] == sorted(
        loud(found), key=[one.name for one in found.signals].index
    )
    assert set(figures(reference, new)) == {"class_mix", "confidence", "features"}


@pytest.mark.slow
def test_comparisons_alarm_as_rarely_as_they_say() -> None:
    """Of 300 pairs of samples of the same, at most 1 % should alarm: 3, and chance allows 8."""
    alarms = [bool(compare(sample(2 * i), sample(2 * i + 1, films=25)).loud) for i in range(300)]
    assert sum(alarms) <= 8
