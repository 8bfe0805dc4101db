"""Makes torchvision, torchaudio (and so timm) importable beside a CPU build of torch.

PyPI carries these companions as CUDA builds only: their compiled parts need CUDA libraries that a
CPU install of torch does not have, and their imports fail although everything written in Python
works. :func:`install` puts a finder in front of Python's own that acts only when one of the two is
imported, and only when its compiled part does not load:

* torchvision: the two operators that its import registers fakes for (``nms``, ``qnms``) are
  declared, without an implementation, so that the import succeeds. Calling them still fails.
* torchaudio: its extension module is replaced by one that says "not available", the state that
  torchaudio itself supports for builds without an extension.

Where the compiled parts load (a CUDA build of torch, or CPU builds of the companions) nothing is
changed. Both of our packages call :func:`install` on import, so it also holds in Ray workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

_AUDIO_EXTENSION = "torchaudio._extension"


class _NoAudioExtension(Loader):
    """Builds ``torchaudio._extension`` as it looks where there is no compiled part."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def unavailable(function: Any) -> Any:
            def fail(*_args: Any, **_kwargs: Any) -> Any:
                raise RuntimeError(
                    f"torchaudio.{function.__name__} needs torchaudio's compiled extension, which "
                    "does not load beside this CPU build of torch; use a CUDA build of torch, or "
                    "torch and torchaudio from PyTorch's own CPU index."
                )

            return fail

        module.__dict__.update(
            _IS_TORCHAUDIO_EXT_AVAILABLE=False,
            _IS_ALIGN_AVAILABLE=False,
            fail_if_no_align=unavailable,
        )


class CompanionFinder(MetaPathFinder):
    """Looks at imports of torchvision and torchaudio's extension; leaves all others alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            _declare_torchvision_operators()
        elif fullname == _AUDIO_EXTENSION and not _audio_extension_loads(path):
            return spec_from_loader(fullname, _NoAudioExtension())
        return None


def install() -> None:
    """Puts the finder in place, once per process."""
    if not any(isinstance(finder, CompanionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, CompanionFinder())


def compiled_part_loads(package: str) -> bool:
    """Whether the compiled part of ``"torchvision"`` or ``"torchaudio"`` loads here.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = PathFinder.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    folder = Path(spec.submodule_search_locations[0])
    library = folder / ("_C.so" if package == "torchvision" else "lib/_torchaudio.abi3.so")
    return _loads(library)


def _declare_torchvision_operators() -> None:
    import torch

    if PathFinder.find_spec("torchvision") is None or compiled_part_loads("torchvision"):
        return
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", schema)


def _audio_extension_loads(path: Sequence[str] | None) -> bool:
    folders = [Path(entry) for entry in path or ()]
    libraries = [folder / "lib" / "_torchaudio.abi3.so" for folder in folders]
    return any(_loads(library) for library in libraries if library.exists())


def _loads(library: Path) -> bool:
    """Loads a compiled library into torch; an OSError is the answer "no", not a fault."""
    import torch

    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
