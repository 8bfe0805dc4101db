"""The memory of keys with the people they come from, the same on every worker.

Shape legend: M frames of this worker, N places of the dictionary, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien_models.layers.worker_sums import gather_rows

UNKNOWN = -1
"""Subject of a clip of which nobody said whose it is (``ClipBatch.subject_B``)."""
_EMPTY = -2
"""Subject of a place that holds no key yet."""


class KeyDictionary(nn.Module):
    """First in, first out. All of it is in checkpoints.

    Args:
        size: N.
        dim: E.
    """

    keys_NE: Tensor
    subject_N: Tensor
    next_place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys_NE", torch.zeros(size, dim))
        self.register_buffer("subject_N", torch.full((size,), _EMPTY, dtype=torch.int64))
        self.register_buffer("next_place", torch.zeros((), dtype=torch.int64))

    @property
    def filled_N(self) -> Tensor:
        """bool [N]: places that hold a key."""
        return self.subject_N != _EMPTY

    def of_others(self, subject_M: Tensor) -> Tensor:
        """bool [M, N]: keys that certainly show somebody else.

        Where one of the two people is unknown that is not certain.
        """
        is_known_N = self.subject_N >= 0
        is_other_MN = subject_M[:, None] != self.subject_N[None, :]
        return is_other_MN & is_known_N & (subject_M[:, None] != UNKNOWN)

    @torch.no_grad()
    def add(self, key_ME: Tensor, subject_M: Tensor, usable_M: Tensor) -> None:
        """Takes in all workers' usable keys, in the order of their ranks.

        Every worker brings the same number of rows.
        """
        usable = gather_rows(usable_M.long()).bool()
        size = len(self.keys_NE)
        keys = gather_rows(key_ME.float())[usable][-size:]
        subjects = gather_rows(subject_M)[usable][-size:]
        places = (self.next_place + torch.arange(len(keys), device=keys.device)) % size
        self.keys_NE[places] = keys
        self.subject_N[places] = subjects
        self.next_place.copy_((self.next_place + len(keys)) % size)
