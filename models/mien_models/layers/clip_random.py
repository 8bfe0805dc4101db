"""Random numbers that belong to a clip, whatever worker or batch it lands in.

``ClipBatch.seed_B`` is a hash of (run seed, epoch, clip id). Numbers made from it here need no
generator state, so training on one worker and on many draws the same masks.

Shape legend: B clips, N numbers a clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64's constants, written as signed 64-bit numbers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def clip_uniform(seed_B: Tensor, count: int, stream: int) -> Tensor:
    """Independent uniform numbers for each clip (SplitMix64, Steele et al. 2014).

    Args:
        seed_B: int64 [B].
        count: numbers wanted a clip.
        stream: keeps different uses of one seed apart.

    Returns:
        float32 [B, N] in [0, 1), a multiple of 2**-24.
    """
    index_N = torch.arange(1, count + 1, dtype=torch.int64, device=seed_B.device)
    start_B1 = mix64(mix64(seed_B + _STEP) + stream)[:, None]
    bits_BN = mix64(start_B1 + index_N * _STEP)
    return _shift_right(bits_BN, 40).float() * 2.0**-24


def mix64(value: Tensor) -> Tensor:
    """SplitMix64's output function on int64 tensors, with wrap-around."""
    value = (value ^ _shift_right(value, 30)) * _FIRST
    value = (value ^ _shift_right(value, 27)) * _SECOND
    return value ^ _shift_right(value, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 copies the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
