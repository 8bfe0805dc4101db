"""A teacher network: the moving average of a student's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien_models.layers.frozen_copy import FrozenCopy

_RAMP_STEPS = 9.0
"""With a ramp the decay after t updates is (1 + t) / (10 + t) until it reaches its full value."""


class EmaTeacher(FrozenCopy):
    """A copy of a network that follows it slowly; always in evaluation mode, never trained.

    Args:
        student: the network that is followed; copied as it is.
        decay: share of the teacher that an update leaves.
        ramp: a smaller decay in the first updates, so that the first weights are soon forgotten.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    updates: Tensor

    def __init__(self, student: nn.Module, *, decay: float, ramp: bool) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"a teacher's decay must lie in [0, 1), got {decay}")
        super().__init__(student)
        self.decay, self.ramp = decay, ramp
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """One step towards the student: its weights and running statistics; counters are copied."""
        step = 1.0 - self._decay_now()
        self.updates.add_(1)
        theirs = student.state_dict()
        for name, mine in self.network.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], step.to(mine.dtype))
            else:
                mine.copy_(theirs[name])

    @torch.no_grad()
    def restart(self, student: nn.Module) -> None:
        """Becomes the student as it is, as if just made."""
        self.network.load_state_dict(student.state_dict())
        self.updates.zero_()

    def _decay_now(self) -> Tensor:
        full = torch.full((), self.decay, device=self.updates.device)
        if not self.ramp:
            return full
        done = self.updates.float()
        return torch.minimum(full, (1.0 + done) / (1.0 + _RAMP_STEPS + done))
