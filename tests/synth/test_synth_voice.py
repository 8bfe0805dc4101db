"""The voices: emotions sound different on average, and the mouth follows the sound."""

import time
from dataclasses import replace

import numpy as np
import pytest

from mien.synth import ACTION_UNITS, SynthSpec, plan_clips, render_clip
from mien.synth import voice as voice_module
from mien.synth.anatomy import SynthDataMissingError
from mien.synth.voice import SAMPLE_RATE_HZ, mouth_envelope, record, speak


def fundamental_hz(wave: np.ndarray) -> float:
    """Median pitch of voiced stretches, by autocorrelation between 60 and 400 Hz."""
    window, found = 1024, []
    for start in range(0, wave.size - window, window):
        piece = wave[start : start + window] - wave[start : start + window].mean()
        if np.sqrt((piece**2).mean()) < 0.02:
            continue
        echo = np.correlate(piece, piece, "full")[window - 1 :]
        low, high = SAMPLE_RATE_HZ // 400, SAMPLE_RATE_HZ // 60
        lag = low + int(np.argmax(echo[low:high]))
        if echo[lag] > 0.4 * echo[0]:
            found.append(SAMPLE_RATE_HZ / lag)
    return float(np.median(found))


@pytest.fixture(scope="module")
def heard():
    """Loudness (rms) and pitch (Hz) by emotion over 14 people."""
    sounds: dict[str, list[tuple[float, float]]] = {}
    for plan in plan_clips(SynthSpec(num_subjects=14, seed=1)):
        wave = speak(plan)
        values = (float(np.sqrt((wave**2).mean())), fundamental_hz(wave))
        sounds.setdefault(plan.true_label, []).append(values)
    return {name: np.median(values, axis=0) for name, values in sounds.items()}


def test_emotions_differ_in_loudness(heard):
    assert heard["anger"][0] > 1.5 * heard["neutral"][0] > 1.5 * heard["sadness"][0]
    assert heard["anger"][0] > 1.5 * heard["disgust"][0]


def test_emotions_differ_in_pitch(heard):
    assert heard["fear"][1] > 1.15 * heard["neutral"][1]
    assert heard["surprise"][1] > 1.15 * heard["neutral"][1]
    assert heard["disgust"][1] < heard["happiness"][1]


def test_speech_is_as_long_as_the_clip_and_deterministic():
    plan = plan_clips(SynthSpec(num_subjects=1, duration_s=1.3))[0]
    wave = speak(plan)
    assert wave.size == round(plan.num_frames / plan.fps * SAMPLE_RATE_HZ)
    other = plan_clips(SynthSpec(num_subjects=2, duration_s=1.3))[9]
    speak(other)  # what was said before leaves no trace
    np.testing.assert_array_equal(wave, speak(plan))


def test_a_breathy_voice_does_not_depend_on_the_time_of_day():
    """espeak-ng draws the breath of f2 and f3 from a seed, which is the second by default."""
    plan = plan_clips(SynthSpec(num_subjects=1, duration_s=0.5))[0]
    plan = replace(plan, speech=replace(plan.speech, voice="f3"))
    wave = speak(plan)
    time.sleep(1.1)
    np.testing.assert_array_equal(wave, speak(plan))


def test_long_clips_are_spoken_through():
    plan = plan_clips(SynthSpec(num_subjects=1, duration_s=9.0))[0]
    wave = speak(plan)
    assert np.abs(wave[-2 * SAMPLE_RATE_HZ :]).max() > 0.03


def test_silent_and_missing_audio():
    silent = plan_clips(SynthSpec(num_subjects=1, silent_audio=1.0))[0]
    assert not speak(silent).any()
    assert not record(silent, speak(silent)).any()
    missing = plan_clips(SynthSpec(num_subjects=1, missing_audio=1.0))[0]
    assert speak(missing).any()  # the person talks, the track is lost
    assert record(missing, speak(missing)) is None


def test_the_jaw_follows_the_sound():
    correlations = []
    for plan in plan_clips(SynthSpec(num_subjects=4, size_px=32, classes=("neutral", "anger"))):
        clip = render_clip(plan)
        mouth = mouth_envelope(clip.wave, plan.num_frames, plan.fps)
        correlations.append(np.corrcoef(clip.action_units["AU26"], mouth)[0, 1])
    assert np.mean(correlations) > 0.5
    assert "AU26" in ACTION_UNITS


def test_nobody_talks_in_a_silent_clip():
    plan = plan_clips(SynthSpec(num_subjects=1, size_px=32, classes=("neutral",), silent_audio=1.0))
    assert render_clip(plan[0]).action_units["AU26"].max() < 0.6


def test_the_envelope_of_a_burst_is_where_the_burst_is():
    wave = np.zeros(SAMPLE_RATE_HZ, np.float32)
    wave[SAMPLE_RATE_HZ // 2 : SAMPLE_RATE_HZ // 2 + SAMPLE_RATE_HZ // 5] = 0.5
    mouth = mouth_envelope(wave, 25, 25)
    np.testing.assert_allclose(mouth[14:17], 1.0, atol=1e-3)
    assert not mouth[:12].any()
    assert not mouth[18:].any()


def test_unknown_voice_package_says_what_to_type(monkeypatch):
    monkeypatch.setattr(voice_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SynthDataMissingError, match=r"pip install 'mien\[synth\]'"):
        voice_module._Engine()
