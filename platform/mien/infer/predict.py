"""A trained method on one video file: a row for each window of the file.

Windows go through the same function that made the training's batches, so that a clip looks the
same to the network in both; one window is decoded at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.evaluate.markdown import markdown_table
from mien.infer.windows import Window, cut_windows
from mien.media.decode import probe_clip
from mien.media.errors import ClipError
from mien.media.storage import absolute, write_bytes_atomically
from mien.stream.batches import collate
from mien.stream.load import ClipRequest, load_clip
from mien.stream.plan import DEFAULT, LoadPlan
from mien_models.contract import Method, StreamSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPrediction:
    """What the method says about one window."""

    start_s: float
    """Since the file's first frame."""
    end_s: float
    label: str | None
    """The most probable class; None where the window could not be decoded."""
    probability: float | None
    probabilities: tuple[float, ...]
    """Of all classes in the label set's order; empty where the window could not be decoded."""
    faces: float | None
    """Share of the sampled frames in which a face was found; None where the method does not look
    for faces (``StreamSpec.align_faces``) or the window could not be decoded."""
    has_audio: bool
    """Whether sound was used."""
    reason: str = ""
    """Why the window could not be decoded (``ClipError.reason``), else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePrediction:
    """The windows of a file, in order, and what a reader of the table should know."""

    uri: str
    label_set: LabelSet
    windows: tuple[WindowPrediction, ...]
    warnings: tuple[str, ...]

    def to_table(self) -> pa.Table:
        """One row a window; the classes' probabilities are columns ``p_<class>``."""
        columns: dict[str, pa.Array] = {
            "start_s": pa.array([w.start_s for w in self.windows], pa.float64()),
            "end_s": pa.array([w.end_s for w in self.windows], pa.float64()),
            "label": pa.array([w.label for w in self.windows], pa.string()),
            "probability": pa.array([w.probability for w in self.windows], pa.float64()),
        }
        for index, name in enumerate(self.label_set.classes):
            values = [w.probabilities[index] if w.probabilities else None for w in self.windows]
            columns[f"p_{name}"] = pa.array(values, pa.float64())
        columns["faces"] = pa.array([w.faces for w in self.windows], pa.float64())
        columns["has_audio"] = pa.array([w.has_audio for w in self.windows], pa.bool_())
        columns["reason"] = pa.array([w.reason for w in self.windows], pa.string())
        return pa.table(columns)

    def to_markdown(self) -> str:
        """The table for people, with the warnings below it."""
        head = ["start s", "end s", "label", "probability", "faces", "sound"]
        rows = [[*_shown(w), *(f"{p:.2f}" for p in w.probabilities)] for w in self.windows]
        table = markdown_table([*head, *self.label_set.classes], rows)
        return "\n".join([table, *(f"warning: {line}" for line in self.warnings)])

    def write(self, location: str | Path) -> None:
        """Writes the table, whole or not at all; the suffix says how (.csv, .parquet, .md).

        Raises:
            ValueError: another suffix.
            StorageError: the location can't be written.
        """
        suffix = str(location).rpartition(".")[2].lower()
        buffer = io.BytesIO()
        if suffix == "csv":
            pyarrow.csv.write_csv(self.to_table(), buffer)
        elif suffix == "parquet":
            pq.write_table(self.to_table(), buffer)
        elif suffix == "md":
            buffer.write((self.to_markdown() + "\n").encode())
        else:
            raise ValueError(f"{location}: expected a name that ends in .csv, .parquet or .md")
        write_bytes_atomically(str(location), buffer.getvalue())


