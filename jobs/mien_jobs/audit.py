"""What a run of RDFER knows of its clips' labels, as a queue for review."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.clips.manifest import Manifest
from mien.clips.person_data import usable_clips
from mien.clips.splits import Split
from mien.evaluate.predictions import read_predictions
from mien.infer.package import INFO_FILE, read_info
from mien.media.storage import absolute, exists, join, read_bytes
from mien.review.items import Fact, ReviewItem
from mien.stream.source import ClipSource
from mien.track.references import resolve
from mien.train.checkpoint import CheckpointStore
from mien_jobs.data import choose_label_set, load_plan, trained_on
from mien_jobs.methods import load_method
from mien_jobs.overrides import from_json
from mien_jobs.recipe import DataPlan
from mien_models.rdfer import Rdfer

HISTORY = ("epoch", "suggested", "agreement", "margin", "verdict", "trained_as")


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedRun:
    """A run of RDFER: its ledger, and the clips that it is about."""

    name: str
    classes: tuple[str, ...]
    data: DataPlan
    ledger: Mapping[str, Any]
    """Clip id to record, as ``AgreementLedger.to_json`` writes them."""
    package: Path | None
    """None while the run is being trained."""


def read_run(where: str, registry: str | None) -> AuditedRun:
    """The ledger of a run's folder, of a package, or of a registered model.

    Args:
        where: what was typed.
        registry: MLflow URI, for registered models.

    Raises:
        ValueError: neither of these, another method, or a run that kept no ledger.
    """
    if exists(join(where, "recipe.json")) and not exists(join(where, f"package/{INFO_FILE}")):
        return _from_checkpoint(where)
    folder = resolve(registry, where)
    info = read_info(folder)
    _check(info.method, info.json_state.get("clips"), where)
    return AuditedRun(
        name=str(info.recipe.get("name", Path(where).name)),
        classes=info.label_set.classes,
        data=trained_on(info),
        ledger=info.json_state["clips"],
        package=folder,
    )


def _from_checkpoint(folder: str) -> AuditedRun:
    recipe = json.loads(read_bytes(join(folder, "recipe.json")))
    state = CheckpointStore(absolute(folder)).newest_state()
    if state is None:
        raise ValueError(f"the run in {folder} has no checkpoint yet; wait for its first epoch")
    ledger = state["method"].get("clips")
    _check(recipe["method"], ledger, folder)
    data: DataPlan = from_json(DataPlan(), json.dumps(recipe["data"]))
    usable = usable_clips(Manifest.read(data.manifest), data.licences).manifest
    classes = choose_label_set(data.label_set, usable).classes
    return AuditedRun(name=recipe["name"], classes=classes, data=data, ledger=ledger, package=None)


def _check(method: str, ledger: Any, where: str) -> None:
    if method != "rdfer":
        raise ValueError(
            f"{where} is a model of {method}, which keeps no account of labels; audit one of "
            "`mien train rdfer --data MANIFEST` (pseudo-labels of dtm: `mien review`)"
        )
    if not ledger:
        raise ValueError(
            f"{where} holds no account of labels: it was trained with config.agreement=none, or "
            "its first agreement epoch is still to come (config.agreement.every_epochs)"
        )


def probabilities(run: AuditedRun) -> NDArray[np.float64]:
    """The ledger's mean predictions, [N, K], in its order of clips; rows sum to 1."""
    rows_NK = np.array([record["probabilities"] for record in run.ledger.values()], dtype=float)
    total_N1: NDArray[np.float64] = rows_NK.sum(axis=1, keepdims=True).clip(min=1e-12)
    return rows_NK / total_N1


def given_labels(run: AuditedRun) -> NDArray[np.int64]:
    """Class indices of the given labels, in the ledger's order of clips."""
    return np.array([record["given"] for record in run.ledger.values()], dtype=np.int64)


def doubts(run: AuditedRun) -> dict[str, float]:
    """How far each clip's best other class is ahead of the given one, in [-1, 1], by clip id."""
    rows_NK, given_N = probabilities(run), given_labels(run)
    own_N = rows_NK[np.arange(len(given_N)), given_N]
    others_NK = rows_NK.copy()
    others_NK[np.arange(len(given_N)), given_N] = -1.0
    return dict(zip(run.ledger, (others_NK.max(axis=1) - own_N).tolist(), strict=True))


