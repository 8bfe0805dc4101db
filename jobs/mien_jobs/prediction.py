"""A package as something that predicts films on any node, and who does that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mien.infer.film_reading import FilmSettings
from mien.infer.many_films import Crew, ModelParts
from mien.infer.one_film import FolderJob
from mien.infer.package import PackageInfo
from mien.infer.rows import Columns
from mien.stream.plan import LoadPlan
from mien.stream.prepare import PREPARE_VERSION
from mien_jobs import overrides
from mien_jobs.methods import MethodBuilder, find_method, load_method


def model_parts(folder: str | Path) -> ModelParts:
    """A trained model from its package, checked by loading it here.

    Raises:
        PackageError: not a package, or a damaged one.
        ValueError: its method or configuration is not known to this installation.
    """
    info, method = load_method(folder)
    config: Any = overrides.from_json(
        find_method(info.method).config, json.dumps(info.config), complete=False
    )
    builder = MethodBuilder(name=info.method, config=config, classes=info.label_set.classes)
    return ModelParts(
        build_method=builder,
        info=info,
        tensors=method.state_dict(),
        action_units=method.action_units,
        action_unit_calibration=method.action_unit_calibration,
    )


def temperatures_of(info: PackageInfo) -> Mapping[str, float]:
    """What a package's logits are divided by for calibrated probabilities.

    Raises:
        ValueError: the package has none.
    """
    if not info.temperatures:
        raise ValueError(
            "--calibrated: this package has no temperature. A training fits one where it has "
            "labelled clips to validate on and test on, and `mien promote` where an older package "
            "lacks it"
        )
    return info.temperatures


def folder_job(
    out: str,
    model: ModelParts,
    settings: FilmSettings,
    plan: LoadPlan,
    table_format: str,
    *,
    with_effects: bool = False,
    with_features: bool = False,
    temperatures: Mapping[str, float] | None = None,
) -> FolderJob:
    """The work of predicting films into a folder."""
    # Whatever changes rows; the number of cores does not.
    asked = {
        "weights": model.info.weights_sha256,
        "prepare": PREPARE_VERSION,
        "windowing": dataclasses.asdict(settings.windowing),
        "max_people": settings.max_people,
        "format": table_format,
        "effects": with_effects,
        **({"features": True} if with_features else {}),
        **({"temperatures": dict(temperatures)} if temperatures else {}),
        **({"post_filter": filtered} if (filtered := settings.post_filter_frames) > 1 else {}),
    }
    return FolderJob(
        out=out,
        columns=Columns(
            classes=model.info.label_set.classes,
            action_units=model.action_units,
            action_unit_calibration=model.action_unit_calibration,
            post_filter_frames=settings.post_filter_frames,
            with_effects=with_effects,
            with_features=with_features,
            temperatures=temperatures or {},
            weights_sha256=model.info.weights_sha256,
        ),
        asked=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16],
        format=table_format,
        settings=settings,
        plan=plan,
    )


def crew_of(workers: int | None, device: str, batch_size: int) -> Crew:
    """Who predicts, on the Ray that is running; 0 workers: this process.

    Raises:
        ValueError: more workers than the cluster has CPUs or GPUs; Ray would wait for ever.
    """
    if workers == 0:
        return Crew(workers=0, device=device, batch_size=batch_size)
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    is_gpu = device.startswith("cuda")
    there = gpus if is_gpu else cpus
    if there < max(1, workers or 1):
        raise ValueError(
            f"--workers {workers or 1}: the cluster has {cpus} CPUs and {gpus} GPUs; use at most "
            f"{there} workers"
        )
    wanted = workers or there
    films_at_once = max(1, cpus // wanted) if is_gpu else 1
    return Crew(
        workers=wanted,
        films_at_once=min(films_at_once, os.cpu_count() or 1),
        device="cuda" if is_gpu else "cpu",
        batch_size=batch_size,
    )
