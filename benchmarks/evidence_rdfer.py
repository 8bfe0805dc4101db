"""What RDFER's parts bring on built-in clips with planted label noise and ambiguous clips.

Variants: ``plain`` (even keys, every label believed), ``ker``, ``pa``, ``ker_pa``, and
``small_loss`` (even keys; in the second half of the training the share of clips that is known to
be wrong, those of the highest loss, is left out: it is told the rate, the others are not). Each at
several shares of wrong labels, over seeds; a seed draws people, wrong labels, order and weights.
Scores are UAR against true labels on people never seen. What was found wrong is compared with
cleanlab on the same predictions. Runs that are there already are not run again (``--folder``);
``--quick`` shows the way with a few clips, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory_clips import MemoryClips, StoredClips, at_seen_size, fit_here, split_people, store_clips
from numpy.typing import NDArray
from report import finish

from mien.clips.labels import DFEW7
from mien.evaluate.metrics import score_classes
from mien.review.confident_learning import doubted_by_cleanlab
from mien.review.quality import FoundErrors, found_errors
from mien.synth import SynthSpec, write_dataset
from mien.train.plan import TrainPlan
from mien_models.rdfer import Rdfer, RdferConfig
from mien_models.rdfer.ledger import AgreementLedger, Targets

VARIANTS = ("plain", "ker", "pa", "ker_pa", "small_loss")
NOISE = (0.0, 0.2, 0.4)
CLASSES = DFEW7.classes
PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The clips as a variant gets them."""

    clips: MemoryClips
    is_wrong_N: NDArray[np.bool_]
    is_hard_N: NDArray[np.bool_]
    key_share_N: NDArray[np.float64]
    """Where in the clip its expression is strongest, 0 to 1."""


class SmallLoss(Rdfer):
    """The baseline that is told the noise rate: clips of high loss are left out in the second half.

    Losses are the ledger's, so that it looks as often as agreement does.
    """

    rate = 0.0

    def left_out(self) -> set[str]:
        """The share of clips with the highest losses."""
        assert self.ledger is not None
        records = self.ledger.records
        own = {clip: item.probabilities[item.given] for clip, item in records.items()}
        return set(sorted(own, key=lambda clip: (own[clip], clip))[: round(self.rate * len(own))])

    def _targets(self, batch: Any, epoch: int) -> Targets:
        assert self.ledger is not None
        plain = self.ledger.targets(batch.clip_ids, batch.label_B, len(CLASSES), acts=False)
        if epoch < self.config.epochs / 2:
            return plain
        gone = self.left_out()
        weight_B = torch.tensor([float(clip not in gone) for clip in batch.clip_ids])
        return replace(plain, weight_B=weight_B)


def config_of(variant: str, epochs: int) -> RdferConfig:
    """``tiny``, changed by a variant; all look at their clips equally often."""
    config = at_seen_size(RdferConfig.tiny())
    assert isinstance(config, RdferConfig)
    assert config.agreement is not None
    agreement = replace(config.agreement, num_clips=3, every_epochs=2)
    if "pa" not in variant:
        agreement = replace(agreement, mitigate="nothing", reinforce=0.0, ial_weight=0.0)
    keys = config.keys
    if "ker" not in variant:
        keys = replace(keys, placement="uniform")
    return replace(config, epochs=epochs, agreement=agreement, keys=keys)


def plant(stored: StoredClips, noise: float, seed: int) -> Planted:
    """Wrong labels among the people of training and choosing; the test's are true."""
    truth_N = np.array([CLASSES.index(name) for name in stored.column("true_label")])
    parts = split_people(stored, PARTS, seed)
    rng = np.random.default_rng([seed, round(100 * noise)])
    seen = np.concatenate([parts["train"], parts["val"]])
    wrong = rng.choice(seen, round(noise * len(seen)), replace=False)
    label_N = truth_N.copy()
    label_N[wrong] = (truth_N[wrong] + rng.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)
    length_N = stored.column("num_frames").astype(float) / stored.column("fps").astype(float)
    clips = MemoryClips(
        stored,
        label_N=label_N,
        truth_N=truth_N,
        parts=parts,
        num_classes=len(CLASSES),
        seed=seed,
    )
    return Planted(
        clips=clips,
        is_wrong_N=label_N != truth_N,
        is_hard_N=stored.column("is_ambiguous").astype(bool),
        key_share_N=stored.column("key_time_s").astype(float) / length_N,
    )


def run_variant(
    stored: StoredClips, variant: str, noise: float, seed: int, *, place: Path, epochs: int
) -> dict[str, float]:
    """Figures of one training; read from ``place`` where they are there already."""
    if place.exists():
        found: dict[str, float] = json.loads(place.read_text())
        return found
    planted = plant(stored, noise, seed)
    torch.manual_seed(seed)
    maker = SmallLoss if variant == "small_loss" else Rdfer
    method = maker(config_of(variant, epochs), CLASSES)
    if isinstance(method, SmallLoss):
        method.rate = noise
    plan = TrainPlan(seed=seed, workers=0, evaluate_every_epochs=2, log_every_steps=10_000)
    fit_here(method, planted.clips, plan)
    figures = _figures(method, planted, noise)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(figures))
    return figures


