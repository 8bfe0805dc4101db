"""A trained network that several readers of films hand their windows to.

Shapes: K classes, T sampled frames, U action units.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mien.monitor.picture import picture_statistics
from mien.stream.batches import Row, collate
from mien_models.contract import (
    ClipBatch,
    Method,
    Prediction,
    StreamSpec,
    effect_of,
    without_audio,
    without_video,
)

Floats = npt.NDArray[np.float64]


class BrokenNetworkError(ValueError):
    """A network whose answers are not numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a method says about one window of one person."""

    probabilities_K: Floats
    features_D: npt.NDArray[np.float32] | None
    """What the method's classifier sees; None where nobody asked."""
    picture_P: npt.NDArray[np.float32] | None
    """See `picture_statistics`; None where nobody asked."""
    units_TU: Floats | None
    """Probability that each action unit is present in the sampled frames; None of methods that
    don't tell."""
    intensities_TU: Floats | None
    """Intensities in FACS steps, 0 to 5; None of methods that don't tell."""
    audio_effect: float | None = None
    """By how much the label's log-probability falls when the sound is taken away; None where that
    was not asked for, or there is none."""
    video_effect: float | None = None
    """The same for the picture."""


class BatchedNetwork:
    """Runs a method in a thread of its own, on as many windows at once as are waiting.

    Decoding goes on meanwhile; whoever hands in more than two batches ahead has to wait.

    Args:
        method: Restored from its package; moved to the device.
        stream: The package's ``prediction_stream``.
        device: Where the network runs.
        batch_size: Windows at once, at most.
        with_effects: Also tell what sound and picture do to the answer, at three times the cost.
        temperatures: By input (``video+audio``, ``video``), what logits are divided by before the
            softmax; empty: nothing. Features and effects are of the logits as they are.
        with_features: Also tell the network's features and the pictures' statistics.
    """

    def __init__(
        self,
        method: Method,
        stream: StreamSpec,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        with_effects: bool = False,
        with_features: bool = False,
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.stream = stream.for_prediction("all")
        self.classes = method.classes
        self.action_units = method.action_units
        self.action_unit_calibration = method.action_unit_calibration
        self.batch_size = batch_size
        self.with_effects = with_effects and self.stream.audio is not None
        self.with_features = with_features
        self.temperatures = dict(temperatures or {})
        self._device = torch.device(device)
        self._method = method.to(self._device).eval()
        self._waiting: queue.Queue[tuple[Row, Future[Answer]] | None] = queue.Queue(2 * batch_size)
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def __enter__(self) -> BatchedNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def ask(self, row: Row) -> Future[Answer]:
        """Hands in a window. The answer may be an exception, of the network's making."""
        future: Future[Answer] = Future()
        self._waiting.put((row, future))
        return future

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            is_over = False
            while len(batch) < self.batch_size and not is_over:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                is_over = following is None
                if following is not None:
                    batch.append(following)
            self._answer([row for row, _ in batch], [future for _, future in batch])
            if is_over:
                return

    def _answer(self, rows: Sequence[Row], futures: Sequence[Future[Answer]]) -> None:
        try:
            answers = self._predict(rows)
        except Exception as error:  # it belongs to whoever asked
            for future in futures:
                future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            future.set_result(answer)

    @torch.inference_mode()
    def _predict(self, rows: Sequence[Row]) -> list[Answer]:
        batch = collate(rows, self.stream).to(self._device)
        prediction = self._method.predict(batch)
        logits_BK = prediction.logits_BK.double().cpu()
        if not torch.isfinite(logits_BK).all():
            raise BrokenNetworkError(
                f"{batch.clip_ids[0]}: the network's logits are not finite: {logits_BK[0].tolist()}"
                "; the training diverged or the package is damaged"
            )
        probabilities_BK = (logits_BK / self._temperature_of(batch)).softmax(dim=1).numpy()
        units, intensities = _units(prediction)
        effects = self._effects(batch, prediction.logits_BK) if self.with_effects else None
        features, pictures = None, None
        if self.with_features:
            features = prediction.features_BD.float().cpu().numpy()
            pictures = picture_statistics(batch.views[0]).cpu().numpy()
        return [
            Answer(
                features_D=None if features is None else features[index],
                picture_P=None if pictures is None else pictures[index],
                probabilities_K=probabilities_BK[index],
                units_TU=None if units is None else units[index],
                intensities_TU=None if intensities is None else intensities[index],
                audio_effect=None if effects is None else effects[index][0],
                video_effect=None if effects is None else effects[index][1],
            )
            for index in range(len(rows))
        ]

    def _temperature_of(self, batch: ClipBatch) -> Tensor:
        """What the logits of each window are divided by, [B, 1]: without sound, `video`'s."""
        loudest = "video" if self.stream.audio is None else "video+audio"
        by_B = [
            self.temperatures.get(loudest if has_audio else "video", 1.0)
            for has_audio in batch.has_audio_B.tolist()
        ]
        return torch.tensor(by_B, dtype=torch.float64)[:, None]

    def _effects(self, batch: ClipBatch, logits_BK: Tensor) -> list[tuple[float | None, float]]:
        """How the label's log-probability changes without sound, and without picture."""
        class_B = logits_BK.argmax(dim=1)
        audio, video = (
            effect_of(self._method, batch, without, logits_BK=logits_BK, class_B=class_B).tolist()
            for without in (without_audio, without_video)
        )
        heard = batch.has_audio_B.tolist()
        return [(a if has else None, v) for a, v, has in zip(audio, video, heard, strict=True)]


def _units(prediction: Prediction) -> tuple[Floats | None, Floats | None]:
    def plain(values: Tensor | None) -> Floats | None:
        return None if values is None else values.double().cpu().numpy()

    logits = prediction.action_unit_logits_BTU
    present = None if logits is None else logits.sigmoid()
    return plain(present), plain(prediction.action_unit_intensity_BTU)
