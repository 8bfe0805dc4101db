"""Scores of a trained model: per-clip predictions first, every figure from those."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure

from mien.cluster.groups import NodeGroup
from mien.evaluate.calibration import usable_temperatures
from mien.evaluate.plots import plot_confusion, plot_recalls
from mien.evaluate.plots_detail import plot_reliability, plot_slices
from mien.evaluate.predictions import (
    Predictions,
    join_predictions,
    make_predictions,
    write_predictions,
)
from mien.evaluate.report import Report
from mien.evaluate.scorecard import Scorecard, make_scorecard
from mien.evaluate.scorecard_report import scorecard_report
from mien.evaluate.slices import slice_values
from mien.infer.package import PackageInfo, set_temperatures
from mien.media.storage import join, write_bytes_atomically
from mien.monitor.sample import REFERENCE_FILE, Sample, sample_of_predictions, write_sample
from mien.stream.quarantine import Quarantine
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource, in_process
from mien.track.model_card import make_model_card, write_model_card
from mien.track.tracker import Tracker
from mien.train.plan import TrainPlan
from mien.train.validate import Change, PredictedClips, as_given, gather_predictions
from mien.train.world import World, choose_device, choose_precision
from mien_jobs.data import RunData
from mien_jobs.post_filtering import post_filter_frames, post_filtered
from mien_models.contract import ClipBatch, Method, StreamSpec, without_audio, without_video

SplitName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    predictions: Predictions
    validation: Predictions | None
    """What the temperature was fitted on; None without a validation split."""
    scorecard: Scorecard
    model_card: str
    """Markdown."""
    quarantine: Quarantine
    monitor_sample: Sample
    """What later predictions are compared with."""

    @property
    def report(self) -> Report:
        """The scorecard for people."""
        return scorecard_report(self.scorecard)

    def figures(self) -> dict[str, Figure]:
        """Pictures by name."""
        card = self.scorecard
        found = {
            "confusion": plot_confusion(card),
            "recall": plot_recalls(card),
            "calibration": plot_reliability(card, self.predictions),
        }
        return found | ({"slices": plot_slices(card)} if card.slices else {})


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
    which: SplitName,
    plan: TrainPlan,
    use_ray: bool = True,
    decode_group: NodeGroup | None = None,
    slice_by: Sequence[str] | None = None,
    is_own: bool = True,
) -> Evaluation:
    """Predicts the labelled clips of a split under every condition and scores them.

    The clips of a test split are scored with a temperature that is fitted on the validation split.

    Args:
        method: restored from its package.
        info: of the package; its label set and stream are used.
        data: clips and split.
        which: the split.
        plan: device, precision and decoding tasks.
        use_ray: decode on Ray Data (Ray must be running), else in this process.
        decode_group: nodes that decode, on Ray; None: any that have no group.
        slice_by: manifest columns; None: the usual ones that are there.
        is_own: the clips are those of the model's training.

    Raises:
        ValueError: the split has no labelled clip, or none of them could be decoded; a column that
            is not there, or that divides nothing.
    """
    by_column = slice_values(data.manifest, slice_by)
    source = open_source(data, info, plan, use_ray=use_ray, decode_group=decode_group)
    found = _predict_labelled(method, info, source, which, plan, with_features=True)
    predictions = _joined(found, method, info, data, which)
    validation = None
    if which == "test" and source.num_clips(_labelled_stream(info, "val")):
        validation = predict_split(method, info, data, source, which="val", plan=plan)
    scorecard = make_scorecard(predictions, slice_by=by_column, validation=validation)
    return Evaluation(
        predictions=predictions,
        validation=validation,
        scorecard=scorecard,
        model_card=make_model_card(info, scorecard, data.manifest, data.split, is_own=is_own),
        quarantine=source.quarantine,
        monitor_sample=_monitor_sample(next(iter(found.values())), predictions, data),
    )


def open_source(
    data: RunData,
    info: PackageInfo,
    plan: TrainPlan,
    *,
    use_ray: bool,
    decode_group: NodeGroup | None = None,
) -> ClipSource:
    """Where a model's clips come from."""
    tasks = plan.decode_tasks * max(1, plan.workers)
    on_ray = RayExecutor(
        tasks=tasks,
        cpus_per_task=plan.cpus_per_decode_task,
        group=decode_group or NodeGroup(),
    )
    return ClipSource(
        data.manifest,
        data.split,
        info.label_set,
        seed=plan.seed,
        executor=on_ray if use_ray else in_process,
        plan=data.loading,
    )


def predict_split(
    method: Method,
    info: PackageInfo,
    data: RunData,
    source: ClipSource,
    *,
    which: SplitName,
    plan: TrainPlan,
    changes: Mapping[str, Change] | None = None,
) -> Predictions:
    """Predictions of the labelled clips of a split, under each change (None: of the modalities).

    Raises:
        ValueError: the split has no labelled clip, or none of them could be decoded.
    """
    return _joined(
        _predict_labelled(method, info, source, which, plan, changes), method, info, data, which
    )


