"""A teacher network: the moving average of a student's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

_RAMP_STEPS = 9.0
"""With a ramp the decay after t updates is (1 + t) / (10 + t) until it reaches its full value."""


class EmaTeacher(nn.Module):
    """A copy of a network that follows it slowly; always in evaluation mode, never trained.

    All its tensors are buffers: frozen parameters would be kept once a stage, buffers are in every
    checkpoint.

    Args:
        student: the network that is followed; copied as it is.
        decay: share of the teacher that an update leaves.
        ramp: a smaller decay in the first updates, so that the first weights are soon forgotten.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    updates: Tensor

    def __init__(self, student: nn.Module, *, decay: float, ramp: bool) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"a teacher's decay must lie in [0, 1), got {decay}")
        self.decay, self.ramp = decay, ramp
        self.network = copy.deepcopy(student)
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())
        # Recurrent layers also keep a list of their weights, which this makes them gather anew.
        self.network._apply(lambda tensor: tensor)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.train(False)

    def train(self, mode: bool = True) -> EmaTeacher:
        """Stays in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, *inputs: Any) -> Any:
        """What the averaged network says."""
        return self.network(*inputs)

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
