"""What happens to clips in the world, in five severities, for measuring what a model bears.

Pictures are changed after the face was found and cut out, so this measures the network, not the
face detector; sound is changed as log-mel energies (powers of noise and speech add up). What is
drawn depends on the clip's seed only, not on the batch or the device.

Shapes: B clips, T frames, H x W pixels, F audio frames, M mels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mien.media.audio import log_mel
from mien.seeds import generator
from mien_models.contract import AudioSpec, ClipBatch

SEVERITIES = (1, 2, 3, 4, 5)
Video = NDArray[np.uint8]
"""[T, H, W, 3] RGB."""
PictureChange = Callable[[Video, int, np.random.Generator], Video]
SoundChange = Callable[
    [NDArray[np.float32], int, AudioSpec, np.random.Generator], NDArray[np.float32]
]
_SAMPLE_RATE_HZ = 16_000


def darken(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """Too little light: intensities to the power of gamma, then less of them."""
    gamma, share = 1 + 0.4 * severity, 1 - 0.14 * severity
    table = 255 * share * (np.arange(256) / 255) ** gamma
    return np.asarray(table.round().astype(np.uint8)[video])


def brighten(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """Too much light: bright parts are lost."""
    table = np.clip(np.arange(256) * (1 + 0.25 * severity) + 8 * severity, 0, 255)
    return np.asarray(table.round().astype(np.uint8)[video])


def blur(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """Out of focus: Gaussian, its width a share of the picture's."""
    sigma = video.shape[1] * 0.01 * severity
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in video])


def add_noise(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A bad sensor: Gaussian noise, another in every frame."""
    noisy = video + rng.normal(0, 9 * severity, video.shape)
    return np.clip(noisy.round(), 0, 255).astype(np.uint8)


def compress(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """JPEG of low quality."""
    quality = (40, 25, 15, 9, 5)[severity - 1]
    return np.stack([_through_jpeg(frame, quality) for frame in video])


def shrink(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A small, far-away face."""
    height, width = video.shape[1:3]
    share = (0.6, 0.45, 0.33, 0.25, 0.18)[severity - 1]
    size = max(2, round(width * share)), max(2, round(height * share))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video]
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in small])


