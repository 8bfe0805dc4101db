"""What unlabelled faces bring on built-in clips: threshold rules side by side, few labels.

Of the people of training so many clips a class keep their label, the others are unlabelled and
come from another camera (blurred, shifted, with a cast of colour). Rare classes have a quarter of
the labels and of the unlabelled clips. All variants see the same labelled clips for the same number
of steps; ``supervised`` sees nothing else. Scores are macro-F1 (all classes, rare classes) on
people never seen. Seeds draw people, labels, order and weights. Runs that are there already are not
run again (``--folder``); ``--quick`` shows the way with a few clips, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from memory_clips import MemoryClips, StoredClips, at_seen_size, fit_here, split_people, store_clips
from numpy.typing import NDArray
from report import finish
from torch import Tensor
from torch.nn import functional as F

from mien.clips.labels import DFEW7
from mien.evaluate.metrics import score_classes
from mien.synth import SynthSpec, write_dataset
from mien.train.plan import TrainPlan
from mien_models.contract import UNLABELLED
from mien_models.dtm import Dtm, DtmConfig
from mien_models.dtm.config import Rule

CLASSES = DFEW7.classes
RARE = ("disgust", "fear")
RARE_SHARE = 0.25
LABELS = (4, 16, 64)
RULES: tuple[Rule, ...] = ("dtm", "fixmatch", "flexmatch", "freematch", "softmatch", "ada_cm")
PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


def _rule(rule: Rule) -> Callable[[DtmConfig], DtmConfig]:
    return lambda config: replace(config, threshold=replace(config.threshold, rule=rule))


def _floors(config: DtmConfig) -> DtmConfig:
    """Lower floors for rare classes."""
    low = tuple(0.6 if name in RARE else config.threshold.floor for name in CLASSES)
    return replace(config, threshold=replace(config.threshold, class_floors=low))


VARIANTS: Mapping[str, Callable[[DtmConfig], DtmConfig]] = {
    "supervised": lambda config: replace(config, unlabelled_ratio=0),
    **{rule: _rule(rule) for rule in RULES},
    "dtm_contrast": lambda config: replace(config, losses=replace(config.losses, contrastive=0.1)),
    "dtm_plain_sampling": lambda config: replace(config, class_uniform=False),
    "dtm_rare_floors": _floors,
    "dtm_class_cap": lambda config: replace(config, class_cap=0.25),
}


def config_of(variant: str, epochs: int, steps: int) -> DtmConfig:
    """``tiny``, changed by a variant."""
    config = at_seen_size(DtmConfig.tiny())
    assert isinstance(config, DtmConfig)
    # Small batches: a handful of labels must fill one, and a core has many runs to make.
    config = replace(config, epochs=epochs, steps_per_epoch=steps, batch_size=8)
    # Running means over a training of some hundred steps, not of some ten thousand.
    config = replace(config, threshold=replace(config.threshold, momentum=0.95))
    return VARIANTS[variant](config)


def other_camera(video_NTCHW: Tensor) -> Tensor:
    """Blurred, three pixels further to the right, reddish; uint8."""
    flat = video_NTCHW.flatten(0, 1).float()
    blurred = F.avg_pool2d(F.pad(flat, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    cast = torch.tensor([1.15, 0.95, 0.8])[:, None, None]
    moved = (blurred * cast).roll(3, dims=-1)
    return moved.clamp(0, 255).to(torch.uint8).unflatten(0, video_NTCHW.shape[:2])


def plant(stored: StoredClips, labels: int, seed: int) -> MemoryClips:
    """Few labels, fewer of rare classes; the unlabelled clips by another camera."""
    truth_N = np.array([CLASSES.index(name) for name in stored.column("true_label")])
    parts = split_people(stored, PARTS, seed)
    rng = np.random.default_rng([seed, labels])
    label_N, is_train_N = truth_N.copy(), np.zeros(len(truth_N), bool)
    kept: list[NDArray[np.int64]] = []
    for index, name in enumerate(CLASSES):
        rows = rng.permutation(parts["train"][truth_N[parts["train"]] == index])
        share = RARE_SHARE if name in RARE else 1.0
        rows = rows[: max(1, math.ceil(share * len(rows)))]
        kept.append(rows)
        label_N[rows[max(1, round(share * labels)) :]] = UNLABELLED
    parts["train"] = np.sort(np.concatenate(kept))
    is_train_N[parts["train"]] = True
    clips = MemoryClips(
        stored,
        label_N=label_N,
        truth_N=truth_N,
        parts=parts,
        num_classes=len(CLASSES),
        seed=seed,
    )
    away = torch.from_numpy(np.flatnonzero(is_train_N & (label_N == UNLABELLED)))
    clips.video_NTCHW = clips.video_NTCHW.clone()
    clips.video_NTCHW[away] = other_camera(clips.video_NTCHW[away])
    return clips


def run_variant(
    clips: MemoryClips, variant: str, seed: int, *, place: Path, epochs: int, steps: int
) -> dict[str, float]:
    """Figures of one training; read from ``place`` where they are there already."""
    if place.exists():
        found: dict[str, float] = json.loads(place.read_text())
        return found
    torch.manual_seed(seed)
    method = Dtm(config_of(variant, epochs, steps), CLASSES)
    plan = TrainPlan(
        seed=seed,
        workers=0,
        evaluate_every_epochs=2,
        log_every_steps=10_000,
        select="val/macro_f1",
    )
    fit_here(method, clips, plan)
    figures = _figures(method, clips)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(figures))
    return figures


@torch.no_grad()
def _figures(method: Dtm, clips: MemoryClips) -> dict[str, float]:
    method.eval()
    predicted, true = [], []
    spec = replace(method.prediction_stream(), split="test", batch_size=32)
    for batch in clips.scan(spec):
        predicted += method.predict(batch).logits_BK.argmax(dim=1).tolist()
        true += batch.label_B.tolist()
    scores = score_classes(np.array(true), np.array(predicted), CLASSES)
    f1 = {item.name: item.f1 or 0.0 for item in scores.per_class}
    figures = {
        "macro_f1": scores.macro_f1,
        "rare_f1": statistics.fmean(f1[name] for name in RARE),
        "uar": scores.uar,
    }
    if method.told_epochs:
        last = method.told_epochs[-1]
        for name in ("pseudo_accepted", "pseudo_accuracy"):
            if name in last:
                figures[name] = last[name]
    return figures


def summary(values: Mapping[str, list[float]]) -> dict[str, float]:
    """Mean over the seeds, and the deviation of the macro-F1."""
    figures = {name: round(statistics.fmean(scores), 4) for name, scores in values.items()}
    for name, scores in values.items():
        if name.endswith("/macro_f1") and len(scores) > 1:
            figures[f"{name}_sd"] = round(statistics.stdev(scores), 4)
    return figures


def main() -> None:
    """Runs what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=25, help="of an epoch")
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--labels", nargs="+", type=int, default=list(LABELS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.seeds, args.epochs, args.steps, args.labels = 1, 2, 3, [4]
        args.variants = ["supervised", "dtm", "flexmatch"]
    values: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        manifest = args.clips or make_clips(folder / "clips", quick=args.quick)
        stored = store_clips(manifest, folder / "crops.npz")
        for seed in range(args.seeds):
            for labels in args.labels:
                clips = plant(stored, labels, seed)
                for variant in args.variants:
                    name = f"{variant}-{labels}-seed{seed}-{args.epochs}x{args.steps}.json"
                    found = run_variant(
                        clips,
                        variant,
                        seed,
                        place=folder / name,
                        epochs=args.epochs,
                        steps=args.steps,
                    )
                    print(json.dumps({"seed": seed, "labels": labels, variant: found}), flush=True)
                    for key, value in found.items():
                        values[f"{variant}/{labels}/{key}"].append(value)
    figures = {"seeds": args.seeds, "steps": args.epochs * args.steps, **summary(values)}
    finish("evidence_dtm", figures, _targets(figures, args.labels), quick=args.quick)


