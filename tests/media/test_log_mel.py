"""Log-mel features against an implementation of their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mien.media.audio import (
    AUDIOSET_MEAN,
    AUDIOSET_STD,
    SILENCE,
    fit_length,
    hop_of_whole_ms,
    log_mel,
)


def mel(hz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log(1 + np.asarray(hz) / 700)


def kaldi_bank(waveform: np.ndarray, rate_hz: int, num_mels: int, hop: int) -> np.ndarray:
    """Kaldi's filter bank, written from its description, in float64."""
    window = rate_hz * 25 // 1000
    fft_size = 1 << (window - 1).bit_length()
    waveform = waveform.astype(np.float64) - waveform.mean(dtype=np.float64)
    starts = range(0, len(waveform) - window + 1, hop)
    frames = np.stack([waveform[start : start + window] for start in starts])
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
    power = np.abs(np.fft.rfft(frames, fft_size)) ** 2
    centres = np.linspace(mel(20), mel(rate_hz / 2), num_mels + 2)
    bins = mel(np.arange(fft_size // 2 + 1) * rate_hz / fft_size)
    rising = (bins[None] - centres[:-2, None]) / (centres[1:-1] - centres[:-2])[:, None]
    falling = (centres[2:, None] - bins[None]) / (centres[2:] - centres[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    filters[:, -1] = 0  # Kaldi's filters leave out the bin at half the sample rate
    return np.log(np.maximum(power @ filters.T, np.finfo(np.float32).eps))


@pytest.mark.parametrize(("num_mels", "hop_ms"), [(128, 10.0), (64, 10.0), (40, 20.0)])
def test_against_the_definition(num_mels: int, hop_ms: float) -> None:
    rng = np.random.default_rng(0)
    times = np.arange(16_000) / 16_000
    waveform = 0.3 * np.sin(2 * np.pi * (200 + 900 * times) * times) + 0.01 * rng.normal(
        size=16_000
    )
    waveform = (waveform + 0.05).astype(np.float32)
    found = log_mel(waveform, num_mels=num_mels, hop_ms=hop_ms)
    expected = kaldi_bank(waveform, 16_000, num_mels, round(16 * hop_ms))
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_silence_and_constant_sound() -> None:
    for level in (0.0, 0.7):
        found = log_mel(np.full(1600, level, dtype=np.float32))
        torch.testing.assert_close(found, torch.full((8, 128), SILENCE), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2)]
)
def test_frames_lie_fully_inside_the_sound(num_samples: int, num_frames: int) -> None:
    assert log_mel(torch.zeros(num_samples)).shape == (num_frames, 128)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="one channel"):
        log_mel(np.zeros((2, 1600), dtype=np.float32))


def test_fit_length_pads_with_zeros_after_normalising() -> None:
    features = torch.full((3, 2), AUDIOSET_MEAN + 2 * AUDIOSET_STD)
    fitted, valid = fit_length(features, 5)
    assert valid == 3
    torch.testing.assert_close(fitted, torch.tensor([[1.0, 1.0]] * 3 + [[0.0, 0.0]] * 2))
    fitted, valid = fit_length(features, 2, mean=0.0, std=0.5)
    assert valid == 2
    torch.testing.assert_close(fitted, features[:2])
    fitted, valid = fit_length(torch.zeros(0, 4), 6)
    assert (fitted.shape, valid) == ((6, 4), 0)


@given(
    num_samples=st.integers(400, 400_000),
    num_frames=st.integers(2, 600),
    rate_hz=st.sampled_from([8_000, 16_000, 22_050, 44_100]),
)
def test_the_whole_sound_fits_in_its_frames_with_the_smallest_step(
    num_samples: int, num_frames: int, rate_hz: int
) -> None:
    hop_ms = hop_of_whole_ms(num_samples, num_frames, sample_rate_hz=rate_hz, hop_ms=10.0)
    # As kaldi.fbank counts frames.
    window, hop = int(rate_hz * 25.0 * 0.001), int(rate_hz * hop_ms * 0.001)

    def frames(step: int) -> int:
        return 0 if num_samples < window else 1 + (num_samples - window) // step

    assert frames(hop) <= num_frames
    assert hop_ms == 10.0 or frames(hop - 1) > num_frames or hop - 1 < int(rate_hz * 0.01)


def test_long_sound_is_heard_to_its_end_when_the_whole_is_asked_for() -> None:
    sound = np.zeros(16_000 * 8, dtype=np.float32)
    sound[-8_000:] = np.sin(np.arange(8_000) * 0.3)
    hop_ms = hop_of_whole_ms(len(sound), 512, sample_rate_hz=16_000, hop_ms=10.0)

    whole_FM = log_mel(sound, hop_ms=hop_ms)

    assert 500 <= len(whole_FM) <= 512
    assert whole_FM[-16:].mean() > whole_FM[:300].mean() + 3