def audit_items(
    run: AuditedRun,
    *,
    cleanlab_rank: Mapping[str, int] | None = None,
    out_of_fold: Mapping[str, Sequence[float]] | None = None,
) -> list[ReviewItem]:
    """Every clip of the ledger, those whose label is doubted most first.

    Args:
        run: the run.
        cleanlab_rank: place among the clips that cleanlab doubts, from 1, by clip id.
        out_of_fold: probabilities by models that were not trained on the clip, by clip id.
    """
    doubt = doubts(run)
    items = []
    for clip_id in sorted(run.ledger, key=lambda clip: (-doubt[clip], clip)):
        record = run.ledger[clip_id]
        facts: dict[str, Fact] = {
            "agreement": record["agreement"],
            "margin": round(doubt[clip_id], 6),
            "trained_as": _class_of(run, record["relabelled_to"], record["given"]),
        }
        if cleanlab_rank is not None:
            facts["cleanlab_rank"] = cleanlab_rank.get(clip_id)
        if out_of_fold is not None:
            facts |= _out_of_fold(run, out_of_fold.get(clip_id), record["given"])
        shares = record["probabilities"]
        items.append(
            ReviewItem(
                clip_id=clip_id,
                given=run.classes[record["given"]],
                suggested=run.classes[shares.index(max(shares))],
                reason=record["verdict"],
                facts=facts,
                probabilities=dict(zip(run.classes, shares, strict=True)),
                history=tuple(_entry(run, entry) for entry in record["history"]),
            )
        )
    return items


def _class_of(run: AuditedRun, index: int | None, otherwise: int) -> str:
    return run.classes[otherwise if index is None else index]


def _out_of_fold(run: AuditedRun, shares: Sequence[float] | None, given: int) -> dict[str, Fact]:
    if shares is None:
        return {"out_of_fold": None, "out_of_fold_margin": None}
    best = int(np.argmax(shares))
    margin = round(float(shares[best] - shares[given]), 6)
    return {"out_of_fold": run.classes[best], "out_of_fold_margin": margin}


def _entry(run: AuditedRun, values: Sequence[Any]) -> dict[str, Fact]:
    epoch, suggested, agreement, margin, verdict, label = values
    told = (epoch + 1, run.classes[suggested], agreement, margin, verdict, run.classes[label])
    return dict(zip(HISTORY, told, strict=True))


def read_out_of_fold(files: Sequence[str], classes: Sequence[str]) -> dict[str, list[float]]:
    """Probabilities by clip id from the test predictions of several runs (one a fold).

    Raises:
        ValueError: other classes than the run's.
    """
    found: dict[str, list[float]] = {}
    for file in files:
        predictions = read_predictions(file)
        if predictions.label_set.classes != tuple(classes):
            raise ValueError(
                f"{file} is about the classes {', '.join(predictions.label_set.classes)}, the run "
                f"about {', '.join(classes)}"
            )
        whole = predictions.of_modality(predictions.modalities[0])
        rows = whole.column("probabilities").tolist()
        found |= dict(zip(whole.table["clip_id"].to_pylist(), rows, strict=True))
    return found


@torch.no_grad()
def with_key_moments(
    items: Sequence[ReviewItem], run: AuditedRun, manifest: Manifest
) -> list[ReviewItem]:
    """The items with the moments at which the trained network looks; as they are without one."""
    if run.package is None:
        return list(items)
    info, method = load_method(run.package)
    if not isinstance(method, Rdfer) or not method.samples_again:
        return list(items)
    clip_ids = [item.clip_id for item in items]
    everyone = Split(name="review", train=(), val=(), test=tuple(manifest.column("clip_id")))
    source = ClipSource(manifest, everyone, info.label_set, seed=0, plan=load_plan(run.data))
    stream = replace(
        info.prediction_stream.for_prediction("all"), clip_ids=tuple(clip_ids), batch_size=8
    )
    num_frames = stream.views[0].num_frames
    moments: dict[str, tuple[float, ...]] = {}
    for batch in source.scan(stream):
        # Loaded frame t is the middle of the t-th of so many equal parts of the clip.
        keys_BJ = (method.key_frames(batch).mean(dim=2) + 0.5) / num_frames
        moments |= zip(batch.clip_ids, map(tuple, keys_BJ.tolist()), strict=True)
    return [replace(item, moments=moments.get(item.clip_id, ())) for item in items]
