"""Scores of a trained model: per-clip predictions first, every figure from those."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mien.evaluate.plots import plot_confusion, plot_recalls
from mien.evaluate.predictions import (
    Predictions,
    join_predictions,
    make_predictions,
    write_predictions,
)
from mien.evaluate.scorecard import Scorecard, make_scorecard
from mien.infer.package import PackageInfo
from mien.media.storage import join, write_bytes_atomically
from mien.stream.quarantine import Quarantine
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource, in_process
from mien.track.tracker import Tracker
from mien.train.plan import TrainPlan
from mien.train.validate import Change, PredictedClips, as_given, gather_predictions
from mien.train.world import World, choose_device, choose_precision
from mien_jobs.data import RunData
from mien_models.contract import ClipBatch, Method, StreamSpec, without_audio, without_video


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    predictions: Predictions
    scorecard: Scorecard
    quarantine: Quarantine


def conditions(stream: StreamSpec) -> dict[str, Change]:
    """What is switched off in turn; only what the method uses."""
    if stream.audio is None:
        return {"video": as_given}
    return {"video+audio": as_given, "video": without_audio, "audio": without_video}


def evaluate_method(
    method: Method,
    info: PackageInfo,
    data: RunData,
    *,
    which: Literal["train", "val", "test", "all"],
    plan: TrainPlan,
    use_ray: bool = True,
) -> Evaluation:
    """Predicts the labelled clips of a split under every condition and scores them.

    Args:
        method: restored from its package.
        info: of the package; its label set and stream are used.
        data: clips and split.
        which: the split.
        plan: device, precision and decoding tasks.
        use_ray: decode on Ray Data (Ray must be running), else in this process.

    Raises:
        ValueError: the split has no labelled clip, or none of them could be decoded.
    """
    tasks = plan.decode_tasks * max(1, plan.workers)
    on_ray = RayExecutor(tasks=tasks, cpus_per_task=plan.cpus_per_decode_task)
    source = ClipSource(
        data.manifest,
        data.split,
        info.label_set,
        seed=plan.seed,
        executor=on_ray if use_ray else in_process,
        plan=data.loading,
    )
    stream = dataclasses.replace(info.prediction_stream.for_prediction(which), labelled=True)
    if source.num_clips(stream) == 0:
        raise ValueError(
            f"the {which} split has no labelled clip; choose another with --split, or another "
            "manifest with --data"
        )
    predicted = _predict(method, source.scan(stream), plan, conditions(stream))
    parts = [_as_predictions(name, found, info, data, which) for name, found in predicted.items()]
    predictions = join_predictions(parts)
    return Evaluation(
        predictions=predictions,
        scorecard=make_scorecard(predictions),
        quarantine=source.quarantine,
    )


def _predict(
    method: Method, batches: Iterator[ClipBatch], plan: TrainPlan, changes: Mapping[str, Change]
) -> dict[str, PredictedClips]:
    world = World(device=choose_device(plan.device))
    precision = choose_precision(plan.precision, world.device)

    def autocast() -> torch.autocast:
        enabled = precision != torch.float32
        return torch.autocast(world.device.type, precision, enabled=enabled)

    return gather_predictions(method.to(world.device), batches, world, autocast, changes)


def _as_predictions(
    modality: str, found: PredictedClips, info: PackageInfo, data: RunData, split: str
) -> Predictions:
    return make_predictions(
        clip_ids=found.clip_ids,
        logits_NK=found.logits_NK,
        label_set=info.label_set,
        true_N=found.labels_N,
        modality=modality,
        split=split,
        subject_ids=data.manifest.by_ids(found.clip_ids).column("subject_id"),
        has_audio_N=found.has_audio_N,
        face_share_N=found.has_face_N,
        weights_sha256=info.weights_sha256,
    )


def save_evaluation(found: Evaluation, folder: str) -> str:
    """Writes predictions, scorecard and quarantine; returns where the predictions are."""
    split = found.scorecard.split
    location = join(folder, f"predictions-{split}.parquet")
    write_predictions(location, found.predictions)
    scorecard = json.dumps(found.scorecard.to_json(), indent=2, default=str).encode()
    write_bytes_atomically(join(folder, f"scorecard-{split}.json"), scorecard)
    if len(found.quarantine):
        found.quarantine.write(join(folder, f"quarantine-{split}.csv"))
    return location


def track_evaluation(tracker: Tracker, found: Evaluation, *, folder: str, step: int) -> None:
    """Puts figures, tables, pictures and predictions into the run."""
    scorecard = found.scorecard
    location = save_evaluation(found, folder)
    tracker.log_metrics(scorecard.to_metrics(), step)
    tracker.log_table(f"per_class_{scorecard.split}", scorecard.per_class_rows())
    tracker.log_json(f"scorecard_{scorecard.split}.json", scorecard.to_json())
    tracker.log_figure(f"confusion_{scorecard.split}.png", plot_confusion(scorecard))
    tracker.log_figure(f"recall_{scorecard.split}.png", plot_recalls(scorecard))
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / location.rsplit("/", 1)[-1]
        write_predictions(str(copy), found.predictions)
        tracker.log_file(copy, "predictions")
