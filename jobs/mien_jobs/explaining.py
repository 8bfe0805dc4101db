"""What a model's predictions rest on, clip by clip, and whether its heat maps can be believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.evaluate.heat_sheet import HeatRow
from mien.media.faces.regions import face_regions
from mien.seeds import derive_seed
from mien.train.plan import TrainPlan
from mien.train.world import choose_device
from mien_jobs.model_clips import ModelClips
from mien_jobs.split_predictions import open_source
from mien_models.complex_fer.compounds import components_of
from mien_models.contract import (
    ClipBatch,
    InnerWeights,
    Method,
    StreamSpec,
    effect_of,
    without_audio,
    without_video,
)
from mien_models.explain import (
    Heat,
    deletion,
    heat_maps,
    on_picture,
    overlap,
    randomisation_similarity,
    road,
    share_inside,
)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Of several clips."""

    rows: tuple[Mapping[str, Any], ...]
    """One mapping a clip, the same names in each."""
    pictures: tuple[HeatRow, ...]
    """Heat over the frames, a clip each."""
    attention: tuple[HeatRow, ...]
    """The network's own attention over the same frames; empty where it tells of none."""
    checks: Mapping[str, float]
    """Figures over all clips."""


def chosen_stream(model: ModelClips, num_clips: int, seed: int) -> StreamSpec:
    """So many clips, of every class in turn; drawn by hash, the same every time."""
    spec = model.info.prediction_stream.for_prediction(model.which)
    manifest = model.data.manifest
    split, which = model.data.split, model.which
    inside = set(manifest.column("clip_id") if which == "all" else getattr(split, which))
    drawn = sorted(
        (derive_seed(seed, "explain", clip_id), label or "", clip_id)
        for clip_id, label in zip(manifest.column("clip_id"), manifest.column("label"), strict=True)
        if clip_id in inside
    )
    places: dict[str, int] = {}
    ranked = []
    for _, label, clip_id in drawn:
        places[label] = places.get(label, -1) + 1
        ranked.append((places[label], label, clip_id))
    ids = tuple(clip_id for _, _, clip_id in sorted(ranked)[:num_clips])
    return dataclasses.replace(spec, labelled=None, clip_ids=ids)


def explain_clips(
    model: ModelClips, plan: TrainPlan, *, num_clips: int, class_name: str | None = None
) -> Explanation:
    """Explains the most probable class of each clip, or one class in all of them.

    Raises:
        ValueError: no such class; a method without a layer to look at; no clip could be decoded.
    """
    label_set, method = model.info.label_set, model.method
    asked = None if class_name is None else label_set.index(class_name)
    device = choose_device(plan.device)
    method = method.to(device).eval()
    source = open_source(model.data, model.info, plan, use_ray=False)
    spec = chosen_stream(model, num_clips, plan.seed)
    parts = [_explain(method, batch.to(device), asked, model) for batch in source.scan(spec)]
    if not parts:
        raise ValueError(f"no clip to explain: {source.quarantine.summary()}")
    return Explanation(
        rows=tuple(row for part in parts for row in part.rows),
        pictures=tuple(row for part in parts for row in part.pictures),
        attention=tuple(row for part in parts for row in part.attention),
        checks=_mean_of([part.checks for part in parts], [len(part.rows) for part in parts]),
    )


def _explain(method: Method, batch: ClipBatch, asked: int | None, model: ModelClips) -> Explanation:
    class_B = None if asked is None else torch.full_like(batch.label_B, asked)
    heat = heat_maps(method, batch, class_B)
    place = method.picture_layer()
    assert place is not None
    large_BSHW = on_picture(heat, place, batch.video_BTCHW.shape[-1])
    weights = method.inner_weights(batch)
    facts = _facts(method, batch, heat, model) | _own_weights(batch, weights)
    if model.info.prediction_stream.align_faces:
        facts |= _regions(large_BSHW)
    rows = tuple(
        {name: _plain(values[index]) for name, values in facts.items()}
        for index in range(len(batch))
    )
    checks = {
        "deletion_gain": deletion(method, batch, heat).gain,
        "road_gain": road(method, batch, heat).gain,
        "similarity_to_random_weights": randomisation_similarity(method, batch, heat),
        **_basics_in_compounds(method, batch, heat, model.info.label_set.classes),
    }
    attention: tuple[HeatRow, ...] = ()
    if weights.attention_BTRC is not None:
        own = _attention_as_heat(heat, weights.attention_BTRC)
        own_BSHW = on_picture(own, place, batch.video_BTCHW.shape[-1])
        attention = tuple(_pictures(batch, own, own_BSHW, rows, weights))
    pictures = tuple(_pictures(batch, heat, large_BSHW, rows, weights))
    return Explanation(rows=rows, pictures=pictures, attention=attention, checks=checks)


def _attention_as_heat(heat: Heat, attention_BTRC: Tensor) -> Heat:
    """Attention on the frames of a heat map, 0 to 1 within a clip."""
    clip_B1 = torch.arange(len(attention_BTRC), device=attention_BTRC.device)[:, None]
    seen_BSRC = attention_BTRC[clip_B1, heat.frames_BS]
    peak_B111 = seen_BSRC.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return dataclasses.replace(heat, heat_BSRC=seen_BSRC / peak_B111)


