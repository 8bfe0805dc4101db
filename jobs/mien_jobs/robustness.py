"""A model's scores under every corruption and severity; each clip is decoded once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mien.clips.splits import Split
from mien.evaluate.corruptions import (
    PICTURE_CHANGES,
    SEVERITIES,
    SOUND_CHANGES,
    SOUND_MISSING,
    Corruption,
)
from mien.evaluate.metrics import score_logits
from mien.evaluate.predictions import Predictions, write_predictions
from mien.evaluate.robustness import Robustness
from mien.media.storage import join, write_bytes_atomically
from mien.seeds import generator
from mien.train.plan import TrainPlan
from mien.train.validate import Change, as_given
from mien_jobs.data import RunData
from mien_jobs.model_clips import ModelClips
from mien_jobs.split_predictions import SplitName, open_source, predict_split
from mien_models.contract import StreamSpec, without_audio

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class RobustnessRun:
    """Predictions under every condition, and their scores."""

    predictions: Predictions
    robustness: Robustness


def changes_of(
    stream: StreamSpec, wanted: Sequence[str] | None = None
) -> dict[tuple[str, int], Change]:
    """Every corruption that a method can meet, by name and severity.

    Raises:
        ValueError: a name that is not known, or a change of sound that the method doesn't hear.
    """
    names = [*PICTURE_CHANGES]
    names += [*SOUND_CHANGES, SOUND_MISSING] if stream.audio is not None else []
    for name in wanted or ():
        if name not in names:
            deaf = " for a model that hears nothing" if stream.audio is None else ""
            raise ValueError(f"no corruption {name!r}{deaf}; there are: {', '.join(names)}")
    changes: dict[tuple[str, int], Change] = {}
    for name in wanted or names:
        if name == SOUND_MISSING:
            changes[name, SEVERITIES[-1]] = without_audio
            continue
        for severity in SEVERITIES:
            changes[name, severity] = Corruption(name, severity, stream.audio)
    return changes


def measure_robustness(
    model: ModelClips,
    plan: TrainPlan,
    *,
    wanted: Sequence[str] | None = None,
    max_clips: int | None = None,
) -> RobustnessRun:
    """Predicts the labelled clips clean and under every corruption.

    Args:
        model: with its clips.
        plan: device and decoding.
        wanted: names of corruptions; None: all that the method can meet.
        max_clips: so many clips at most, drawn by a fixed seed.

    Raises:
        ValueError: an unknown corruption, or no labelled clip.
    """
    stream = model.info.prediction_stream
    by_key = changes_of(stream, wanted)
    changes: dict[str, Change] = {CLEAN: as_given}
    changes |= {_condition(*key): change for key, change in by_key.items()}
    data = model.data if max_clips is None else fewer_clips(model.data, model.which, max_clips)
    source = open_source(data, model.info, plan, use_ray=plan.workers > 0)
    predictions = predict_split(
        model.method, model.info, data, source, which=model.which, plan=plan, changes=changes
    )
    uars = {key: _uar(predictions, _condition(*key)) for key in by_key}
    robustness = Robustness(
        clean=_uar(predictions, CLEAN),
        chance=1 / len(set(predictions.column("true_index").tolist())),
        num_clips=len(predictions.of_modality(CLEAN)),
        uars=uars,
    )
    return RobustnessRun(predictions=predictions, robustness=robustness)


def fewer_clips(data: RunData, which: SplitName, max_clips: int) -> RunData:
    """The data with a part cut down to clips drawn by a fixed seed, whatever their order.

    Raises:
        ValueError: fewer than two clips.
    """
    if max_clips < 2:
        raise ValueError(f"--max-clips must be at least 2, got {max_clips}")
    ids = data.manifest.column("clip_id") if which == "all" else getattr(data.split, which)
    labels = dict(zip(data.manifest.column("clip_id"), data.manifest.column("label"), strict=True))
    known = sorted(clip for clip in ids if labels[clip] is not None)
    drawn = generator("fewer clips").permutation(len(known))[:max_clips]
    kept = tuple(known[index] for index in sorted(drawn.tolist()))
    parts: Mapping[str, tuple[str, ...]] = {
        "train": (),
        "val": (),
        "test": (),
        ("test" if which == "all" else which): kept,
    }
    split = Split(name=f"{data.split.name}-{max_clips}", **parts)
    return replace(data, split=split, manifest=data.manifest.by_ids(kept))


def save_robustness(found: RobustnessRun, folder: str) -> None:
    """Writes predictions, figures, picture and page."""
    write_predictions(join(folder, "predictions-corrupted.parquet"), found.predictions)
    data = json.dumps(found.robustness.to_json(), indent=2).encode()
    write_bytes_atomically(join(folder, "robustness.json"), data)
    page = found.robustness.report().to_html([found.robustness.figure()])
    write_bytes_atomically(join(folder, "robustness.html"), page.encode())


def _condition(name: str, severity: int) -> str:
    return f"{name}, severity {severity}"


def _uar(predictions: Predictions, condition: str) -> float:
    part = predictions.of_modality(condition)
    true_N = np.asarray(part.column("true_index"))
    return score_logits(part.column("logits"), true_N, part.label_set.classes).uar
