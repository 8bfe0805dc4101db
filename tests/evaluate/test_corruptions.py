"""Corruptions: the same every time, severer with severity, and only what they say."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from mien.evaluate.corruptions import (
    PICTURE_CHANGES,
    SEVERITIES,
    SOUND_CHANGES,
    Corruption,
    add_sound_noise,
    delay_sound,
    drop_frames,
    lose_sound,
)
from mien.media.audio import fit_length, log_mel
from mien.seeds import generator
from mien_models.contract import AudioSpec, ClipBatch, plain_batch

AUDIO = AudioSpec(num_frames=200, num_mels=32)


def batch(seeds: tuple[int, ...] = (1, 2, 3)) -> ClipBatch:
    """Moving pictures with an edge and some texture, and a tone that gets louder."""
    size = len(seeds)
    x = torch.linspace(0, 1, 64)
    texture = torch.from_numpy(generator("texture").normal(0, 8, (64, 64)))
    frames = [50 + 120 * x[None, :] * (0.5 + 0.1 * t) + 40 * (x[:, None] > 0.5) for t in range(6)]
    shown = (torch.stack(frames) + texture).clamp(0, 255)
    video_TCHW = shown[:, None].repeat(1, 3, 1, 1).to(torch.uint8)
    seconds = np.arange(16_000 * 2) / 16_000
    tone = (0.2 * seconds * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    features = log_mel(tone, num_mels=32)
    audio_FM, valid = fit_length(features, 200, mean=AUDIO.mean, std=AUDIO.std)
    made = plain_batch(
        video_TCHW.repeat(size, 1, 1, 1, 1),
        audio_FM.repeat(size, 1, 1),
        torch.full((size,), valid),
        torch.ones(size, dtype=torch.bool),
        clip_ids=[str(seed) for seed in seeds],
    )
    return dataclasses.replace(made, seed_B=torch.tensor(seeds))


@pytest.mark.parametrize("name", [*PICTURE_CHANGES, *SOUND_CHANGES])
def test_depends_on_the_clip_alone(name: str) -> None:
    change = Corruption(name, 3, AUDIO)
    together, again, alone = change(batch()), change(batch()), change(batch((2,)))
    assert torch.equal(together.video_BTCHW, again.video_BTCHW)
    assert torch.equal(together.video_BTCHW[1], alone.video_BTCHW[0])
    assert together.video_BTCHW.dtype == torch.uint8
    assert together.video_BTCHW.shape == batch().video_BTCHW.shape
    assert together.audio_BFM is not None
    assert alone.audio_BFM is not None
    assert torch.equal(together.audio_BFM[1], alone.audio_BFM[0])
    assert torch.isfinite(together.audio_BFM).all()


@pytest.mark.parametrize("name", [*PICTURE_CHANGES, *SOUND_CHANGES])
def test_harms_more_with_severity_and_nothing_else(name: str) -> None:
    clean = batch(tuple(range(8)))
    assert clean.audio_BFM is not None
    harms = []
    for severity in SEVERITIES:
        changed = Corruption(name, severity, AUDIO)(clean)
        pictures = (changed.video_BTCHW.float() - clean.video_BTCHW.float()).abs().mean().item()
        assert changed.audio_BFM is not None
        sound = (changed.audio_BFM - clean.audio_BFM).abs().mean().item()
        assert (pictures == 0) == (name in SOUND_CHANGES)
        assert (sound == 0) == (name in PICTURE_CHANGES)
        harms.append(pictures + sound)
    assert harms[0] > 0
    # Texture that was resampled may come out a little nearer by chance.
    assert all(more > 0.97 * less for less, more in pairwise(harms))
    assert harms[-1] > 1.15 * harms[0]


def test_lost_frames_show_the_one_before() -> None:
    video = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    shown = drop_frames(video, 3, generator("x"))[:, 0, 0, 0]
    assert (shown <= np.arange(40)).all()
    assert (np.diff(shown.astype(int)) >= 0).all()
    assert 0.3 < (shown < np.arange(40)).mean() < 0.8  # 54 % are lost


def test_noise_has_the_power_that_it_says() -> None:
    clean_FM = batch((1,)).audio_BFM[0].numpy()  # type: ignore[index]
    for severity, ratio_db in zip(SEVERITIES, (20, 10, 5, 0, -5), strict=True):
        noisy_FM = add_sound_noise(clean_FM, severity, AUDIO, generator("x"))

        def power(values_FM: np.ndarray) -> float:
            return float(np.exp(values_FM.astype(float) * 2 * AUDIO.std + AUDIO.mean).mean())

        added = power(noisy_FM) / power(clean_FM) - 1
        assert 10 * np.log10(added) == pytest.approx(-ratio_db, abs=0.7)


def test_sound_out_of_step_by_tenths_of_seconds() -> None:
    ramp_FM = np.arange(200, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    moved = delay_sound(ramp_FM, 2, AUDIO, generator("x"))
    steps = round(200 / AUDIO.hop_ms)
    assert moved[steps * 2, 0] in (ramp_FM[steps, 0], ramp_FM[steps * 3, 0])


def test_gaps_cover_a_fifth_a_severity() -> None:
    clip_FM = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    for severity in SEVERITIES:
        quiet = lose_sound(clip_FM, severity, AUDIO, generator("x"))
        silent = (quiet == clip_FM.min(axis=0)).all(axis=1)
        assert silent.sum() == 20 * severity


def test_padding_and_silent_clips_stay_as_they_are() -> None:
    clean = batch()
    silent = dataclasses.replace(clean, has_audio_B=torch.tensor([True, False, True]))
    short = dataclasses.replace(silent, audio_frames_B=torch.tensor([50, 50, 50]))
    for name in SOUND_CHANGES:
        changed = Corruption(name, 5, AUDIO)(short)
        assert changed.audio_BFM is not None
        assert clean.audio_BFM is not None
        assert torch.equal(changed.audio_BFM[1], clean.audio_BFM[1])
        assert torch.equal(changed.audio_BFM[0, 50:], clean.audio_BFM[0, 50:])


def test_a_model_that_hears_nothing() -> None:
    deaf = dataclasses.replace(batch(), audio_BFM=None)
    with pytest.raises(ValueError, match="this method hears none"):
        Corruption("sound: noise", 1)(deaf)
