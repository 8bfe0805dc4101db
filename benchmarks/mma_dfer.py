"""A training step and inference of MMA-DFER against a literal implementation of its description.

Both networks hold the same weights and see the same clip at 224 px; they take turns. On a CPU in
float32 on one thread, by CPU time; ``products_share`` is the share of our step that its matrix
products alone take, which no implementation in float32 can avoid. Peak memory is that of a process
of its own for each. With a CUDA device also bfloat16, compiled, against the literal float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from literal_mma_dfer import LiteralMmaDfer, Sizes
from report import finish
from torch import Tensor, nn

from mien_models.contract import plain_batch
from mien_models.mma_dfer import MmaDfer
from mien_models.mma_dfer.published import from_published

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
"""Dense bfloat16 peak by a part of the device's name (vendor's data sheets)."""
GFLOP_PER_CLIP = 616.9
"""Forward, at 224 px and 16 frames."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same network twice, and a batch."""

    literal: LiteralMmaDfer
    ours: MmaDfer
    video: Tensor
    """uint8 [B, T, 3, H, W]."""
    audio: Tensor

    def logits_of_literal(self) -> Tensor:
        return self.literal(self.video.float() / 255, self.audio)

    def logits_of_ours(self) -> Tensor:
        return self.ours.predict(plain_batch(self.video, self.audio)).logits_BK


def make_pair(frames: int, clips: int, device: str = "cpu") -> Pair:
    """Both networks with open gates and the published choice of what trains."""
    torch.manual_seed(0)
    literal = LiteralMmaDfer(Sizes(num_frames=frames))
    with torch.no_grad():
        for name, parameter in literal.named_parameters():
            if "gate" in name:
                parameter.fill_(0.3)
    ours = from_published(literal.state_dict())
    stage = ours.stage(0)
    assert stage is not None
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, p) for p in stage.trainable))
    video = torch.randint(0, 256, (clips, frames, 3, 224, 224), dtype=torch.uint8)
    audio = torch.randn(clips, 512, 128)
    # Evaluation mode: without stochastic depth both compute the same.
    return Pair(
        literal=literal.eval().to(device),
        ours=ours.eval().to(device),
        video=video.to(device),
        audio=audio.to(device),
    )


def step(network: nn.Module, logits: Callable[[], Tensor]) -> None:
    """Forward, loss and backward."""
    network.zero_grad(set_to_none=True)
    labels = torch.zeros(len(out := logits()), dtype=torch.int64, device=out.device)
    nn.functional.cross_entropy(out, labels).backward()


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def cpu_figures(frames: int, rounds: int) -> dict[str, float]:
    """Seconds of steps and of inference, their ratios, and how far the outputs differ."""
    pair = make_pair(frames, clips=1)
    with torch.no_grad():
        difference = float((pair.logits_of_literal() - pair.logits_of_ours()).abs().max())
    tasks: dict[str, Callable[[], object]] = {
        "literal_step": lambda: step(pair.literal, pair.logits_of_literal),
        "our_step": lambda: step(pair.ours, pair.logits_of_ours),
        "literal_inference": torch.no_grad()(pair.logits_of_literal),
        "our_inference": torch.no_grad()(pair.logits_of_ours),
        "products": lambda: matrix_products(frames),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(rounds + 1):
        for name, task in tasks.items():
            spent = cpu_seconds(task)
            if repeat:  # the first round warms caches up
                seconds[name].append(spent)
    best = {name: min(values) for name, values in seconds.items()}
    return {
        **{f"{name}_s": round(value, 3) for name, value in best.items()},
        "step_ratio": round(best["literal_step"] / best["our_step"], 3),
        "inference_ratio": round(best["literal_inference"] / best["our_inference"], 3),
        "products_share": round(best["products"] / best["our_step"], 3),
        "largest_possible_step_ratio": round(best["literal_step"] / best["products"], 3),
        "max_abs_difference": difference,
    }


def matrix_products(frames: int) -> None:
    """The products of all blocks' linear layers, forward and backward to their inputs."""
    weights = [torch.randn(out, inp) for out, inp in _SHAPES]
    for tokens in (frames * 203, 263):
        for weight in weights:
            x = torch.ones(tokens, weight.shape[1])
            y = torch.ones(tokens, weight.shape[0])
            for _ in range(12):
                torch.mm(x, weight.t())
                torch.mm(y, weight)


_SHAPES = ((2304, 768), (768, 768), (3072, 768), (768, 3072))


def peak_mib(which: str, frames: int) -> int:
    """Growth of the peak memory of a fresh process by one training step, MiB."""
    command = [sys.executable, __file__, "--child", which, "--frames", str(frames)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])["mib"])


def run_child(which: str, frames: int) -> None:
    """What :func:`peak_mib` starts."""
    torch.set_num_threads(1)
    pair = make_pair(frames, clips=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew from here
    before = _memory_kib("VmRSS")
    if which == "literal":
        step(pair.literal, pair.logits_of_literal)
    else:
        step(pair.ours, pair.logits_of_ours)
    print(json.dumps({"mib": (_memory_kib("VmHWM") - before) // 1024}))


def _memory_kib(name: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1])


def cuda_figures(clips: int, rounds: int) -> dict[str, float]:
    """Clips a second, memory and share of the peak on a CUDA device."""
    figures: dict[str, float] = {}
    pair = make_pair(16, clips, device="cuda")
    compiled: Any = torch.compile(pair.ours.network)

    def ours_bf16() -> Tensor:
        pair.ours.network = compiled
        with torch.autocast("cuda", torch.bfloat16):
            return pair.logits_of_ours()

    kinds = {
        "literal_fp32": (pair.literal, pair.logits_of_literal),
        "ours_bf16_compiled": (pair.ours, ours_bf16),
    }
    for name, (network, logits) in kinds.items():
        for _ in range(3):
            step(network, logits)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for _ in range(rounds):
            step(network, logits)
        torch.cuda.synchronize()
        per_s = clips * rounds / (time.perf_counter() - started)
        figures[f"{name}_clips_per_s"] = round(per_s, 2)
        figures[f"{name}_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        figures[f"{name}_tflops"] = round(per_s * 2 * GFLOP_PER_CLIP / 1000, 1)
    device = torch.cuda.get_device_name()
    for part, peak in PEAK_TFLOPS.items():
        if part in device:
            share = figures["ours_bf16_compiled_tflops"] / peak
            figures["ours_share_of_peak"] = round(share, 3)
    return figures


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--child", choices=("literal", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args.child, args.frames)
        return
    torch.set_num_threads(1)
    frames, rounds = (1, 1) if args.quick else (args.frames, 3)
    figures: dict[str, float] = {"frames": frames, **cpu_figures(frames, rounds)}
    targets = {
        "training step": ("step_ratio", ">=", 1.5),
        "same outputs": ("max_abs_difference", "<=", 1e-4),
    }
    if not args.quick:
        memory = {which: peak_mib(which, frames) for which in ("literal", "ours")}
        figures |= {f"{which}_step_peak_mib": mib for which, mib in memory.items()}
        figures["memory_ratio"] = round(memory["ours"] / memory["literal"], 3)
        targets["memory"] = ("memory_ratio", "<=", 1.0)
    if torch.cuda.is_available():
        figures |= cuda_figures(clips=8, rounds=3 if args.quick else 20)
    finish("mma_dfer", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
