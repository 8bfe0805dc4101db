"""A method as a graph of tensors, in files that run without Mien.

The batch dimension is free; frames, pixels, audio frames and mel bands are fixed, because the
method fixes them. Nothing in the files is unpickled when they are loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mien.track.export import ExportError, example_inputs, export_signature
from mien_models.contract import Method, Prediction, plain_batch

Format = Literal["onnx", "torch"]
FILES: dict[Format, str] = {"onnx": "model.onnx", "torch": "model.pt2"}
OUTPUTS = ("logits_BK", "action_unit_logits_BTU", "action_unit_intensity_BTU")
"""Fields of a prediction that a graph tells, of those that the method has."""

Arrays = tuple[NDArray[Any], ...]
Runner = Callable[[Arrays], Arrays]
"""From a batch's input arrays to its outputs, in the order of their names."""

_EXAMPLE_CLIPS = 2
"""A batch of one would make the exporter take the batch dimension for a constant."""


class PlainOutputs(nn.Module):
    """What a method says about plain tensors, without what it does not tell.

    Inputs as `mien_models.contract.TensorPredictor`; every frame counts as one with a face.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(
        self,
        video_BTCHW: Tensor,
        audio_BFM: Tensor | None = None,
        audio_frames_B: Tensor | None = None,
        has_audio_B: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The outputs of `OUTPUTS` that there are."""
        batch = plain_batch(video_BTCHW, audio_BFM, audio_frames_B, has_audio_B)
        return told(self.method.predict(batch))


def told(prediction: Prediction) -> tuple[Tensor, ...]:
    """The outputs of a prediction that there are, in the order of `OUTPUTS`."""
    values = (getattr(prediction, name) for name in OUTPUTS)
    return tuple(value for value in values if value is not None)


def input_names(method: Method) -> list[str]:
    """Names of a graph's inputs, in order."""
    schema = export_signature(method.prediction_stream(), len(method.classes)).inputs
    return [str(name) for name in schema.input_names()]


@torch.no_grad()
def output_shapes(method: Method) -> dict[str, tuple[int, ...]]:
    """Names of a graph's outputs, in order, and their sizes without the batch."""
    inputs = example_inputs(method.prediction_stream(), _EXAMPLE_CLIPS)
    prediction = method.predict(plain_batch(*(torch.from_numpy(array) for array in inputs)))
    values = {name: getattr(prediction, name) for name in OUTPUTS}
    return {name: tuple(value.shape[1:]) for name, value in values.items() if value is not None}


@torch.no_grad()
def trace(method: Method) -> ExportedProgram:
    """The method's graph for any number of clips.

    Args:
        method: in evaluation mode, on the CPU.

    Raises:
        ExportError: its ``predict`` can't be traced, or fixes the number of clips.
    """
    arrays = example_inputs(method.prediction_stream(), _EXAMPLE_CLIPS)
    inputs = tuple(torch.from_numpy(array) for array in arrays)
    clips = Dim("clips")
    try:
        return torch.export.export(
            PlainOutputs(method).eval(), inputs, dynamic_shapes=[{0: clips} for _ in inputs]
        )
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        raise ExportError(
            f"{type(method).__name__} can't be exported: {error}. Its predict() must be free of "
            "control flow that depends on values, and must not fix the number of clips (no Python "
            "int() or len() of a batch)"
        ) from error


def write_graph(graph: ExportedProgram, method: Method, path: Path, form: Format) -> None:
    """Writes a graph into a file of its own.

    Raises:
        ExportError: ONNX has no counterpart of a part of it.
    """
    if form == "torch":
        torch.export.save(graph, path)
        return
    with warnings.catch_warnings():
        # PyTorch's exporter calls a part of PyTorch that will go.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        try:
            program = torch.onnx.export(
                graph,
                input_names=input_names(method),
                output_names=list(output_shapes(method)),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"{type(method).__name__} can't be written as ONNX: {error}; --format torch leaves "
                "it out"
            ) from error
    assert program is not None
    program.save(path)
    onnx.checker.check_model(path)


def open_graph(path: Path, form: Format, *, threads: int) -> Runner:
    """A written file as a function, on the CPU, with so many threads (of torch: this process's).

    Raises:
        ExportError: onnxruntime can't run it.
    """
    if form == "torch":
        module = torch.export.load(path).module()
        return lambda arrays: run_module(module, arrays)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has classes of its own, without a common one
        raise ExportError(
            f"onnxruntime can't run what was written: {error}; --format torch leaves ONNX out"
        ) from error
    names = [item.name for item in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        return tuple(session.run(None, dict(zip(names, arrays, strict=True))))

    return run


@torch.no_grad()
def run_module(module: nn.Module, arrays: Sequence[NDArray[Any]]) -> Arrays:
    """A module's outputs for plain arrays."""
    outputs = module(*(torch.from_numpy(array) for array in arrays))
    return tuple(np.asarray(output) for output in outputs)
