"""Torch, the device that it really uses, and its companions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from mien_jobs.checks.result import Check, fail, ok, warn
from mien_models import companions

_TOLERANCE = 1e-2
_COMPANIONS = ("torchvision", "torchaudio")


def check_torch() -> Check:
    """A product of two matrices on the device that a run would use, against float64."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    error, milliseconds = _matmul_error(device)
    found = (
        f"{torch.__version__} computes on {_device_name(device)}; a 512 x 512 product takes "
        f"{milliseconds:.1f} ms"
    )
    if error > _TOLERANCE:
        return fail(
            "torch",
            f"{found} and is wrong by {error:.3g}",
            "reinstall torch: pip install --force-reinstall -c constraints.txt torch",
        )
    if device.type == "cpu" and (cards := nvidia_cards()):
        return fail("torch", f"{found}, but the machine has {cards}", _cuda_advice())
    return ok("torch", found)


def nvidia_cards(devices: Path = Path("/dev")) -> str:
    """NVIDIA cards that the system shows, as words; empty without one."""
    count = len([path for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit()])
    return f"{count} NVIDIA card{'s' if count > 1 else ''}" if count else ""


def check_companions() -> Check:
    """torchvision, torchaudio and timm: imported and used, with or without compiled parts."""
    versions = ", ".join(f"{name} {version(name)}" for name in (*_COMPANIONS, "timm"))
    for name, use in {"torchvision": _use_torchvision, "torchaudio": _use_torchaudio}.items():
        try:
            use()
        except (ImportError, RuntimeError, OSError) as error:
            return fail(
                "companions",
                f"{name}: {type(error).__name__}: {error}",
                "install versions that belong together: pip install -c constraints.txt "
                "torch torchvision torchaudio timm",
            )
    shimmed = [name for name in _COMPANIONS if not companions.compiled_part_loads(name)]
    if shimmed and torch.version.cuda:
        return warn(
            "companions",
            f"{versions}; the compiled part of {', '.join(shimmed)} does not load",
            "install versions that belong together: pip install -c constraints.txt "
            "torch torchvision torchaudio",
        )
    note = f"{' and '.join(shimmed)} without compiled part" if shimmed else "with compiled parts"
    return ok("companions", f"{versions}; {note}")


def _matmul_error(device: torch.device) -> tuple[float, float]:
    """Largest error of a product against float64 on the CPU, and the time of a second one."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    product = _synchronised(lambda: left.to(device) @ right.to(device), device)
    start = time.perf_counter()
    product = _synchronised(lambda: left.to(device) @ right.to(device), device)
    milliseconds = 1e3 * (time.perf_counter() - start)
    return float((product.cpu().double() - exact).abs().max()), milliseconds


def _synchronised(compute: Callable[[], Tensor], device: torch.device) -> Tensor:
    result = compute()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        count = torch.cuda.device_count()
        return f"cuda ({torch.cuda.get_device_name(0)}{f', {count} of them' if count > 1 else ''})"
    return f"the CPU ({torch.get_num_threads()} threads)"


def _cuda_advice() -> str:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "unset CUDA_VISIBLE_DEVICES (it is empty and hides the cards)"
    if torch.version.cuda is None:
        return (
            "this torch is a CPU build; put in the CUDA build: pip uninstall -y torch && "
            "pip install -c constraints.txt torch (from the default index)"
        )
    return (
        f"torch wants CUDA {torch.version.cuda}: update the driver, then see what nvidia-smi says"
    )


def _use_torchvision() -> None:
    from torchvision.transforms import v2

    v2.functional.resize(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [4, 4])
    import timm

    with torch.device("meta"):
        timm.create_model("vit_tiny_patch16_224")


def _use_torchaudio() -> None:
    from torchaudio.compliance import kaldi

    kaldi.fbank(torch.zeros(1, 1600), num_mel_bins=8)
