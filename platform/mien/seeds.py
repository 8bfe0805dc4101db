"""Seeds that are functions of what they are for.

Every random draw of a run comes from ``derive_seed(run seed, purpose, epoch, clip id, ...)``, so
nothing depends on the number of workers, on the order in which work is done or on where a run was
interrupted, and a checkpoint needs to carry no generator state.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A number in [0, 2**63) from numbers and strings; the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded by :func:`derive_seed`."""
    return np.random.Generator(np.random.Philox(derive_seed(*parts)))


def seed_torch(*parts: int | str) -> None:
    """Seeds torch's generators (CPU and accelerators) by :func:`derive_seed`."""
    torch.manual_seed(derive_seed(*parts))
