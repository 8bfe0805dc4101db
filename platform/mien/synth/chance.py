"""Random streams that depend on names, not on the order in which things are drawn."""

import hashlib

import numpy as np


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator for one purpose of one thing, the same in every process.

    Args:
        seed: The data set's seed.
        keys: What is drawn, for example "pose" and a clip id.
    """
    text = "\x1f".join(str(key) for key in (seed, *keys))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