def _targets(figures: Mapping[str, float], labels: list[int]) -> dict[str, tuple[str, str, float]]:
    """DTM on rare classes against the best other rule, and on all against labels alone."""
    targets = {}
    for number in labels:
        dtm_rare, dtm_all = f"dtm/{number}/rare_f1", f"dtm/{number}/macro_f1"
        others = [f"{rule}/{number}/rare_f1" for rule in RULES if rule != "dtm"]
        known = [figures[name] for name in others if name in figures]
        if dtm_rare in figures and known:
            targets[f"rare classes, {number} labels: best rule"] = (dtm_rare, ">=", max(known))
        alone = figures.get(f"supervised/{number}/macro_f1")
        if dtm_all in figures and alone is not None:
            targets[f"{number} labels: ahead of labels alone"] = (dtm_all, ">=", alone)
    return targets


def make_clips(folder: Path, *, quick: bool) -> Path:
    """The demo's kind of clips: 110 people, or a handful."""
    spec = SynthSpec(
        num_subjects=10 if quick else 110,
        nuisance=0.5,
        min_intensity=0.7,
        size_px=64 if quick else 96,
        seed=7,
    )
    if not (folder / "manifest.parquet").exists():
        write_dataset(spec, folder, num_workers=0)
    return folder / "manifest.parquet"


if __name__ == "__main__":
    main()
