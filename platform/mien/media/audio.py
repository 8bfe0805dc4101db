"""Log-mel features of a waveform: Kaldi's filter bank, as AudioMAE and MMA-DFER are trained on.

Shapes: N samples, F audio frames, M mels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

AUDIOSET_MEAN = -4.2677393
"""Mean log energy of AudioSet under `log_mel`'s settings, as published with AudioMAE."""
AUDIOSET_STD = 4.5689974
"""Its standard deviation; `fit_length` divides by twice this, as AudioMAE does."""
SILENCE = -15.942385
"""Log energy of digital silence: log of the smallest float32 step, Kaldi's floor."""


def log_mel(
    waveform: npt.NDArray[np.float32] | Tensor,
    *,
    sample_rate_hz: int = 16_000,
    num_mels: int = 128,
    hop_ms: float = 10.0,
    window_ms: float = 25.0,
) -> Tensor:
    """Natural-log energies of Kaldi's mel filter bank.

    The waveform's mean is subtracted first. Then, as `kaldi.fbank` with ``htk_compat``: frames that
    lie fully inside the sound, each freed of its offset, pre-emphasis 0.97, Hanning window, power
    spectrum at the next power of two, triangular filters from 20 Hz to half the sample rate, floor
    at float32's epsilon; no dither, no energy column (MMA-DFER, data pipeline of its release).

    Args:
        waveform: [N] float in [-1, 1].
        sample_rate_hz: Samples a second.
        num_mels: Filters, M.
        hop_ms: From frame to frame.
        window_ms: Length of a frame.

    Returns:
        [F, M] float32 with F = 1 + floor((N - window) / hop), or 0 for sound shorter than a window.

    Raises:
        ValueError: the waveform is not one-dimensional.
    """
    samples_N = torch.as_tensor(waveform, dtype=torch.float32)
    if samples_N.ndim != 1:
        raise ValueError(f"expected one channel [N], got shape {tuple(samples_N.shape)}")
    if len(samples_N) < int(sample_rate_hz * window_ms * 0.001):
        return torch.zeros(0, num_mels)
    features_FM: Tensor = kaldi.fbank(
        (samples_N - samples_N.mean()).unsqueeze(0),
        htk_compat=True,
        sample_frequency=float(sample_rate_hz),
        use_energy=False,
        window_type="hanning",
        num_mel_bins=num_mels,
        dither=0.0,
        frame_shift=hop_ms,
        frame_length=window_ms,
    )
    return features_FM


def hop_of_whole_ms(
    num_samples: int,
    num_frames: int,
    *,
    sample_rate_hz: int,
    hop_ms: float,
    window_ms: float = 25.0,
) -> float:
    """The step with which `log_mel` needs at most ``num_frames`` frames for the whole sound.

    ``hop_ms`` where that is enough; never less.
    """
    window = int(sample_rate_hz * window_ms * 0.001)
    hop_samples = max(0, num_samples - window) // num_frames + 1
    # A hair more: `kaldi.fbank` cuts the step down to whole samples.
    return max(hop_ms, (1000.0 * hop_samples + 1e-6) / sample_rate_hz)


def fit_length(
    log_mel_FM: Tensor,
    num_frames: int,
    *,
    mean: float = AUDIOSET_MEAN,
    std: float = AUDIOSET_STD,
) -> tuple[Tensor, int]:
    """Normalise to ``(x - mean) / (2 std)`` and cut or pad at the end to a fixed length.

    Padding is zero after normalisation, that is, ``mean`` in log energy. (The MMA-DFER release pads
    with zero log energy instead, which becomes +0.467.)

    Returns:
        The features [num_frames, M] and how many of its frames are sound.
    """
    valid_frames = min(len(log_mel_FM), num_frames)
    fitted_FM = log_mel_FM.new_zeros(num_frames, log_mel_FM.shape[1])
    fitted_FM[:valid_frames] = (log_mel_FM[:valid_frames] - mean) / (2 * std)
    return fitted_FM, valid_frames
