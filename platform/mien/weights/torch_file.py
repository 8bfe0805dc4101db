"""Tensors out of files that ``torch.save`` wrote, without executing anything that is in them.

A pickle is a program. Published checkpoints hold more than tensors (argument lists, optimisers,
instances of classes of the script that wrote them), so torch's own ``weights_only`` refuses them.
Here every name that is not needed to rebuild a tensor stands for an inert object: it is neither
imported nor called.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class WeightsError(ValueError):
    """A file that holds no weights, or not those that were expected."""


class Unread:
    """What stands for an object that is not a tensor; anything can be done to it, to no effect."""

    def __new__(cls, *_: Any, **__: Any) -> Unread:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever the file would have passed to a constructor is dropped."""

    def __call__(self, *_: Any, **__: Any) -> Unread:
        return self

    def __setstate__(self, _: Any) -> None:
        """The state is dropped."""

    def __setitem__(self, _: Any, __: Any) -> None:
        """The item is dropped."""

    def append(self, _: Any) -> None:
        """The item is dropped."""

    def extend(self, _: Any) -> None:
        """The items are dropped."""


_TENSOR_BUILDERS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The few functions that make tensors; for every other name an inert object."""
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _TENSOR_BUILDERS.get((module, name), Unread)


class _InertPickle:
    """What ``torch.load`` takes for the module ``pickle``."""

    __name__ = "mien.weights.torch_file"
    Unpickler = _TensorUnpickler

    @staticmethod
    def load(file: Any, **settings: Any) -> Any:
        """As ``pickle.load``."""
        return _TensorUnpickler(file, **settings).load()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of the state dict in a ``torch.save`` file.

    The state dict is the file's own mapping of names to tensors, or the largest such mapping one
    level down (``model``, ``state_dict`` ...). Nothing in the file is executed.

    Returns:
        CPU tensors by name; without the prefix ``module.`` where all names have it.

    Raises:
        WeightsError: not such a file, damaged, or without tensors.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is no safetensors file: {error}") from error
    found = _state_dict(_load_inert(path))
    if not found:
        raise WeightsError(
            f"{path} holds no tensors by name: expected a state dict, or one under a key such as "
            "'model' or 'state_dict'"
        )
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def _load_inert(path: Path) -> Any:
    _refuse_programs(path)
    try:
        return torch.load(
            path, map_location="cpu", pickle_module=_InertPickle(), weights_only=False
        )
    except Exception as error:
        # Unpickling inert objects can fail in as many ways as there are programs.
        raise WeightsError(
            f"{path} cannot be read as a file of torch.save ({type(error).__name__}: {error}). It "
            "is damaged, cut off, or another kind of file; download it again"
        ) from error


def _refuse_programs(path: Path) -> None:
    """Raise for kinds that torch.load would hand to other loaders, and for what is no pickle."""
    with path.open("rb") as file:
        head = file.read(2)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise WeightsError(
                    f"{path} is a TorchScript program, not a file of weights; export its state "
                    "dict with torch.save"
                )
    elif not head.startswith(b"\x80"):
        raise WeightsError(
            f"{path} is neither a safetensors file nor one of torch.save (a zip archive or a "
            "pickle); an HTML page saved in its place looks like this too"
        )


def _state_dict(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        return {}
    own = _tensors(value)
    inner = (_tensors(item) for item in value.values() if isinstance(item, Mapping))
    return max([own, *inner], key=len)


def _tensors(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: item.detach()
        for name, item in value.items()
        if isinstance(name, str) and isinstance(item, Tensor)
    }
