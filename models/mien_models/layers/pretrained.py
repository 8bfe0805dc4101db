"""Weights that others trained, checked name by name before they go into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_NAMED = 8
"""Offenders of a kind that an error names; the rest is counted."""


class WeightsMismatchError(ValueError):
    """Weights that do not fit; says which names are missing, unknown or of another shape."""


def check_part(part: str, parts: Sequence[str], *, method: str) -> None:
    """Refuses weights for a part that a method doesn't have, or learns itself.

    Args:
        part: what the weights are for.
        parts: what the method takes weights for, with its settings.
        method: its name, for the error.

    Raises:
        ValueError: names the parts.
    """
    if part not in parts:
        known = ", ".join(parts) or "none (everything is learnt)"
        raise ValueError(f"{method} takes no weights for {part!r}; with these settings: {known}")


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], what: str
) -> None:
    """Compares names and shapes.

    Args:
        found: the weights.
        expected: the shape of each name; nothing may be missing and nothing left over.
        what: what they should be, for the error.

    Raises:
        WeightsMismatchError: lists what does not match.
    """
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [
        f"{name} is {list(found[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    faults = {"missing": missing, "not expected": unknown, "of another shape": reshaped}
    if not any(faults.values()):
        return
    told = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
    matching = len(expected) - len(missing) - len(reshaped)
    raise WeightsMismatchError(
        f"these are not the weights of {what} ({matching} of {len(expected)} tensors match). {told}"
    )


def without(tensors: Mapping[str, Tensor], is_idle: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors but for those that nothing here uses (decoders, unused heads)."""
    return {name: tensor for name, tensor in tensors.items() if not is_idle(name)}


def load_trunk(trunk: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Puts published weights (of timm, or of torchvision under the same names) into a timm network.

    A classifier among them is left out, and counters of batches, which not everybody publishes,
    may be missing.

    Raises:
        WeightsMismatchError: they don't fit; lists what doesn't. The trunk is as before then.
    """
    own = trunk.state_dict()
    heads = classifier_names(trunk)
    kept = without(tensors, lambda key: key.rsplit(".", 1)[0] in heads)
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    kept = {**{key: torch.zeros((), dtype=torch.int64) for key in counters}, **kept}
    check_tensors(kept, {key: tuple(tensor.shape) for key, tensor in own.items()}, f"timm's {name}")
    trunk.load_state_dict(kept)


def classifier_names(trunk: nn.Module) -> set[str]:
    """Names of the layers that a timm network without classifier would have as its classifier."""
    named = getattr(trunk, "pretrained_cfg", {}).get("classifier") or ()
    return {named} if isinstance(named, str) else set(named)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
