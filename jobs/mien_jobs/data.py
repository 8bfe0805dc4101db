"""From a data plan to clips, classes and a split."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mien.clips.labels import KNOWN_LABEL_SETS, NOTHING_LABELLED, UNITS_ONLY, LabelSet
from mien.clips.manifest import Manifest
from mien.clips.person_data import usable_clips
from mien.clips.splits import (
    Split,
    split_by_subject,
    split_from_columns,
    with_validation,
)
from mien.infer.package import PackageInfo
from mien.stream.plan import LoadPlan
from mien_jobs.overrides import from_json
from mien_jobs.recipe import DataPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """The clips of a run."""

    manifest: Manifest
    """The clips that may be used."""
    label_set: LabelSet
    split: Split
    loading: LoadPlan
    manifest_hash: str
    """Of all clips with consent, whatever licences were allowed."""
    left_out: str = ""
    """One line about clips that may not be used."""


def open_data(plan: DataPlan) -> RunData:
    """Reads the manifest, leaves out clips that may not be used, and splits by person.

    Raises:
        ValueError: no manifest named, nothing labelled, an unknown label set, a person in two
            splits, clips without the face box that is asked for; the manifest's own errors.
    """
    if not plan.manifest:
        raise ValueError(
            "no data: name a manifest with --data PATH (make one with `mien ingest FOLDER` for "
            "your own videos, or `mien synth FOLDER` for synthetic faces)"
        )
    whole = Manifest.read(plan.manifest)
    usable = usable_clips(whole, plan.licences)
    manifest = usable.manifest
    _check_face_boxes(plan, manifest)
    label_set = choose_label_set(plan.label_set, manifest)
    split = split_clips(plan, manifest)
    split.assert_subject_exclusive(manifest)
    return RunData(
        manifest=manifest,
        label_set=label_set,
        split=split,
        loading=load_plan(plan),
        manifest_hash=whole.consented().content_hash(),
        left_out=usable.summary(),
    )


def _check_face_boxes(plan: DataPlan, manifest: Manifest) -> None:
    missing = manifest.table["face_box"].null_count
    if plan.face_rule == "given_box" and missing:
        raise ValueError(
            f"data.face_rule=given_box, but {missing} of {len(manifest)} clips have no face_box: "
            "fill the manifest's column face_box (x0, y0, x1, y1), or use data.face_rule=largest"
        )


def trained_on(info: PackageInfo) -> DataPlan:
    """The data plan of a model's training."""
    plan: DataPlan = from_json(DataPlan(), json.dumps(info.recipe["data"]))
    return plan


def prediction_plan(info: PackageInfo) -> LoadPlan:
    """How a model's training read its clips, for files of which nobody said where the face is."""
    rule = info.recipe.get("data", {}).get("face_rule")
    return LoadPlan(face_rule="longest_track" if rule == "longest_track" else "largest")


def load_plan(plan: DataPlan) -> LoadPlan:
    """How the clips of a data plan are read."""
    return LoadPlan(face_rule=plan.face_rule)


def choose_label_set(name: str, manifest: Manifest) -> LabelSet:
    """The label set of that name, or (``auto``) the one that the manifest's labels fit;
    `UNITS_ONLY` where it has codes of action units and no label, `NOTHING_LABELLED` where it has
    neither.

    Raises:
        ValueError: an unknown name.
    """
    labels = {label for label in manifest.column("label") if label is not None}
    if not labels and name == "auto":
        codes = manifest.table["action_units"]
        return UNITS_ONLY if codes.null_count < len(codes) else NOTHING_LABELLED
    if name != "auto":
        if name not in KNOWN_LABEL_SETS:
            raise ValueError(
                f"data.label_set={name!r} is not known; use auto or one of "
                f"{', '.join(sorted(KNOWN_LABEL_SETS))}"
            )
        return KNOWN_LABEL_SETS[name]
    for label_set in KNOWN_LABEL_SETS.values():
        if labels == set(label_set.classes):
            return label_set
    return LabelSet.from_labels("manifest", labels)


def split_clips(plan: DataPlan, manifest: Manifest) -> Split:
    """The split that a plan asks for.

    Raises:
        ValueError: official folds of which none is named, or a fold beside a split by person.
    """
    has_columns = any(value is not None for value in manifest.column("split"))
    folds = sorted({fold for fold in manifest.column("fold") if fold is not None})
    if plan.fold is not None and plan.split_by == "subject":
        raise ValueError("data.fold names an official fold; data.split_by=subject draws its own")
    if plan.split_by == "auto" and plan.fold is None and folds and not has_columns:
        raise ValueError(
            f"the manifest has the official folds {', '.join(map(str, folds))}; name the one to "
            "test on, as in data.fold=1, or draw a split with data.split_by=subject"
        )
    if (
        plan.fold is not None
        or plan.split_by == "columns"
        or (plan.split_by == "auto" and has_columns)
    ):
        official = split_from_columns(manifest, fold=plan.fold)
        if plan.val_fraction == 0:
            return official
        return with_validation(official, manifest, fraction=plan.val_fraction, seed=plan.split_seed)
    train_fraction = 1 - plan.val_fraction - plan.test_fraction
    fractions = {
        "train": train_fraction,
        "val": plan.val_fraction,
        "test": plan.test_fraction,
    }
    return split_by_subject(manifest, fractions=fractions, seed=plan.split_seed)
