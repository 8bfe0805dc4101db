"""Memory of a stream over an epoch whose reader is ten times slower than the decoders; a picture.

Writes docs/images/stream_memory.png (not with ``--quick``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from report import finish

from mien.clips.labels import LabelSet
from mien.clips.manifest import Manifest
from mien.clips.splits import Split
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource
from mien.synth import SynthSpec, write_dataset
from mien.train.local_ray import ray_session
from mien.train.plan import TrainPlan
from mien_models.contract import StreamSpec, ViewSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ray_memory import MemoryTrace, memory_trace

ROOT = Path(__file__).parents[1]
CLASSES = ("happiness", "sadness", "anger")
MIB = 2**20
SPEC = StreamSpec(
    split="all",
    batch_size=8,
    views=(ViewSpec(num_frames=16, sampling="random_segments"),),
    image_size_px=224,
    align_faces=False,
)


def read(source: ClipSource, steps: int, seconds_per_step: float) -> float:
    """Reads so many batches, so slowly; seconds a step after the first."""
    batches = source.batches(SPEC, start_step=0, num_steps=steps)
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        time.sleep(seconds_per_step)
    return (time.perf_counter() - start) / (steps - 1)


def measure(folder: Path, bound: int, steps: int) -> tuple[dict[str, Any], MemoryTrace]:
    """Figures and samples of a slow epoch."""
    spec = SynthSpec(num_subjects=4, classes=CLASSES, size_px=160, supersample=False)
    manifest = Manifest.read(str(write_dataset(spec, folder)))
    split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    source = ClipSource(
        manifest,
        split,
        LabelSet(name="three", classes=CLASSES),
        seed=0,
        executor=RayExecutor(tasks=2, object_store_bytes_per_task=bound // 2),
    )
    with ray_session(TrainPlan(decode_tasks=2)):
        decoding_s = read(source, max(12, steps // 4), 0.0)
        with memory_trace() as trace:
            slow_s = read(source, steps, 10 * decoding_s)
    return {
        "bound_mib": bound / MIB,
        "peak_object_store_mib": max(trace.object_store) / MIB,
        "spilled_mib": trace.spilled / MIB,
        "peak_task_mib": max(trace.tasks) / MIB,
        "decoded_mib": steps * SPEC.batch_size * 16 * 3 * 224**2 / MIB,
        "reader_s_per_step": slow_s,
        "decoders_s_per_step": decoding_s,
    }, trace


def plot(trace: MemoryTrace, bound: int, location: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(trace.seconds, [value / MIB for value in trace.object_store], label="object store")
    axes.plot(trace.seconds, [value / MIB for value in trace.tasks], label="largest task process")
    axes.axhline(bound / MIB, color="k", linestyle="--", linewidth=1, label="bound of the store")
    axes.set(xlabel="seconds of the epoch", ylabel="MiB", ylim=(0, None))
    axes.set_title("A reader ten times slower than the decoders", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    location.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(location, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    bound, steps = (64 * MIB, 16) if args.quick else (256 * MIB, 120)
    with tempfile.TemporaryDirectory() as folder:
        figures, trace = measure(Path(folder), bound, steps)
    if not args.quick:
        plot(trace, bound, ROOT / "docs" / "images" / "stream_memory.png")
    targets = {"bound": ("peak_object_store_mib", "<=", figures["bound_mib"])}
    finish("stream_memory", figures, targets, quick=args.quick)


if __name__ == "__main__":
    main()
