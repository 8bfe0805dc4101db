"""A network as it was, to learn from."""

from __future__ import annotations

import copy
from typing import Any, Self

from torch import nn


class FrozenCopy(nn.Module):
    """A copy of a network; always in evaluation mode, never trained.

    All its tensors are buffers: frozen parameters would be kept once a stage, buffers are in every
    checkpoint.

    Args:
        original: copied as it is.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(original)
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())
        # Recurrent layers also keep a list of their weights, which this makes them gather anew.
        self.network._apply(lambda tensor: tensor)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, *inputs: Any) -> Any:
        """What the copy says."""
        return self.network(*inputs)