def _own_weights(batch: ClipBatch, weights: InnerWeights) -> dict[str, Sequence[Any]]:
    """Columns of what the network tells of its own weighing."""
    facts: dict[str, Sequence[Any]] = {}
    positions_BJ = weights.key_frames_BJ
    if positions_BJ is None and weights.frame_share_BT is not None:
        positions_BJ = weights.frame_share_BT.argmax(dim=1, keepdim=True)
    if positions_BJ is not None:
        times_BT = batch.views[0].frame_times_BT
        nearest_BJ = positions_BJ.round().long().to(times_BT.device)
        facts["key_times_s"] = [
            " ".join(f"{time:.2f}" for time in times_J)
            for times_J in times_BT.gather(1, nearest_BJ).tolist()
        ]
    return facts | {name: value_B.tolist() for name, value_B in weights.figures.items()}


def _facts(
    method: Method, batch: ClipBatch, heat: Heat, model: ModelClips
) -> dict[str, Sequence[Any]]:
    classes = model.info.label_set.classes
    probability_BK = heat.logits_BK.float().softmax(dim=1)
    facts: dict[str, Sequence[Any]] = {
        "clip_id": batch.clip_ids,
        "label": [classes[label] if label >= 0 else "" for label in batch.label_B.tolist()],
        "predicted": [classes[index] for index in probability_BK.argmax(dim=1).tolist()],
        "explained": [classes[index] for index in heat.class_B.tolist()],
        "probability": probability_BK.gather(1, heat.class_B[:, None])[:, 0].tolist(),
    }
    if model.info.prediction_stream.audio is not None:
        for name, without in (("sound", without_audio), ("picture", without_video)):
            facts[f"effect_of_{name}"] = effect_of(
                method, batch, without, logits_BK=heat.logits_BK, class_B=heat.class_B
            ).tolist()
    return facts


def _regions(large_BSHW: Tensor) -> dict[str, Sequence[Any]]:
    facts: dict[str, Sequence[Any]] = {}
    for name, mask_HW in face_regions(large_BSHW.shape[-1]).items():
        inside = torch.from_numpy(mask_HW).to(large_BSHW.device).expand_as(large_BSHW)
        heat_B, area_B = share_inside(large_BSHW, inside)
        short = name.replace(" ", "_")
        facts[f"heat_in_{short}"] = heat_B.tolist()
        facts[f"area_of_{short}"] = area_B.tolist()
    return facts


def _basics_in_compounds(
    method: Method, batch: ClipBatch, heat: Heat, classes: Sequence[str]
) -> dict[str, float]:
    """How alike the maps of compound classes are to those of their basics, and of other basics."""
    inside: list[float] = []
    outside: list[float] = []
    maps: dict[int, Tensor] = {}
    for index, class_index in enumerate(heat.class_B.tolist()):
        parts = components_of(classes[class_index])
        if len(parts) < 2:
            continue
        for other, name in enumerate(classes):
            if len(components_of(name)) > 1:
                continue
            if other not in maps:
                maps[other] = heat_maps(
                    method, batch, torch.full_like(heat.class_B, other)
                ).heat_BSRC
            pair = heat.heat_BSRC[index : index + 1], maps[other][index : index + 1]
            (inside if name in parts else outside).append(float(overlap(*pair)))
    if not inside or not outside:
        return {}
    return {
        "overlap_with_components": float(np.mean(inside)),
        "overlap_with_other_basics": float(np.mean(outside)),
    }


def _pictures(
    batch: ClipBatch,
    heat: Heat,
    large_BSHW: Tensor,
    rows: Sequence[Mapping[str, Any]],
    weights: InnerWeights,
) -> Iterator[HeatRow]:
    view, share_BT = batch.views[0], weights.frame_share_BT
    for index, row in enumerate(rows):
        seen_S = heat.frames_BS[index].cpu()
        effects = [
            f"{name.replace('_', ' ')} {value:+.2f}"
            for name, value in row.items()
            if name.startswith("effect_of")
        ]
        yield HeatRow(
            frames_SHWC=view.video_BTCHW[index].cpu()[seen_S].permute(0, 2, 3, 1).numpy(),
            heat_SHW=large_BSHW[index].cpu().numpy(),
            times_S=view.frame_times_BT[index].cpu()[seen_S].numpy(),
            title=f"{row['clip_id']}: {row['explained']} {row['probability']:.2f}"
            + (f" (label {row['label']})" if row["label"] else ""),
            note=", ".join([*effects, *_key_moments(row)]),
            share_S=None if share_BT is None else share_BT[index].cpu()[seen_S].numpy(),
        )


def _key_moments(row: Mapping[str, Any]) -> list[str]:
    return [f"key moments {row['key_times_s']} s"] if "key_times_s" in row else []


def _plain(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _mean_of(parts: Sequence[Mapping[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Means over batches, weighed by their clips; of each figure over the batches that have it."""
    found: dict[str, float] = {}
    for name in {name: None for part in parts for name in part}:
        have = [
            (part[name], size) for part, size in zip(parts, weights, strict=True) if name in part
        ]
        found[name] = float(np.average([v for v, _ in have], weights=[s for _, s in have]))
    return found
