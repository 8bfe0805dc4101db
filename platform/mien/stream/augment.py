"""Random changes to a clip, drawn once a clip and the same for all its frames.

The transforms are torchvision's; a clip's seed is set around them, so that the draw belongs to
(run seed, epoch, clip, view) and to nothing else.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from mien_models.contract import AudioSpec, Augmentation


def augment_video(video_TCHW: Tensor, augmentation: Augmentation, *, seed: int) -> Tensor:
    """Changes the frames of one clip.

    Args:
        video_TCHW: uint8 [T, 3, H, W].
        augmentation: what may be drawn.
        seed: same seed, same draw.

    Returns:
        uint8 [T, 3, H, W], the same size.
    """
    size = list(video_TCHW.shape[-2:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for transform in _transforms(augmentation, size):
            video_TCHW = transform(video_TCHW)
        if augmentation.frame_shift > 0:
            video_TCHW = _shift_frames(video_TCHW, augmentation.frame_shift)
    return video_TCHW


def _transforms(augmentation: Augmentation, size: list[int]) -> list[v2.Transform]:
    chosen: list[v2.Transform] = []
    if augmentation.rotation_deg > 0:
        chosen.append(v2.RandomRotation(augmentation.rotation_deg))
    if augmentation.min_crop_area < 1:
        scale = (augmentation.min_crop_area, 1.0)
        chosen.append(v2.RandomResizedCrop(size, scale=scale, antialias=True))
    if augmentation.flip_probability > 0:
        chosen.append(v2.RandomHorizontalFlip(augmentation.flip_probability))
    colours = (
        *(augmentation.brightness, augmentation.contrast),
        *(augmentation.saturation, augmentation.hue),
    )
    if any(colours):
        chosen.append(v2.ColorJitter(*colours))
    if augmentation.rand_augment_ops > 0:
        chosen.append(
            v2.RandAugment(augmentation.rand_augment_ops, augmentation.rand_augment_magnitude)
        )
    if augmentation.grey_probability > 0:
        chosen.append(v2.RandomGrayscale(augmentation.grey_probability))
    if augmentation.blur_probability > 0:
        blur = v2.GaussianBlur(kernel_size=5, sigma=(0.1, 2.0))
        chosen.append(v2.RandomApply([blur], p=augmentation.blur_probability))
    return chosen


def _shift_frames(video_TCHW: Tensor, share: float) -> Tensor:
    """Moves every frame by its own few pixels; edges are repeated."""
    reach = max(1, round(share * video_TCHW.shape[-1]))
    padded = functional.pad(video_TCHW, [reach], padding_mode="edge")
    height, width = video_TCHW.shape[-2:]
    offsets_T2 = torch.randint(0, 2 * reach + 1, (len(video_TCHW), 2)).tolist()
    return torch.stack(
        [
            frame[:, top : top + height, left : left + width]
            for frame, (top, left) in zip(padded, offsets_T2, strict=True)
        ]
    )


def augment_audio(
    log_mel_FM: Tensor,
    valid_frames: int,
    augmentation: Augmentation,
    audio: AudioSpec,
    *,
    seed: int,
) -> Tensor:
    """Changes a normalised log-mel spectrogram: gain, and SpecAugment masks inside the sound.

    A gain of x dB adds ``x * ln(10) / 10`` to every log energy, which is exact up to the floor of
    silence; masks are set to zero, the mean of the normalised features.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    changed = log_mel_FM.clone()
    sound = changed[:valid_frames]
    if augmentation.audio_gain_db > 0:
        gain_db = rng.uniform(-augmentation.audio_gain_db, augmentation.audio_gain_db)
        sound += gain_db * np.log(10.0) / 10.0 / (2.0 * audio.std)
    for axis, widest in ((0, augmentation.spec_time_mask), (1, augmentation.spec_freq_mask)):
        widest = min(widest, sound.shape[axis])
        if widest > 0:
            width = int(rng.integers(widest + 1))
            start = int(rng.integers(sound.shape[axis] - width + 1))
            sound.narrow(axis, start, width).zero_()
    return changed
