"""The network as a ``torch.export`` graph in MLflow's ``pt2`` format, checked before it is used.

For users who have MLflow and torch but not Mien; nothing in it is unpickled when it is loaded.

The export has a batch dimension of any size; frames, pixels, audio frames and mel bands are fixed,
because the method fixes them. MLflow only passes ``Dim.AUTO`` to the exporter, which may silently
turn a dimension that the network's code fixes into a constant; so :func:`save_export` loads the
file again and compares its logits with the eager network's for batches of 1 to 3 clips.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from mien.infer.package import PackageInfo
from mien_models.contract import Method, StreamSpec, TensorPredictor

_EXAMPLE_CLIPS = 2
"""A batch of one would make the exporter take the batch dimension for a constant."""


class ExportError(ValueError):
    """A network that can't be exported so that it computes the same."""


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """The network to export beside the package."""

    method: Method
    """With the package's state, on the CPU; left in evaluation mode."""
    tolerance: float = 1e-4
    """Largest difference of a logit between the export and the eager network."""


def export_signature(stream: StreamSpec, num_classes: int) -> ModelSignature:
    """Inputs and output of the exported network, -1 for the number of clips."""
    frames, size = stream.views[0].num_frames, stream.image_size_px
    inputs = [TensorSpec(np.dtype("uint8"), (-1, frames, 3, size, size), name="video_BTCHW")]
    if stream.audio is not None:
        shape = (-1, stream.audio.num_frames, stream.audio.num_mels)
        inputs += [
            TensorSpec(np.dtype("float32"), shape, name="audio_BFM"),
            TensorSpec(np.dtype("int64"), (-1,), name="audio_frames_B"),
            TensorSpec(np.dtype("bool"), (-1,), name="has_audio_B"),
        ]
    output = TensorSpec(np.dtype("float32"), (-1, num_classes), name="logits_BK")
    return ModelSignature(Schema(inputs), Schema([output]))


def example_inputs(stream: StreamSpec, num_clips: int) -> tuple[NDArray[Any], ...]:
    """Made-up clips of the right shapes, every second one without sound."""
    rng = np.random.default_rng(0)
    frames, size = stream.views[0].num_frames, stream.image_size_px
    video = rng.integers(0, 256, (num_clips, frames, 3, size, size), dtype=np.uint8)
    if stream.audio is None:
        return (video,)
    audio = stream.audio
    has_audio = np.arange(num_clips) % 2 == 0
    sound = rng.standard_normal((num_clips, audio.num_frames, audio.num_mels)).astype(np.float32)
    valid = np.where(has_audio, audio.num_frames // 2, 0).astype(np.int64)
    return video, sound * has_audio[:, None, None], valid, has_audio


def save_export(
    folder: Path, info: PackageInfo, export: ExportSpec, *, run_id: str, model_id: str
) -> None:
    """Writes an MLflow model folder and checks that it computes what the method computes.

    Args:
        folder: must not exist.
        info: of the package that the network was shipped in.
        export: the network.
        run_id: the run that trained it, for MLflow's records.
        model_id: the logged model that the folder will be stored as.

    Raises:
        ExportError: the file computes something else, or only for one batch size.
    """
    predictor = TensorPredictor(export.method).eval()
    stream = info.prediction_stream
    with torch.no_grad(), warnings.catch_warnings():
        # A part of MLflow that has nothing to do with tensors says this while it is imported.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        mlflow.pytorch.save_model(
            predictor,
            folder,
            mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
            signature=export_signature(stream, len(info.label_set)),
            input_example=example_inputs(stream, _EXAMPLE_CLIPS),
            # MLflow's own guess takes seconds and names a "+cpu" version that no index has.
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
            metadata={
                "classes": list(info.label_set.classes),
                "prediction_stream": json.dumps(info.to_json()["prediction_stream"]),
            },
            serialization_format="pt2",
        )
    _check_export(folder, predictor, stream, export.tolerance)


def _check_export(
    folder: Path, predictor: TensorPredictor, stream: StreamSpec, tolerance: float
) -> None:
    loaded = mlflow.pytorch.load_model(str(folder))
    for num_clips in (1, 2, 3):
        inputs = [torch.from_numpy(array) for array in example_inputs(stream, num_clips)]
        with torch.no_grad():
            expected = predictor(*inputs)
            try:
                found = loaded(*inputs)
            except (RuntimeError, AssertionError) as error:
                raise ExportError(
                    f"the exported network does not take {num_clips} clips: {error}. Its predict() "
                    "must not fix the batch size (no Python int() or len() of a batch)."
                ) from error
        worst = float((found - expected).abs().max())
        if not worst <= tolerance:
            raise ExportError(
                f"the exported network differs from the eager one by {worst:.2g} in a logit of "
                f"{num_clips} clips, allowed is {tolerance:.2g}; predict() must be deterministic "
                "and free of control flow that depends on values"
            )