def _predict_labelled(
    method: Method,
    info: PackageInfo,
    source: ClipSource,
    which: SplitName,
    plan: TrainPlan,
    changes: Mapping[str, Change] | None = None,
    *,
    with_features: bool = False,
) -> dict[str, PredictedClips]:
    stream = _labelled_stream(info, which)
    if source.num_clips(stream) == 0:
        raise ValueError(
            f"the {which} split has no labelled clip; choose another with --split, or another "
            "manifest with --data"
        )
    wanted = changes or conditions(stream)
    return _predict(method, source.scan(stream), plan, wanted, with_features=with_features)


def _joined(
    predicted: Mapping[str, PredictedClips],
    method: Method,
    info: PackageInfo,
    data: RunData,
    which: SplitName,
) -> Predictions:
    parts = [_as_predictions(name, found, info, data, which) for name, found in predicted.items()]
    window = post_filter_frames(method)
    if window > 1:
        parts += [post_filtered(part, data.manifest, window) for part in parts]
    return join_predictions(parts)


def has_labels(data: RunData, which: SplitName) -> bool:
    """Whether a split has a clip with a label."""
    manifest = data.manifest
    if which != "all":
        manifest = manifest.by_ids(getattr(data.split, which))
    return any(label is not None for label in manifest.column("label"))


def _labelled_stream(info: PackageInfo, which: SplitName) -> StreamSpec:
    return dataclasses.replace(info.prediction_stream.for_prediction(which), labelled=True)


def _monitor_sample(found: PredictedClips, predictions: Predictions, data: RunData) -> Sample:
    assert found.features_ND is not None
    assert found.picture_NP is not None
    clips = data.manifest.by_ids(found.clip_ids)
    starts = [start or 0.0 for start in clips.column("start_s")]
    places = zip(clips.column("uri"), starts, strict=True)
    return sample_of_predictions(
        predictions,
        features=dict(zip(found.clip_ids, found.features_ND, strict=True)),
        pictures=dict(zip(found.clip_ids, found.picture_NP, strict=True)),
        places=dict(zip(found.clip_ids, places, strict=True)),
    )


def _predict(
    method: Method,
    batches: Iterator[ClipBatch],
    plan: TrainPlan,
    changes: Mapping[str, Change],
    *,
    with_features: bool,
) -> dict[str, PredictedClips]:
    world = World(device=choose_device(plan.device))
    precision = choose_precision(plan.precision, world.device)

    def autocast() -> torch.autocast:
        enabled = precision != torch.float32
        return torch.autocast(world.device.type, precision, enabled=enabled)

    return gather_predictions(
        method.to(world.device), batches, world, autocast, changes, with_features=with_features
    )


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


def complete_package(package: Path, found: Evaluation) -> None:
    """Puts beside a package's weights what was found out about them: card, monitor's reference,
    temperatures."""
    write_model_card(package, found.model_card)
    write_sample(str(package / REFERENCE_FILE), found.monitor_sample)
    # That of sound alone is of no use: films always have a picture.
    fitted = found.scorecard.calibrations
    seen = {name: fitted[name] for name in ("video+audio", "video") if name in fitted}
    set_temperatures(package, usable_temperatures(seen))


def save_evaluation(found: Evaluation, folder: str) -> str:
    """Writes predictions, scorecard, page and quarantine; returns where the predictions are."""
    split = found.scorecard.split
    location = join(folder, f"predictions-{split}.parquet")
    write_predictions(location, found.predictions)
    write_sample(join(folder, REFERENCE_FILE), found.monitor_sample)
    if found.validation is not None:
        write_predictions(join(folder, "predictions-val.parquet"), found.validation)
    scorecard = json.dumps(found.scorecard.to_json(), indent=2, default=str).encode()
    write_bytes_atomically(join(folder, f"scorecard-{split}.json"), scorecard)
    page = found.report.to_html(list(found.figures().values())).encode()
    write_bytes_atomically(join(folder, f"scorecard-{split}.html"), page)
    if len(found.quarantine):
        found.quarantine.write(join(folder, f"quarantine-{split}.csv"))
    return location


def track_evaluation(tracker: Tracker, found: Evaluation, *, folder: str, step: int) -> None:
    """Puts figures, tables, pictures and predictions into the run."""
    scorecard = found.scorecard
    save_evaluation(found, folder)
    tracker.log_metrics(scorecard.to_metrics(), step)
    tracker.log_table(f"per_class_{scorecard.split}", scorecard.per_class_rows())
    tracker.log_json(f"scorecard_{scorecard.split}.json", scorecard.to_json())
    for name, figure in found.figures().items():
        tracker.log_figure(f"{name}_{scorecard.split}.png", figure)
    with tempfile.TemporaryDirectory() as temporary:
        save_evaluation(found, temporary)
        for path in sorted(Path(temporary).iterdir()):
            folder_of = "predictions" if path.suffix == ".parquet" else ""
            if path.suffix in (".parquet", ".html"):
                tracker.log_file(path, folder_of)
