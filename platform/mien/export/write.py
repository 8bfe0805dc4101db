"""A package to a folder of exported files, each checked, with what it takes to use them.

::

    FOLDER/
        model.onnx            inputs and outputs named as in preprocessing.json
        model.pt2             for torch.export.load
        preprocessing.json    from a film to the inputs; classes; the package's hash
        check.json            largest difference from the package, latencies, the files' hashes

The folder appears whole, under its name, when every file has passed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from mien.export.check import TOLERANCE, Comparison, compare, windows_of
from mien.export.graph import (
    FILES,
    Format,
    PlainOutputs,
    Runner,
    open_graph,
    run_module,
    trace,
    write_graph,
)
from mien.export.latency import Latency, measure
from mien.export.preprocessing import preprocessing_contract
from mien.infer.package import PackageInfo, sha256_of
from mien.stream.plan import LoadPlan
from mien.track.export import ExportError
from mien_models.contract import Method

PREPROCESSING_FILE = "preprocessing.json"
CHECK_FILE = "check.json"
EAGER = "package (eager PyTorch)"
WAYS: dict[Format, str] = {"onnx": "ONNX (onnxruntime)", "torch": "torch.export"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written and found."""

    folder: Path
    comparisons: dict[str, Comparison]
    """By file."""
    latencies: tuple[Latency, ...]
    threads: int


def export_package(
    info: PackageInfo,
    method: Method,
    folder: str | Path,
    *,
    formats: Sequence[Format],
    films: Sequence[str],
    plan: LoadPlan,
) -> Export:
    """Writes the files, compares each with the package, and measures all.

    Args:
        info: of the package.
        method: restored from it, on the CPU.
        folder: must not exist, or be empty.
        formats: which files.
        films: what the comparison looks at.
        plan: how the package's training read clips.

    Raises:
        ExportError: the folder is in use; the method can't be exported; a file differs from the
            package. Nothing is left behind.
        ClipError: a film can't be used.
    """
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target} exists and is not an empty folder; choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    method = method.eval()
    rows = windows_of(films, method, plan)
    partial_folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        partial_folder.chmod(0o755)
        _write_graphs(method, partial_folder, formats)
        contract = preprocessing_contract(info, method, plan)
        _write_json(partial_folder / PREPROCESSING_FILE, contract)
        threads = torch.get_num_threads()
        runners = {f: open_graph(partial_folder / FILES[f], f, threads=threads) for f in formats}
        comparisons = {
            FILES[form]: compare(run, method, rows, name=FILES[form])
            for form, run in runners.items()
        }
        ways: dict[str, Runner] = {EAGER: partial(run_module, PlainOutputs(method).eval())}
        ways |= {WAYS[form]: run for form, run in runners.items()}
        export = Export(
            folder=target,
            comparisons=comparisons,
            latencies=tuple(measure(ways, info.prediction_stream)),
            threads=threads,
        )
        _write_json(partial_folder / CHECK_FILE, _check_json(export, partial_folder, info, films))
        os.replace(partial_folder, target)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return export


def _write_graphs(method: Method, folder: Path, formats: Sequence[Format]) -> None:
    graph = trace(method)
    # ONNX last: its exporter rewrites the graph.
    for form in sorted(formats, key=("torch", "onnx").index):
        write_graph(graph, method, folder / FILES[form], form)


def _check_json(
    export: Export, folder: Path, info: PackageInfo, films: Sequence[str]
) -> dict[str, Any]:
    return {
        "package_weights_sha256": info.weights_sha256,
        "tolerance": TOLERANCE,
        "films": list(films),
        "files": {
            name: {"sha256": sha256_of(folder / name), **asdict(found)}
            for name, found in export.comparisons.items()
        },
        "latency": {
            "device": "cpu",
            "threads": export.threads,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "batches": [item.to_json() for item in export.latencies],
        },
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
