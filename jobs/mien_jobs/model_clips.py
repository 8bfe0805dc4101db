"""A trained model with the clips that it is to be looked at on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mien.clips.manifest import Manifest
from mien.clips.person_data import usable_clips
from mien.clips.splits import Split
from mien.infer.package import PackageInfo
from mien.media.storage import absolute
from mien.track.references import resolve
from mien_jobs.caching import read_cached
from mien_jobs.data import RunData, load_plan, split_clips, trained_on
from mien_jobs.methods import load_method
from mien_jobs.split_predictions import SplitName
from mien_jobs.tracking import tracking_uri
from mien_models.contract import Method


@dataclass(frozen=True, kw_only=True)
class ModelClips:
    """A model and its clips."""

    package: Path
    info: PackageInfo
    method: Method
    data: RunData
    is_own: bool
    """The clips are those of the model's training."""
    which: SplitName


def open_model_clips(args: argparse.Namespace, *, features_only: bool = False) -> ModelClips:
    """What the options of ``verbs.model_options`` name.

    Args:
        args: the options.
        features_only: a model will do that was only pretrained.

    Raises:
        ValueError: no such model; clips that can't be had (see `open_clips`).
    """
    package = resolve(tracking_uri(args.registry, args.storage), args.model)
    return open_package_clips(package, args.data, args.split, features_only=features_only)


def open_package_clips(
    package: Path, manifest_uri: str | None, split: SplitName | None, *, features_only: bool = False
) -> ModelClips:
    """A package with its training's test clips, or all clips of another manifest.

    Raises:
        ValueError: see `open_clips`; PackageError: the package is broken.
    """
    info, method = load_method(package, features_only=features_only)
    data, is_own = open_clips(info, manifest_uri)
    which: SplitName = split or ("test" if is_own else "all")
    parts: set[SplitName] = {which, "val"} if which == "test" else {which}
    streams = [info.prediction_stream.for_prediction(part) for part in parts]
    data = read_cached(data, trained_on(info), streams)
    return ModelClips(
        package=package, info=info, method=method, data=data, is_own=is_own, which=which
    )


def open_clips(info: PackageInfo, manifest_uri: str | None) -> tuple[RunData, bool]:
    """The clips to score, and whether they are those of the model's training.

    On the training's manifest the split is drawn again as it was then, and must be the same one.

    Raises:
        ValueError: the training's clips or split can't be had again.
    """
    plan = trained_on(info)
    whole = Manifest.read(absolute(manifest_uri or plan.manifest))
    manifest_hash = whole.consented().content_hash()
    is_own = manifest_hash == info.manifest_hash
    usable = usable_clips(whole, plan.licences if is_own else ())
    manifest = usable.manifest
    if not is_own:
        if manifest_uri is None:
            raise ValueError(
                f"{plan.manifest} has changed since the model was trained on it, so nobody can say "
                "who was in its test split; name the manifest to score with --data"
            )
        split = Split(name="all", train=(), val=(), test=tuple(manifest.column("clip_id")))
    else:
        split = split_clips(plan, manifest)
        if split.content_hash != info.split_hash:
            raise ValueError(
                "the split drawn now differs from the one that the model was trained with; use the "
                f"version of Mien that trained it ({info.mien_version})"
            )
    data = RunData(
        manifest=manifest,
        label_set=info.label_set,
        split=split,
        loading=load_plan(plan),
        manifest_hash=manifest_hash,
        left_out=usable.summary(),
    )
    return data, is_own
