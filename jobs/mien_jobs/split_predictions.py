"""A model's predictions of the clips of a split; every clip is decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from mien.cluster.groups import NodeGroup
from mien.evaluate.predictions import Predictions, join_predictions, make_predictions
from mien.infer.package import PackageInfo
from mien.stream.ray_executor import RayExecutor
from mien.stream.source import ClipSource, in_process
from mien.train.plan import TrainPlan
from mien.train.validate import Change, PredictedClips, as_given, gather_predictions
from mien.train.world import World, choose_device, choose_precision
from mien_jobs.data import RunData
from mien_jobs.post_filtering import post_filter_frames, post_filtered
from mien_models.contract import ClipBatch, Method, StreamSpec, without_audio, without_video

SplitName = Literal["train", "val", "test", "all"]


class NothingToScoreError(ValueError):
    """A split without a clip that tells whether a model is right."""


@dataclass(frozen=True, kw_only=True)
class SplitPredictions:
    """What a method tells of a split's clips: classes, features, action units if it does."""

    labelled: Mapping[str, PredictedClips]
    """Of clips with a class, by what was switched off; empty where no clip has one."""
    others: PredictedClips | None
    """Of clips without a class, as given; None where there are none, or nobody asked."""

    @property
    def as_given(self) -> tuple[PredictedClips, ...]:
        """All clips with nothing switched off, in parts."""
        first = next(iter(self.labelled.values()), None)
        return tuple(part for part in (first, self.others) if part is not None and part.clip_ids)


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


def predict_everything(
    method: Method,
    info: PackageInfo,
    source: ClipSource,
    *,
    which: SplitName,
    plan: TrainPlan,
    uncoded: bool,
    changes: Mapping[str, Change] | None = None,
) -> SplitPredictions:
    """Predicts the clips with a class under every condition, and the others as they are.

    Args:
        method: restored from its package.
        info: of the package.
        source: the clips.
        which: the split.
        plan: device and precision.
        uncoded: also the clips with neither a class nor, for a method that tells action units, a
            coded unit; only their features are of use.
        changes: the conditions; None: the modalities.
    """
    stream = replace(_labelled_stream(info, which), action_units=method.action_units)
    labelled, others = {}, None
    if source.num_clips(stream) > 0:
        labelled = _predict(method, source.scan(stream), plan, changes or conditions(stream))
    rest = replace(stream, labelled=False, coded=not uncoded)
    if (uncoded or method.action_units) and source.num_clips(rest) > 0:
        others = _predict(method, source.scan(rest), plan, {"": as_given})[""]
    return SplitPredictions(labelled=labelled, others=others)


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
        NothingToScoreError: the split has no labelled clip.
        ValueError: none of them could be decoded.
    """
    stream = _labelled_stream(info, which)
    if not has_labelled(info, source, which):
        raise NothingToScoreError(
            f"the {which} split has no labelled clip; choose another with --split, or another "
            "manifest with --data"
        )
    wanted = changes or conditions(stream)
    found = _predict(method, source.scan(stream), plan, wanted, with_features=False)
    return as_predictions(found, method, info, data, which)


def conditions(stream: StreamSpec) -> dict[str, Change]:
    """What is switched off in turn; only what the method uses."""
    if stream.audio is None:
        return {"video": as_given}
    return {"video+audio": as_given, "video": without_audio, "audio": without_video}


def as_predictions(
    predicted: Mapping[str, PredictedClips],
    method: Method,
    info: PackageInfo,
    data: RunData,
    which: SplitName,
) -> Predictions:
    """All conditions as one table, and those after the method's post-filter if it has one."""
    parts = [_of_condition(name, found, info, data, which) for name, found in predicted.items()]
    window = post_filter_frames(method)
    if window > 1:
        parts += [post_filtered(part, data.manifest, window) for part in parts]
    return join_predictions(parts)


def has_labelled(info: PackageInfo, source: ClipSource, which: SplitName) -> bool:
    """Whether a split has a clip with a class."""
    return source.num_clips(_labelled_stream(info, which)) > 0


def _labelled_stream(info: PackageInfo, which: SplitName) -> StreamSpec:
    return replace(info.prediction_stream.for_prediction(which), labelled=True)


def _predict(
    method: Method,
    batches: Iterable[ClipBatch],
    plan: TrainPlan,
    changes: Mapping[str, Change],
    *,
    with_features: bool = True,
) -> dict[str, PredictedClips]:
    world = World(device=choose_device(plan.device))
    precision = choose_precision(plan.precision, world.device)

    def autocast() -> torch.autocast:
        enabled = precision != torch.float32
        return torch.autocast(world.device.type, precision, enabled=enabled)

    return gather_predictions(
        method.to(world.device), batches, world, autocast, changes, with_features=with_features
    )


def _of_condition(
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