def occlude(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A hand or an object: a grey square at one place of the whole clip."""
    height, width = video.shape[1:3]
    side = round(min(height, width) * 0.13 * (severity + 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    covered = video.copy()
    covered[:, top : top + side, left : left + side] = 128
    return covered


def mask_mouth(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A face mask: the lower part of the face, more of it the severer."""
    covered = video.copy()
    covered[:, round(video.shape[1] * (1 - 0.1 * severity)) :] = (200, 215, 225)
    return covered


def rotate(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A tilted head that was not aligned; to either side."""
    height, width = video.shape[1:3]
    degrees = 9.0 * severity * rng.choice((-1, 1))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    border = cv2.BORDER_REPLICATE
    return np.stack([cv2.warpAffine(f, turn, (width, height), borderMode=border) for f in video])


def drop_frames(video: Video, severity: int, rng: np.random.Generator) -> Video:
    """A stalling transmission: a lost frame shows the one before it."""
    is_lost = rng.random(len(video)) < 0.18 * severity
    is_lost[0] = False
    shown = np.maximum.accumulate(np.where(is_lost, 0, np.arange(len(video))))
    return video[shown]


def add_sound_noise(
    log_mel_FM: NDArray[np.float32], severity: int, audio: AudioSpec, rng: np.random.Generator
) -> NDArray[np.float32]:
    """White noise at 20, 10, 5, 0 and -5 dB below the mean power of the sound."""
    ratio_db = (20.0, 10.0, 5.0, 0.0, -5.0)[severity - 1]
    power_FM = np.exp(_to_energies(log_mel_FM, audio))
    noise_FM = np.exp(_white_noise(audio.num_mels, audio.hop_ms))
    start = rng.integers(0, len(noise_FM))
    noise_FM = np.take(noise_FM, start + np.arange(len(power_FM)), axis=0, mode="wrap")
    scale = power_FM.mean() / noise_FM.mean() * 10 ** (-ratio_db / 10)
    return _from_energies(np.log(power_FM + scale * noise_FM), audio)


def delay_sound(
    log_mel_FM: NDArray[np.float32], severity: int, audio: AudioSpec, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Sound 0.1 s a severity too late or too early; what leaves returns at the other side."""
    frames = round(100 * severity / audio.hop_ms)
    return np.roll(log_mel_FM, frames * int(rng.choice((-1, 1))), axis=0)


def lose_sound(
    log_mel_FM: NDArray[np.float32], severity: int, audio: AudioSpec, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaps in the sound: a fifth of it a severity is silent, at five all of it."""
    num_frames = len(log_mel_FM)
    length = round(num_frames * severity / 5)
    start = int(rng.integers(0, num_frames))
    silent = (start + np.arange(length)) % num_frames
    quiet = log_mel_FM.copy()
    quiet[silent] = log_mel_FM.min(axis=0)
    return quiet


PICTURE_CHANGES: Mapping[str, PictureChange] = {
    "low light": darken,
    "bright light": brighten,
    "blur": blur,
    "noise": add_noise,
    "compression": compress,
    "low resolution": shrink,
    "occlusion": occlude,
    "mask": mask_mouth,
    "rotation": rotate,
    "frame drop": drop_frames,
}
SOUND_CHANGES: Mapping[str, SoundChange] = {
    "sound: noise": add_sound_noise,
    "sound: gaps": lose_sound,
    "sound: out of step": delay_sound,
}
SOUND_MISSING = "sound: missing"
"""Marked as missing, so that the method knows; it has one severity only."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A change of a batch, as evaluation calls it."""

    name: str
    severity: int
    audio: AudioSpec | None = None
    """Of the method's stream; needed for changes of sound."""

    def __call__(self, batch: ClipBatch) -> ClipBatch:
        """The batch with every clip changed, each by its own seed."""
        if self.name in PICTURE_CHANGES:
            return self._change_pictures(batch, PICTURE_CHANGES[self.name])
        return self._change_sound(batch, SOUND_CHANGES[self.name])

    def _rng(self, batch: ClipBatch, row: int) -> np.random.Generator:
        return generator("corruption", self.name, self.severity, int(batch.seed_B[row]))

    def _change_pictures(self, batch: ClipBatch, change: PictureChange) -> ClipBatch:
        view = batch.views[0]
        clips = view.video_BTCHW.permute(0, 1, 3, 4, 2).cpu().numpy()
        changed = [
            change(np.ascontiguousarray(clip), self.severity, self._rng(batch, row))
            for row, clip in enumerate(clips)
        ]
        video_BTCHW = torch.from_numpy(np.stack(changed)).permute(0, 1, 4, 2, 3).contiguous()
        view = dataclasses.replace(view, video_BTCHW=video_BTCHW.to(view.video_BTCHW.device))
        return dataclasses.replace(batch, views=(view, *batch.views[1:]))

    def _change_sound(self, batch: ClipBatch, change: SoundChange) -> ClipBatch:
        if batch.audio_BFM is None or self.audio is None:
            raise ValueError(f"{self.name!r} changes sound, and this method hears none")
        changed_BFM = batch.audio_BFM.cpu().numpy().copy()
        lengths_B, has_audio_B = batch.audio_frames_B.tolist(), batch.has_audio_B.tolist()
        for row, (length, has_audio) in enumerate(zip(lengths_B, has_audio_B, strict=True)):
            if has_audio and length:
                clip_FM, rng = changed_BFM[row, :length], self._rng(batch, row)
                changed_BFM[row, :length] = change(clip_FM, self.severity, self.audio, rng)
        audio_BFM = torch.from_numpy(changed_BFM).to(batch.audio_BFM.device)
        return dataclasses.replace(batch, audio_BFM=audio_BFM)


def _through_jpeg(frame_HWC: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _to_energies(log_mel_FM: NDArray[np.float32], audio: AudioSpec) -> NDArray[np.float64]:
    """Undoes the normalisation (value - mean) / (2 std)."""
    return log_mel_FM.astype(np.float64) * 2 * audio.std + audio.mean


def _from_energies(energies_FM: NDArray[np.float64], audio: AudioSpec) -> NDArray[np.float32]:
    return ((energies_FM - audio.mean) / (2 * audio.std)).astype(np.float32)


@cache
def _white_noise(num_mels: int, hop_ms: float) -> NDArray[np.float64]:
    """Log energies of four seconds of white noise."""
    samples = generator("white noise").normal(0, 0.1, 4 * _SAMPLE_RATE_HZ).astype(np.float32)
    features = log_mel(samples, sample_rate_hz=_SAMPLE_RATE_HZ, num_mels=num_mels, hop_ms=hop_ms)
    return features.numpy().astype(np.float64)