@torch.no_grad()
def _figures(method: Rdfer, planted: Planted, noise: float) -> dict[str, float]:
    method.eval()
    predicted, true, distances, even = [], [], [], []
    spec = replace(method.prediction_stream(), split="test", with_true_label=True)
    rows = dict(zip(planted.clips.clip_ids, range(len(planted.clips.clip_ids)), strict=True))
    for batch in planted.clips.scan(spec):
        predicted += method.predict(batch).logits_BK.argmax(dim=1).tolist()
        assert batch.true_label_B is not None
        true += batch.true_label_B.tolist()
        moment_B1 = planted.key_share_N[[rows[clip] for clip in batch.clip_ids]][:, None]
        keys_BJ = (method.key_frames(batch).mean(dim=2).numpy() + 0.5) / method.config.num_frames
        distances += np.abs(keys_BJ - moment_B1).min(axis=1).tolist()
        spread = (np.arange(keys_BJ.shape[1]) + 0.5) / keys_BJ.shape[1]
        even += np.abs(spread - moment_B1).min(axis=1).tolist()
    figures = {
        "uar": score_classes(np.array(true), np.array(predicted), CLASSES).uar,
        "key_distance": float(np.nanmean(distances)),
        "key_distance_even": float(np.nanmean(even)),
    }
    return figures | _found(method, planted, rows) if noise else figures


def _found(method: Rdfer, planted: Planted, rows: Mapping[str, int]) -> dict[str, float]:
    """Precision and recall of what each rule takes for wrong, and what becomes of hard clips."""
    ledger = method.ledger
    assert isinstance(ledger, AgreementLedger)
    clips, records = planted.clips, ledger.records
    given = {clip: CLASSES[item.given] for clip, item in records.items()}
    truth = {clip: CLASSES[clips.truth_N[rows[clip]]] for clip in records}
    given_N = np.array([item.given for item in records.values()])
    rows_NK = np.array([item.probabilities for item in records.values()])
    ids = list(records)
    doubted = {
        "pa": [clip for clip, item in records.items() if item.verdict == "noisy"],
        "cleanlab": [ids[row] for row in doubted_by_cleanlab(given_N, rows_NK)],
    }
    if isinstance(method, SmallLoss):
        doubted["small_loss"] = sorted(method.left_out())
    figures: dict[str, float] = {}
    for name, chosen in doubted.items():
        figures |= _scores(name, found_errors(chosen, given, truth))
    hard = [clip for clip in ids if planted.is_hard_N[rows[clip]] and given[clip] == truth[clip]]
    noisy = set(doubted["pa"])
    if hard:
        figures["hard_survive"] = sum(clip not in noisy for clip in hard) / len(hard)
    return figures


def _scores(name: str, found: FoundErrors) -> dict[str, float]:
    """Without precision where nothing was taken for wrong."""
    recall = found.recall if found.recall is not None else 0.0
    scores = {f"{name}_recall": recall}
    return scores if found.precision is None else scores | {f"{name}_precision": found.precision}


def summary(values: Mapping[str, list[float]]) -> dict[str, float]:
    """Mean over the seeds that have a figure, and the deviation of the UARs."""
    figures = {name: round(statistics.fmean(scores), 4) for name, scores in values.items()}
    for name, scores in values.items():
        if name.endswith("/uar") and len(scores) > 1:
            figures[f"{name}_sd"] = round(statistics.stdev(scores), 4)
    return figures


def main() -> None:
    """Runs what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--clips", type=Path, help="manifest of built-in clips; made when absent")
    parser.add_argument("--folder", type=Path, help="where runs are kept and looked for")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--noise", nargs="+", type=float, default=list(NOISE))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.seeds, args.epochs, args.noise, args.variants = 1, 2, [0.2], ["ker_pa", "small_loss"]
    values: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        manifest = args.clips or make_clips(folder / "clips", quick=args.quick)
        stored = store_clips(manifest, folder / "crops.npz")
        for seed in range(args.seeds):
            for noise, variant in itertools.product(args.noise, args.variants):
                if variant == "small_loss" and noise == 0:
                    continue  # it is told that nothing is wrong, and then is ``plain``
                place = folder / f"{variant}-{noise:.0%}-seed{seed}-{args.epochs}.json"
                found = run_variant(stored, variant, noise, seed, place=place, epochs=args.epochs)
                print(json.dumps({"seed": seed, "noise": noise, variant: found}), flush=True)
                for name, value in found.items():
                    values[f"{variant}/{noise:.0%}/{name}"].append(value)
    figures = {"seeds": args.seeds, "epochs": args.epochs, **summary(values)}
    finish("evidence_rdfer", figures, _targets(figures), quick=args.quick)


def _targets(figures: Mapping[str, float]) -> dict[str, tuple[str, str, float]]:
    """The targets whose figures are there."""
    wanted = {
        "wrong labels found, precision": ("ker_pa/20%/pa_precision", ">=", 0.8),
        "wrong labels found, recall": ("ker_pa/20%/pa_recall", ">=", 0.7),
        "precision ahead of cleanlab": (
            "ker_pa/20%/pa_precision",
            ">=",
            figures.get("ker_pa/20%/cleanlab_precision", 1.0),
        ),
        "precision ahead of small loss": (
            "ker_pa/20%/pa_precision",
            ">=",
            figures.get("small_loss/20%/small_loss_precision", 1.0),
        ),
        "UAR ahead of plain at 20 % noise": (
            "ker_pa/20%/uar",
            ">=",
            figures.get("plain/20%/uar", 1.0),
        ),
    }
    return {name: rule for name, rule in wanted.items() if rule[0] in figures}


def make_clips(folder: Path, *, quick: bool) -> Path:
    """People of whom a fifth of the clips is ambiguous, a fifth shows another expression too."""
    spec = SynthSpec(
        num_subjects=10 if quick else 90,
        nuisance=0.5,
        min_intensity=0.7,
        ambiguous=0.2,
        multi_expression=0.2,
        size_px=64 if quick else 96,
        seed=11,
    )
    if not (folder / "manifest.parquet").exists():
        write_dataset(spec, folder, num_workers=0)
    return folder / "manifest.parquet"


if __name__ == "__main__":
    main()