def predict_file(
    path: str | Path,
    *,
    method: Method,
    label_set: LabelSet,
    stream: StreamSpec,
    plan: LoadPlan = DEFAULT,
    device: torch.device | str = "cpu",
    window_s: float | None = None,
) -> FilePrediction:
    """Predicts a video file, or a folder of frames, window by window.

    A window without a face keeps its row (``faces`` is 0) and is warned about. A window that can't
    be decoded keeps its row without a label; a file of which nothing can be decoded is an error.

    Args:
        path: a path or URI.
        method: restored from its package; moved to ``device``.
        label_set: of the package.
        stream: ``prediction_stream`` of the package.
        plan: how clips are read.
        device: where the network runs.
        window_s: seconds of a window; None: files up to 10 s are one, longer ones are cut into
            windows of 3 s.

    Raises:
        ClipError: the file can't be used; says why.
        ValueError: a window without length.
    """
    uri = absolute(str(path))
    windows = cut_windows(probe_clip(uri).duration_s, window_s)
    method = method.to(device).eval()
    found: list[WindowPrediction] = []
    errors: list[ClipError] = []
    for window in windows:
        bounds = window if len(windows) > 1 else None
        request = _request(uri, bounds, label_set, stream, plan)
        try:
            found.append(_predict_window(request, window, method, torch.device(device)))
        except ClipError as error:
            errors.append(error)
            found.append(_undecodable(window, error))
    if len(errors) == len(windows):
        raise errors[0]
    return FilePrediction(
        uri=uri,
        label_set=label_set,
        windows=tuple(found),
        warnings=tuple(_warnings(found, errors, wants_audio=stream.audio is not None)),
    )


@torch.inference_mode()
def _predict_window(
    request: ClipRequest, window: Window, method: Method, device: torch.device
) -> WindowPrediction:
    batch = collate([load_clip(request)], request.spec)
    logits_K = method.predict(batch.to(device)).logits_BK[0].double().cpu()
    if not torch.isfinite(logits_K).all():
        raise ValueError(f"{request.ref.clip_id}: the network's logits are not finite: {logits_K}")
    probabilities_K = logits_K.softmax(0)
    looks_for_faces = request.spec.align_faces
    best = int(logits_K.argmax())
    return WindowPrediction(
        start_s=window.start_s,
        end_s=window.end_s,
        label=request.label_set.classes[best],
        probability=float(probabilities_K[best]),
        probabilities=tuple(probabilities_K.tolist()),
        faces=float(batch.views[0].has_face_BT.float().mean()) if looks_for_faces else None,
        has_audio=bool(batch.has_audio_B[0]),
    )


def _request(
    uri: str, bounds: Window | None, label_set: LabelSet, stream: StreamSpec, plan: LoadPlan
) -> ClipRequest:
    return ClipRequest(
        ref=ClipRef(
            clip_id=uri if bounds is None else f"{uri} at {bounds.start_s:.2f} s",
            uri=uri,
            start_s=None if bounds is None else bounds.start_s,
            end_s=None if bounds is None else bounds.end_s,
        ),
        spec=stream.for_prediction("all"),
        label_set=label_set,
        subject=-1,
        seed=0,
        plan=plan,
    )


def _undecodable(window: Window, error: ClipError) -> WindowPrediction:
    return WindowPrediction(
        start_s=window.start_s,
        end_s=window.end_s,
        label=None,
        probability=None,
        probabilities=(),
        faces=None,
        has_audio=False,
        reason=error.reason,
    )


def _warnings(
    found: Sequence[WindowPrediction], errors: Sequence[ClipError], *, wants_audio: bool
) -> Iterator[str]:
    decoded = [window for window in found if not window.reason]
    faceless = [window for window in decoded if window.faces == 0]
    if faceless:
        where = ", ".join(f"{window.start_s:.1f} s" for window in faceless[:5])
        more = ", ..." if len(faceless) > 5 else ""
        yield (
            f"no face was found in {len(faceless)} of {len(decoded)} windows (from {where}{more}); "
            "their labels don't rest on a face"
        )
    if wants_audio and not any(window.has_audio for window in decoded):
        yield "the file has no sound that can be decoded; the labels rest on the picture alone"
    if errors:
        yield f"{len(errors)} of {len(found)} windows have no label; the first because: {errors[0]}"


def _shown(window: WindowPrediction) -> list[str]:
    label = window.label or f"({window.reason})"
    probability = "-" if window.probability is None else f"{window.probability:.2f}"
    faces = "-" if window.faces is None else f"{window.faces:.0%}"
    sound = "yes" if window.has_audio else "no"
    return [f"{window.start_s:.2f}", f"{window.end_s:.2f}", label, probability, faces, sound]
